"""The file of kernel tables: what it keeps, and every reason to refuse one."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator.calibration import CalibrationFile, FrontEndLatency
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.kernel_tables import (
    ATTRIBUTES,
    AXES,
    LONGEST_NS,
    KernelTable,
    KernelTables,
    Value,
    Where,
    table_from_rows,
)
from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.calibration.shipped import open_calibration, shipped_names
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.errors import CalibrationError

Rows = dict[tuple[Value, ...], list[float]]
Change = Callable[[dict[str, Any]], object]


def made() -> KernelCalibration:
    gemm: Rows = {((4096, 1024), 1): [5_000.0], ((4096, 1024), 64): [9_000.0, 7_000.0]}
    reduce_: Rows = {(2, 1024): [4_000.0], (4, 2048): [6_000.0]}
    return KernelCalibration(
        xpu="h100-sxm",
        tables=KernelTables(
            [
                table_from_rows(Where("gemm", ("bfloat16",)), gemm),
                table_from_rows(Where("all_reduce", ("graph",)), reduce_),
            ]
        ),
        overheads=HostOverheads(kernel_latency_us=1.5, all_reduce_factor=2.0),
        front_end=FrontEndLatency(request_latency_ms=7.0),
        provenance={"source": "by hand", "fitted_runs": ["a"]},
    )


def plain() -> dict[str, Any]:
    """A file by hand, times as numbers."""
    gemm = {
        "kernel": "gemm",
        "format": "bfloat16",
        "axes": {"shape": [[4096, 1024], [4096, 2048]], "tokens": [1, 64]},
        "latency_ns": [5000, 8000, 6000, 0],
    }
    decode = {
        "kernel": "decode_attention",
        "kv_dtype": "bfloat16",
        "head_dim": 128,
        "window": 0,
        "axes": {"heads": [[32, 8]], "batch": [1], "context": [64, 128]},
        "latency_ns": [5000.5, 8000],
    }
    return {"schema_version": 1, "kind": "op_table", "xpu": "H100", "tables": [gemm, decode]}


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["k.json", "k.json.gz"])
def test_a_file_keeps_everything_and_is_rewritten_byte_for_byte(tmp_path: Path, name: str) -> None:
    path, again = tmp_path / name, tmp_path / f"again_{name}"
    made().write(path)
    read = KernelCalibration.read(path)
    read.write(again)
    assert again.read_bytes() == path.read_bytes()
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")
    assert sorted(tmp_path.iterdir()) == sorted((path, again))
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read.source == str(path)
    for name_ in ("xpu", "overheads", "front_end", "provenance"):
        assert getattr(read, name_) == getattr(made(), name_), name_
    table = read.tables.get("gemm", "bfloat16")
    assert table is not None
    assert table.axes == (((4096, 1024),), (1, 64))
    assert table.latency_ns.tolist() == [[5_000.0, 8_000.0]]
    other = read.tables.get("all_reduce", "graph")
    assert other is not None
    np.testing.assert_array_equal(other.latency_ns, [[4_000.0, math.nan], [math.nan, 6_000.0]])
    assert read.tables.points == 4


def test_a_file_by_hand_is_read(tmp_path: Path) -> None:
    read = KernelCalibration.read(write(tmp_path / "k.json", plain()))
    assert read.xpu == "h100-sxm"
    assert (read.overheads, read.front_end) == (HostOverheads(), None)
    table = read.tables.get("gemm", "bfloat16")
    assert table is not None
    np.testing.assert_array_equal(table.latency_ns, [[5000.0, 8000.0], [6000.0, math.nan]])
    assert read.describe() == f"{tmp_path / 'k.json'}, 5 points"


def put(*path: str | int, to: Any) -> Change:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = to

    return change


def drop(*path: str | int) -> Change:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


GEMM, DECODE = ("tables", 0), ("tables", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("overhead", to={}), "unknown key 'overhead'; did you mean 'overheads'?"),
        (put("schema_version", to=2), "schema_version=2, this program reads 1"),
        (drop("schema_version"), "schema_version=None, this program reads 1"),
        (put("xpu", to=7), "xpu=7 must name the measured accelerator"),
        (drop("xpu"), "xpu=None must name the measured accelerator"),
        (put("provenance", to=[]), "provenance must be a mapping"),
        (put("overheads", to={"step_overhed_us": 1}), "did you mean 'step_overhead_us'?"),
        (put("overheads", to={"step_overhead_us": -1}), "step_overhead_us=-1"),
        (put("overheads", to={"step_overhead_us": math.inf}), "step_overhead_us=inf"),
        (put("overheads", to={"all_reduce_factor": 0.5}), "all_reduce_factor=0.5"),
        (put("overheads", to={"kernel_latency_us": "2"}), "kernel_latency_us='2'"),
        (put("overheads", to=[1.0]), "overheads must be a mapping"),
        (
            put("front_end", to={"request_latency_ms": 1, "request_latency": 1}),
            "did you mean 'request_latency_ms'?",
        ),
        (put("front_end", to={"request_latency_ms": -1}), "request_latency_ms=-1"),
        (put("tables", to=[]), "tables must be a list of kernel tables"),
        (put("tables", to={}), "tables must be a list of kernel tables"),
        (drop("tables"), "tables must be a list of kernel tables"),
        (put(*DECODE, to=3), "tables[1] must be a mapping, not int"),
        (put(*GEMM, "kernel", to="gem"), "tables[0]: unknown kernel 'gem'; did you mean 'gemm'?"),
        (put(*GEMM, "kernel", to=["gemm"]), "tables[0]: unknown kernel"),
        (drop(*GEMM, "kernel"), "tables[0]: unknown kernel"),
        (put(*GEMM, "fromat", to="x"), "unknown key 'fromat'; did you mean 'format'?"),
        (put(*GEMM, "window", to=0), "tables[0]: unknown key 'window'"),
        (drop(*DECODE, "window"), "tables[1]: window is missing"),
        (drop(*GEMM, "axes"), "tables[0]: axes is missing"),
        (drop(*GEMM, "latency_ns"), "tables[0]: latency_ns is missing"),
        (put(*GEMM, "format", to=None), "format=None must be a word or a whole number"),
        (put(*DECODE, "head_dim", to=1.5), "head_dim=1.5 must be a word or a whole number"),
        (put(*DECODE, "window", to=True), "window=True must be a word or a whole number"),
        (put(*DECODE, "head_dim", to=[128]), "head_dim=[128] must be a word or a whole number"),
        (put(*GEMM, "axes", to=[]), "tables[0]: axes must be a mapping of shape, tokens"),
        (drop(*GEMM, "axes", "tokens"), "axes.tokens must be a list of whole numbers"),
        (put(*GEMM, "axes", "tokens", to=[]), "axes.tokens must be a list of whole numbers"),
        (put(*GEMM, "axes", "rows", to=[1]), "unknown key 'rows'"),
        (put(*GEMM, "axes", "tokens", to=[64, 1]), "axes.tokens must rise, without repeats"),
        (put(*GEMM, "axes", "tokens", to=[1, 1]), "axes.tokens must rise, without repeats"),
        (put(*GEMM, "axes", "tokens", to=[1, 1.5]), "axes.tokens: 1.5 must be one whole num"),
        (put(*GEMM, "axes", "tokens", to=[-1, 1]), "axes.tokens: -1 must be one whole"),
        (
            put(*GEMM, "axes", "tokens", to=[0, 1]),
            "axes.tokens: 0 must be one whole number, at least 1",
        ),
        (put(*GEMM, "axes", "tokens", to=[1, True]), "axes.tokens: True must be one whole"),
        (put(*GEMM, "axes", "tokens", to=[1, [2, 3]]), "axes.tokens: [2, 3] must be one whole"),
        (
            put(*GEMM, "axes", "shape", to=[[1, 2], [1, 2, 3]]),
            "axes.shape: [1, 2, 3] must be a list of 2 whole numbers, at least 1",
        ),
        (put(*GEMM, "axes", "shape", to=[1, [2, 3]]), "axes.shape: 1 must be a list of 2"),
        (
            put(*GEMM, "axes", "shape", to=[[[1], 2], [3, 4]]),
            "axes.shape: [[1], 2] must be a list of 2 whole numbers",
        ),
        (put(*GEMM, "latency_ns", to=[1, 2, 3]), "latency_ns has 3 numbers, its axes span 4"),
        (put(*GEMM, "latency_ns", to="AAAA"), "latency_ns must be a list of numbers, or base64"),
        (put(*GEMM, "latency_ns", to="AQAAAA=="), "latency_ns has 1 numbers, its axes span 4"),
        (put(*GEMM, "latency_ns", to="not base64"), "latency_ns must be a list of numbers, or"),
        (put(*GEMM, "latency_ns", to={}), "latency_ns must be a list of numbers, or"),
        (put(*GEMM, "latency_ns", to=[[1, 2], [3, 4]]), "its axes span 4"),
        (
            put(*GEMM, "latency_ns", to=[1, 2, 3, math.nan]),
            "latency_ns[3]=nan must be a number from 0",
        ),
        (
            put(*GEMM, "latency_ns", to=[1, math.inf, 3, 4]),
            "latency_ns[1]=inf must be a number from 0",
        ),
        (put(*GEMM, "latency_ns", to=[1, 2, -3, 4]), "latency_ns[2]=-3.0 must be a number from 0"),
        (put(*GEMM, "latency_ns", to=[1, 2, 3, 5e9]), "latency_ns[3]=5000000000.0"),
        (put(*GEMM, "latency_ns", to=[0, 0, 0, 0]), "latency_ns has no measured point"),
        (put(*DECODE, to=plain()["tables"][0]), "tables[1] repeats kernel=gemm"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: Change, reason: str) -> None:
    data = copy.deepcopy(plain())
    change(data)
    path = write(tmp_path / "k.json", data)
    with pytest.raises(CalibrationError) as caught:
        KernelCalibration.read(path)
    message = str(caught.value)
    assert message.startswith(f"calibration file {path}: ")
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (gzip.compress(json.dumps(plain()).encode(), mtime=0)[:-30], "is damaged or was cut"),
        (gzip.compress(json.dumps(plain()).encode(), mtime=0)[:-4], "is damaged or was cut"),
        (b"\x1f\x8b\x00\x00", "is damaged or was cut"),
        (json.dumps(plain()).encode()[:-5], "is not valid JSON"),
        (gzip.compress(b"{", mtime=0), "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"\xff\xff", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[1, 2]", "must hold one mapping"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, raw: bytes, reason: str) -> None:
    path = tmp_path / "k.json.gz"
    path.write_bytes(raw)
    for read in (KernelCalibration.read, lambda name: open_calibration(str(name))):
        with pytest.raises(CalibrationError) as caught:
            read(path)
        assert str(caught.value).startswith(f"calibration file {path} {reason}")


def test_one_wrong_bit_is_found(tmp_path: Path) -> None:
    """The compression's checksum sees what no plausibility can."""
    path = tmp_path / "k.json.gz"
    made().write(path)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CalibrationError, match="damaged"):
        KernelCalibration.read(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="does not exist: check the path"):
        KernelCalibration.read(tmp_path / "none.json")
    with pytest.raises(CalibrationError, match="cannot be read: Is a directory"):
        KernelCalibration.read(tmp_path)


