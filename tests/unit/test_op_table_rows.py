"""Importing kernel tables: what is read, and every reason to refuse a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_inference_simulator.calibration.op_table_rows import ImportedTables, import_op_tables
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.errors import CalibrationError

Row = dict[str, Any]
H100 = load_xpu("h100-sxm")
DEVICE = "NVIDIA H100 80GB HBM3"


def gemm(m: int, n: int, k: int, *, slowdown: float = 2.0, **changed: Any) -> Row:
    """A product at half of an H100's 16-bit peak of 989 TFLOPS, but never below 5 us."""
    milliseconds = max(0.005, slowdown * 2e3 * m * n * k / 989e12)
    row = {
        "device": DEVICE, "op_name": "gemm", "gemm_dtype": "bfloat16",
        "m": m, "n": n, "k": k, "latency": milliseconds,
    }  # fmt: skip
    return row | changed


SIZES = tuple(256 * size for size in range(1, 9))


def grid() -> list[Row]:
    """64 shapes, each with a light and a heavy product."""
    return [gemm(m, n, k) for n in SIZES for k in SIZES for m in (1, 2048)]


def attention(**changed: Any) -> Row:
    row = {
        "device": DEVICE, "op_name": "context_attention", "batch_size": 2, "isl": 512,
        "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "kv_cache_dtype": "bfloat16",
        "step": 0, "window_size": 0, "latency": 0.05,
    }  # fmt: skip
    return row | changed


def all_reduce(latency: float = 0.01, **changed: Any) -> Row:
    row = {
        "device": DEVICE, "op_name": "all_reduce", "num_gpus": 2, "message_size": 1024,
        "backend": "vllm_graph", "latency": latency,
    }  # fmt: skip
    return row | changed


def put(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], *, version: str = "0.24.0"
) -> Path:
    path = folder / "kind" / "vllm" / version / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def load(folder: Path) -> ImportedTables:
    return import_op_tables(folder, H100)