def test_shipped_calibrations_open_by_any_name_of_their_accelerator() -> None:
    names = shipped_names()
    assert {"h100-sxm", "h200-sxm", "a100-80-sxm", "l40s", "rtx-pro-6000", "rtx-4090"} <= {*names}
    for alias in ("h100-sxm", "H100"):
        found = open_calibration(alias)
        assert isinstance(found, KernelCalibration)
        assert (found.xpu, found.source) == ("h100-sxm", "h100-sxm")
        assert found.provenance["fitted_runs"]
    with pytest.raises(CalibrationError, match="unknown calibration 'h100-smx'; did you mean 'h10"):
        open_calibration("h100-smx")
    with pytest.raises(CalibrationError, match=r"file h100.json does not exist"):
        open_calibration("h100.json")


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_calibration_says_where_it_is_from(name: str) -> None:
    found = open_calibration(name)
    assert isinstance(found, KernelCalibration)
    assert found.xpu == name
    assert {"source", "versions", "files_sha256", "overheads"} <= found.provenance.keys()
    assert {"gemm", "prefill_attention", "decode_attention"} <= {t.kernel for t in found.tables}


def test_a_file_wins_over_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made().write(tmp_path / "h100-sxm")
    monkeypatch.chdir(tmp_path)
    found = open_calibration("h100-sxm")
    assert isinstance(found, KernelCalibration)
    assert found.tables.points == 4