def refusal(folder: Path) -> str:
    with pytest.raises(CalibrationError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def latency_us(found: ImportedTables, kernel: str, *attributes: str | int) -> list[float]:
    table = found.tables.get(kernel, *attributes)
    assert table is not None
    return [float(value) / 1e3 for value in table.latency_ns.ravel()]


def test_every_kernel_lands_on_its_own_axes(tmp_path: Path) -> None:
    put(tmp_path, "gemm_perf", grid())
    put(tmp_path, "context_attention_perf", [attention(step=256, window_size=1024)])
    decode = attention(op_name="generation_attention", isl=1, step=1023, latency=0.02)
    put(tmp_path, "generation_attention_perf", [decode])
    module = {
        "device": DEVICE, "op_name": "mla_context_module", "num_heads": 128, "batch_size": 1,
        "isl": 256, "step": 0, "gemm_type": "bfloat16", "kv_cache_dtype": "fp8", "tp_size": 1,
        "latency": 0.3,
    }  # fmt: skip
    put(tmp_path, "mla_context_module_perf", [module, module | {"tp_size": 8, "latency": 9.0}])
    turned = module | {"op_name": "mla_generation_module", "isl": 1, "step": 4096, "latency": 0.2}
    put(tmp_path, "mla_generation_module_perf", [turned])
    experts = {
        "device": DEVICE, "op_name": "moe", "moe_dtype": "int4_wo", "num_tokens": 8,
        "hidden_size": 4096, "inter_size": 2048, "topk": 6, "num_experts": 256, "moe_tp_size": 1,
        "moe_ep_size": 2, "distribution": "balanced", "latency": 0.08,
    }  # fmt: skip
    put(tmp_path, "moe_perf", [experts, experts | {"moe_dtype": "float1", "latency": 9.0}])
    put(tmp_path, "custom_allreduce_perf", [all_reduce(), all_reduce(0.02, backend="vllm_eager")])
    nccl = {"num_gpus": 4, "message_size": 4096, "latency": 0.006}
    gather = {"op_name": "all_gather", "nccl_dtype": "half", **nccl}
    swap = {"op_name": "alltoall", "nccl_dtype": "int8", **nccl}
    put(tmp_path, "nccl_perf", [gather, swap, gather | {"op_name": "reduce_scatter"}])
    put(tmp_path, "mla_bmm_perf", [{"latency": -1.0}])  # part of the modules: never read

    found = load(tmp_path)
    axes = {(table.kernel, table.attributes): table.axes for table in found.tables}
    assert axes == {
        ("gemm", ("bfloat16",)): (tuple((n, k) for n in SIZES for k in SIZES), (1, 2048)),
        ("prefill_attention", ("bfloat16", 128, 1024)): (((32, 8),), (2,), (512,), (256,)),
        ("decode_attention", ("bfloat16", 128, 0)): (((32, 8),), (2,), (1024,)),
        ("mla_prefill", ("bfloat16", "fp8")): (((128,),), (1,), (256,)),
        ("mla_decode", ("bfloat16", "fp8")): (((128,),), (1,), (4096,)),
        ("experts", ("int4", "balanced")): (((4096, 2048, 6, 256, 1, 2),), (8,)),
        # Sizes of custom_allreduce count 16-bit elements.
        ("all_reduce", ("graph",)): ((2,), (2048,)),
        ("all_reduce", ("eager",)): ((2,), (2048,)),
        # A rank moves three of four shards: of 2 bytes an element, and of 1.
        ("all_gather", ()): ((4,), (6144,)),
        ("all_to_all", ()): ((4,), (3072,)),
    }
    assert latency_us(found, "decode_attention", "bfloat16", 128, 0) == pytest.approx([20.0])
    assert latency_us(found, "all_reduce", "eager") == pytest.approx([20.0])
    assert latency_us(found, "gemm", "bfloat16")[-2:] == pytest.approx(
        [5.0, 2 * 2e6 * 2048**3 / 989e12]
    )
    assert found.notes == ()
    assert found.versions["gemm_perf"] == "0.24.0"
    assert {len(sha256) for sha256 in found.files.values()} == {64}
    assert "kind/vllm/0.24.0/nccl_perf.parquet" in found.files
    assert not any("mla_bmm" in name for name in found.files)


def test_sums_of_nccl_stand_in_where_vllms_were_not_measured(tmp_path: Path) -> None:
    row = {
        "device": DEVICE, "op_name": "all_reduce", "num_gpus": 2, "message_size": 1024,
        "nccl_dtype": "half", "latency": 0.03,
    }  # fmt: skip
    put(tmp_path, "nccl_perf", [row])
    for launch in ("graph", "eager"):
        assert latency_us(load(tmp_path), "all_reduce", launch) == pytest.approx([30.0])
    put(tmp_path, "custom_allreduce_perf", [all_reduce(0.01)])
    found = load(tmp_path)
    assert latency_us(found, "all_reduce", "graph") == pytest.approx([10.0])
    assert [table.attributes for table in found.tables] == [("graph",)]


def test_few_shapes_are_one_models(tmp_path: Path) -> None:
    rows = [gemm(16, n, 256, framework="torch") for n in SIZES]
    put(tmp_path, "gemm_perf", rows)
    found = load(tmp_path)
    assert found.notes == ()
    assert [table.attributes for table in found.tables] == [("bfloat16",)]


def test_the_newest_version_counts(tmp_path: Path) -> None:
    for version, latency in (("0.9.2", 0.03), ("0.24.0", 0.01), ("0.14.0", 0.02)):
        put(tmp_path, "custom_allreduce_perf", [all_reduce(latency)], version=version)
    found = load(tmp_path)
    assert latency_us(found, "all_reduce", "graph") == pytest.approx([10.0])
    assert found.versions == {"custom_allreduce_perf": "0.24.0"}


def test_the_median_of_repeated_rows_counts(tmp_path: Path) -> None:
    put(tmp_path, "custom_allreduce_perf", [all_reduce(x) for x in (0.010, 0.90, 0.012)])
    assert latency_us(load(tmp_path), "all_reduce", "graph") == pytest.approx([12.0])


def test_points_that_were_not_measured_stay_empty(tmp_path: Path) -> None:
    rows = [all_reduce(0.01), all_reduce(0.02, num_gpus=4, message_size=2048)]
    put(tmp_path, "custom_allreduce_perf", rows)
    first, gap, other, last = latency_us(load(tmp_path), "all_reduce", "graph")
    assert (first, last) == pytest.approx((10.0, 20.0))
    assert math.isnan(gap)
    assert math.isnan(other)


def test_an_aborted_measurement_is_left_out_and_said(tmp_path: Path) -> None:
    few = [gemm(16, n, 256, gemm_dtype="fp8") for n in SIZES]
    put(tmp_path, "gemm_perf", [*grid(), *few])
    found = load(tmp_path)
    assert [table.attributes for table in found.tables] == [("bfloat16",)]
    (note,) = found.notes
    assert "gemm fp8" in note
    assert "8 shapes" in note


def test_a_folder_must_be_there_and_hold_tables(tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'} is not a folder" in refusal(tmp_path / "none")
    (tmp_path / "readme.txt").write_text("no table", encoding="utf-8")
    assert "holds no kernel tables (*.parquet)" in refusal(tmp_path)


def test_an_unknown_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, "custom_allreduce_perf", [all_reduce()])
    path = put(tmp_path, "gemm_pref", grid()[:1])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: ")
    assert "gemm_perf.parquet" in message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_cut_file_is_refused(tmp_path: Path, share: float) -> None:
    path = put(tmp_path, "gemm_perf", grid())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(share * len(raw))])
    assert refusal(tmp_path).startswith(f"{path} is damaged or no parquet file")