def test_effective_rates_and_kernel_tables_are_told_apart(tmp_path: Path) -> None:
    rates = {
        "prefill_effective_tflops": 600.0, "prefill_effective_bandwidth_gbps": 2500.0,
        "decode_effective_tflops": 400.0, "decode_effective_bandwidth_gbps": 2000.0,
    }  # fmt: skip
    for name, data in (("a.json", json.dumps(rates)), ("b.yaml", json.dumps(rates))):
        (tmp_path / name).write_text(data, encoding="utf-8")
        assert isinstance(open_calibration(str(tmp_path / name)), CalibrationFile)
    with pytest.raises(CalibrationError, match="has no overheads of kernel tables"):
        made().with_overheads_of(str(tmp_path / "a.json"))


def test_another_accelerator_is_refused() -> None:
    made().require_xpu(load_xpu("H100"))
    with pytest.raises(CalibrationError, match="measured on xpu=h100-sxm, not on h200-sxm"):
        made().require_xpu(load_xpu("h200"))


def test_overheads_are_taken_over_with_their_origin(tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    made().write(path)
    bare = KernelCalibration(xpu="l40s", tables=made().tables, provenance={"source": "x"})
    taken = bare.with_overheads_of(str(path))
    assert (taken.xpu, taken.overheads, taken.front_end) == (
        "l40s",
        made().overheads,
        made().front_end,
    )
    assert taken.provenance == {"source": "x", "overheads": "fitted on runs on h100-sxm"}
    assert "fitted_runs" not in taken.provenance  # these runs say nothing of an L40S


WORDS = st.text("abcdefgh_0123456789", min_size=1, max_size=8)
SHAPES = {"gemm": 2, "prefill_attention": 2, "decode_attention": 2, "mla_prefill": 1}
SHAPES |= {"mla_decode": 1, "experts": 6}
SIZES = st.integers(1, 2**40)


@st.composite
def tables(draw: st.DrawFn) -> KernelTable:
    kernel = draw(st.sampled_from(sorted(AXES)))
    attributes = tuple(draw(WORDS | st.integers(0, 4096)) for _ in ATTRIBUTES[kernel])
    parts = SHAPES.get(kernel)
    first: Any = SIZES if parts is None else st.tuples(*[SIZES] * parts)
    axes = tuple(
        tuple(sorted(draw(st.sets(first if axis == 0 else SIZES, min_size=1, max_size=3))))
        for axis in range(len(AXES[kernel]))
    )
    size = math.prod(len(axis) for axis in axes)
    time = st.just(math.nan) | st.integers(1, LONGEST_NS).map(float)
    latency = draw(st.lists(time, min_size=size, max_size=size).filter(lambda x: np.nansum(x) > 0))
    grid = np.array(latency).reshape([len(axis) for axis in axes])
    return KernelTable(kernel, attributes, axes, grid)


@given(st.lists(tables(), min_size=1, max_size=4, unique_by=lambda t: (t.kernel, t.attributes)))
def test_tables_survive_the_file_to_the_nanosecond(written: list[KernelTable]) -> None:
    text = json.dumps(KernelTables(written).to_json())
    read = list(KernelTables.from_json(json.loads(text), "here"))
    assert len(read) == len(written)
    for before, after in zip(written, read, strict=True):
        assert (after.kernel, after.attributes, after.axes) == (
            before.kernel,
            before.attributes,
            before.axes,
        )
        np.testing.assert_array_equal(after.latency_ns, before.latency_ns)


@given(st.floats(1.0, 1e6))
def test_fractions_of_a_nanosecond_are_rounded(latency_ns: float) -> None:
    table = KernelTable("all_gather", (), ((2,), (1024,)), np.array([[latency_ns]]))
    text = json.dumps(KernelTables([table]).to_json())
    (read,) = KernelTables.from_json(json.loads(text), "here")
    assert abs(float(read.latency_ns[0, 0]) - latency_ns) <= 0.5