def test_a_damaged_page_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "gemm_perf", grid())
    raw = bytearray(path.read_bytes())
    raw[4:200] = b"\xff" * 196
    path.write_bytes(raw)
    assert refusal(tmp_path).startswith(f"{path} is damaged or no parquet file")


@pytest.mark.parametrize("column", ["latency", "gemm_dtype", "m", "n", "k"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in grid()]
    path = put(tmp_path, "gemm_perf", rows)
    assert refusal(tmp_path) == f"{path}: column {column!r} is missing"


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "gemm_perf", grid()[:1])
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    assert refusal(tmp_path) == f"{path} has no rows"


@pytest.mark.parametrize(
    ("latency", "reason"),
    [
        (math.nan, "latency=nan must be a finite number above 0"),
        (math.inf, "latency=inf must be a finite number above 0"),
        (-0.01, "latency=-0.01 must be a finite number above 0"),
        (0.0, "latency=0.0 must be a finite number above 0"),
        (None, "latency=None must be a finite number above 0"),
        (1e6, "latency=1000000.0 ms is no time of one kernel"),
    ],
)
def test_an_impossible_latency_is_refused_with_its_row(
    tmp_path: Path, latency: float | None, reason: str
) -> None:
    path = put(
        tmp_path, "custom_allreduce_perf", [all_reduce(), all_reduce() | {"latency": latency}]
    )
    message = refusal(tmp_path)
    assert message.startswith(f"{path}, row 2: {reason}")
    assert "milliseconds" in message


def test_a_latency_in_words_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "custom_allreduce_perf", [all_reduce() | {"latency": "0.01"}])
    assert refusal(tmp_path).startswith(f"{path}, row 1: latency='0.01' must be a finite number")


def test_seconds_are_no_milliseconds(tmp_path: Path) -> None:
    rows = [row | {"latency": row["latency"] / 1e3} for row in grid()]
    message = refusal(put(tmp_path, "gemm_perf", rows).parents[3])
    assert ", row 2: " in message  # the first heavy product
    assert "times the peak of h100-sxm: latency must be milliseconds" in message


def test_microseconds_are_no_milliseconds(tmp_path: Path) -> None:
    path = put(tmp_path, "gemm_perf", [row | {"latency": row["latency"] * 1e3} for row in grid()])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: large products reach ")
    assert message.endswith("latency must be milliseconds")


def test_one_row_in_another_unit_is_found(tmp_path: Path) -> None:
    rows = grid()
    rows[77] = rows[77] | {"latency": rows[77]["latency"] / 1e3}
    path = put(tmp_path, "gemm_perf", rows)
    assert refusal(tmp_path).startswith(f"{path}, row 78: ")


@pytest.mark.parametrize(
    "device", ["NVIDIA A100-SXM4-80GB", "NVIDIA H200", "NVIDIA L40S", "AMD Instinct MI300X", ""]
)
def test_another_accelerator_is_refused(tmp_path: Path, device: str) -> None:
    path = put(tmp_path, "custom_allreduce_perf", [all_reduce(), all_reduce(device=device)])
    assert refusal(tmp_path).startswith(f"{path}, row 2: device={device!r} is not h100-sxm")


@pytest.mark.parametrize(
    ("device", "xpu"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80-sxm"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H200", "h200-sxm"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
    ],
)
def test_drivers_names_are_recognised(tmp_path: Path, device: str, xpu: str) -> None:
    put(tmp_path, "custom_allreduce_perf", [all_reduce(device=device)])
    assert import_op_tables(tmp_path, load_xpu(xpu)).tables.points == 1


def test_another_kernel_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "context_attention_perf", [attention(op_name="generation_attention")])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}, row 1: op_name='generation_attention'")
    assert message.endswith("context_attention")


@pytest.mark.parametrize(
    "column", ["batch_size", "isl", "num_heads", "num_key_value_heads", "step"]
)
def test_a_missing_value_is_refused_with_its_row(tmp_path: Path, column: str) -> None:
    rows = [attention(), attention(isl=1024) | {column: None}]
    path = put(tmp_path, "context_attention_perf", rows)
    assert refusal(tmp_path).startswith(f"{path}, row 2: ")


@pytest.mark.parametrize(
    ("column", "value"),
    [("num_gpus", 0), ("message_size", -8), ("num_gpus", 2.5), ("message_size", "big")],
)
def test_an_impossible_size_is_refused_with_its_row(
    tmp_path: Path, column: str, value: Any
) -> None:
    path = put(tmp_path, "custom_allreduce_perf", [all_reduce() | {column: value}])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}, row 1: {column}={value!r}")


def test_formats_that_nothing_uses_leave_no_calibration(tmp_path: Path) -> None:
    put(tmp_path, "gemm_perf", [row | {"gemm_dtype": "int8_wo"} for row in grid()])
    assert "holds no kernel of a format that is understood" in refusal(tmp_path)
