"""Reads kernel measurements in the layout of aiconfigurator-core's data: parquet files by kernel.

A folder has ``KIND/FRAMEWORK/VERSION/NAME.parquet``; where a kernel was measured with several
versions, the newest counts. Latencies are milliseconds.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm_inference_simulator.calibration.kernel_tables import (
    LONGEST_NS,
    KernelTable,
    KernelTables,
    Value,
    Where,
    table_from_rows,
)
from llm_inference_simulator.calibration.unit_check import UnitCheck
from llm_inference_simulator.catalog import XpuSpec
from llm_inference_simulator.errors import CalibrationError

Row = Mapping[str, Any]
Point = tuple[Where, tuple[Value, ...]]

GEMM_FORMATS = {"bfloat16": "bfloat16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4"}
EXPERT_FORMATS = {
    "bfloat16": "bfloat16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "int4_wo": "int4",
    "w4a16_mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
}
"""Names of the files, and ours. Formats beside these are left out."""

FEWEST_SHAPES = 50
"""Of a format's matrix products; aiconfigurator's grids have hundreds."""
ONE_MODEL = "torch"
"""Framework of ``vllm_benchmarks breakdown``, which measures the few shapes of one model."""
_NCCL = Where("all_reduce", ("nccl",))
"""NCCL's sums until it is known whether vLLM's own were measured, which are faster."""


class Layout(NamedTuple):
    """How a file's rows are read."""

    operations: tuple[str, ...]
    """What ``op_name`` may say."""
    columns: tuple[str, ...]
    """Columns that must be there, beside ``latency``."""
    point: Callable[[Row], Point | None]
    """Table and place of a row; None for rows of no use here."""
    products: bool = False
    """Whether rows are matrix products of m, n and k, which show a wrong unit."""


def _gemm(row: Row) -> Point | None:
    format_ = GEMM_FORMATS.get(row["gemm_dtype"])
    if format_ is None:
        return None
    return Where("gemm", (format_,)), ((row["n"], row["k"]), row["m"])


def _attention(row: Row) -> tuple[str | int, ...]:
    return (row["kv_cache_dtype"], row["head_dim"], row.get("window_size") or 0)


def _prefill(row: Row) -> Point:
    heads = (row["num_heads"], row["num_key_value_heads"])
    place = (heads, row["batch_size"], row["isl"], row["step"])
    return Where("prefill_attention", _attention(row)), place


def _decode(row: Row) -> Point:
    heads = (row["num_heads"], row["num_key_value_heads"])
    place = (heads, row["batch_size"], row["isl"] + row["step"])
    return Where("decode_attention", _attention(row)), place


def _mla(kernel: str) -> Callable[[Row], Point | None]:
    def point(row: Row) -> Point | None:
        format_ = GEMM_FORMATS.get(row["gemm_type"])
        if format_ is None or row["tp_size"] != 1:
            return None
        # The decode module's step counts the new token already.
        length = row["isl"] if kernel == "mla_prefill" else row["step"]
        where = Where(kernel, (format_, row["kv_cache_dtype"]))
        return where, ((row["num_heads"],), row["batch_size"], length)

    return point


def _experts(row: Row) -> Point | None:
    format_ = EXPERT_FORMATS.get(row["moe_dtype"])
    if format_ is None:
        return None
    names = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    shape = tuple(row[name] for name in names)
    return Where("experts", (format_, row["distribution"])), (shape, row["num_tokens"])


def _all_reduce(row: Row) -> Point:
    launch = "graph" if row["backend"] == "vllm_graph" else "eager"
    # Sizes count 16-bit elements: as bytes they would exceed no link, at half its bandwidth.
    return Where("all_reduce", (launch,)), (row["num_gpus"], 2 * row["message_size"])


def _nccl(row: Row) -> Point | None:
    ranks, width = row["num_gpus"], 2 if row["nccl_dtype"] in ("half", "bfloat16") else 1
    if row["op_name"] == "all_reduce":
        return _NCCL, (ranks, row["message_size"] * width)
    kernels = {"all_gather": "all_gather", "alltoall": "all_to_all"}
    kernel = kernels.get(row["op_name"])
    if kernel is None:
        return None
    # Sizes count elements of the whole buffer, of which each accelerator moves (n - 1)/n.
    return Where(kernel, ()), (ranks, row["message_size"] * width * (ranks - 1) // ranks)


def _norm(row: Row) -> Point | None:
    if row["norm_dtype"] not in ("bfloat16", "float16"):
        return None
    # Reads a vector and writes one; with the residual, as vLLM runs it, it passes over twice that.
    return Where("elementwise", ("layernorm", 2 * row["hidden_size"])), (row["num_tokens"],)


_ATTENTION = (
    "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "kv_cache_dtype", "step",
)  # fmt: skip

LAYOUTS: Mapping[str, Layout] = {
    "gemm_perf": Layout(
        ("gemm",),
        ("gemm_dtype", "m", "n", "k"),
        _gemm,
        products=True,
    ),
    "context_attention_perf": Layout(("context_attention",), _ATTENTION, _prefill),
    "generation_attention_perf": Layout(("generation_attention",), _ATTENTION, _decode),
    "mla_context_module_perf": Layout(
        ("mla_context_module",),
        ("num_heads", "batch_size", "isl", "gemm_type", "kv_cache_dtype", "tp_size"),
        _mla("mla_prefill"),
    ),
    "mla_generation_module_perf": Layout(
        ("mla_generation_module",),
        ("num_heads", "batch_size", "step", "gemm_type", "kv_cache_dtype", "tp_size"),
        _mla("mla_decode"),
    ),
    "moe_perf": Layout(
        ("moe",),
        (
            "moe_dtype", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts",
            "moe_tp_size", "moe_ep_size", "distribution",
        ),
        _experts,
    ),
    "custom_allreduce_perf": Layout(
        ("all_reduce",), ("num_gpus", "message_size", "backend"), _all_reduce
    ),
    "nccl_perf": Layout(
        ("all_gather", "all_reduce", "alltoall", "reduce_scatter"),
        ("op_name", "num_gpus", "message_size", "nccl_dtype"),
        _nccl,
    ),
    "norm_perf": Layout(("rms_norm",), ("norm_dtype", "num_tokens", "hidden_size"), _norm),
}  # fmt: skip
"""Files by name. ``mla_bmm_perf`` is left out: its products are part of the modules."""

LEFT_OUT = ("mla_bmm_perf",)

_WORDS = (
    "gemm_dtype", "kv_cache_dtype", "gemm_type", "moe_dtype", "distribution", "backend",
    "op_name", "nccl_dtype", "norm_dtype",
)  # fmt: skip
"""Columns that hold names; all others of a layout hold sizes."""
_MAY_BE_0 = ("step", "window_size")


@dataclass(frozen=True, slots=True)
class ImportedTables:
    """What a folder held."""

    tables: KernelTables
    files: dict[str, str]
    """SHA-256 of every file that was read, by its path inside the folder."""
    versions: dict[str, str]
    """Framework version by file name."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def import_op_tables(folder: Path, xpu: XpuSpec) -> ImportedTables:
    """Read all kernel tables of one accelerator.

    Raises :class:`CalibrationError` with file, row and reason for a file that is damaged, of
    another accelerator, of another kernel, or in another unit.
    """
    files = _newest_files(folder)
    rows: dict[Where, dict[tuple[Value, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    hashes, versions = {}, {}
    one_model = False
    for name, path in sorted(files.items()):
        read = _read(path, LAYOUTS[name])
        if name == "gemm_perf":
            one_model = all(row.get("framework") == ONE_MODEL for row in read)
        for where, place, latency_ns in _points(path, read, LAYOUTS[name], xpu):
            rows[where][place].append(latency_ns)
        hashes[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        versions[name] = path.parent.name
    nccl = rows.pop(_NCCL, None)
    if nccl is not None and not any(where.kernel == "all_reduce" for where in rows):
        rows |= {Where("all_reduce", (launch,)): nccl for launch in ("graph", "eager")}
    tables: list[KernelTable] = [
        table_from_rows(where, points) for where, points in sorted(rows.items())
    ]
    fewest = 1 if one_model else FEWEST_SHAPES
    aborted = [t for t in tables if t.kernel == "gemm" and len(t.axes[0]) < fewest]
    notes = tuple(
        f"left out gemm {table.attributes[0]}: {len(table.axes[0])} shapes only, an aborted "
        "measurement"
        for table in aborted
    )
    left_out = {table.attributes for table in aborted}
    kept = [t for t in tables if t.kernel != "gemm" or t.attributes not in left_out]
    if not kept:
        raise CalibrationError(
            f"--from-op-tables {folder} holds no kernel of a format that is understood"
            + "".join(f" ({note})" for note in notes)
        )
    return ImportedTables(KernelTables(kept), hashes, versions, notes)


def _newest_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise CalibrationError(
            f"--from-op-tables {folder} is not a folder: give the one that "
            "holds an accelerator's tables"
        )
    found: dict[str, Path] = {}
    for path in folder.rglob("*.parquet"):
        if path.stem in LEFT_OUT:
            continue
        if path.stem not in LAYOUTS:
            known = ", ".join(f"{name}.parquet" for name in LAYOUTS)
            raise CalibrationError(f"{path}: no kernel table has this name (known: {known})")
        best = found.get(path.stem)
        if best is None or _version(path) > _version(best):
            found[path.stem] = path
    if not found:
        raise CalibrationError(
            f"--from-op-tables {folder} holds no kernel tables (*.parquet): give the folder of one "
            "accelerator"
        )
    return found


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in path.parent.name.split("."))


def _points(
    path: Path, rows: Sequence[Row], layout: Layout, xpu: XpuSpec
) -> Iterator[tuple[Where, tuple[Value, ...], float]]:
    check = UnitCheck(path, xpu, "latency", "milliseconds")
    for number, row in enumerate(rows, start=1):
        latency_ns = _latency_ns(path, number, row)
        _check_labels(path, number, row, layout, xpu)
        point = layout.point(row)
        if point is None:
            continue
        if layout.products:
            check.product(number, row["latency"], latency_ns, row["m"], row["n"], row["k"])
        yield *point, latency_ns
    check.finish()


def _read(path: Path, layout: Layout) -> list[dict[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise CalibrationError(
            "reading kernel tables needs pyarrow: pip install 'llm-inference-simulator[parquet]'"
        ) from None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as cause:
        reason = str(cause).splitlines()[0]
        raise CalibrationError(f"{path} is damaged or no parquet file: {reason}") from None
    for column in (*layout.columns, "latency"):
        if column not in table.column_names:
            raise CalibrationError(f"{path}: column {column!r} is missing")
    rows: list[dict[str, Any]] = table.to_pylist()
    if not rows:
        raise CalibrationError(f"{path} has no rows")
    for column in (*layout.columns, "window_size"):
        if column in table.column_names:
            _check_column(path, column, rows)
    return rows


def _check_column(path: Path, column: str, rows: Sequence[Row]) -> None:
    """Refuse a value that is no name, or no size; ``window_size`` may be left open."""
    least = 0 if column in _MAY_BE_0 else 1
    for number, row in enumerate(rows, start=1):
        value = row[column]
        if column in _WORDS:
            if type(value) is not str:
                raise CalibrationError(f"{path}, row {number}: {column}={value!r} must be a name")
        elif not (type(value) is int and value >= least) and not (
            column == "window_size" and value is None
        ):
            raise CalibrationError(
                f"{path}, row {number}: {column}={value!r} must be a whole number, at least {least}"
            )


def _latency_ns(path: Path, number: int, row: Row) -> float:
    latency = row["latency"]
    if not isinstance(latency, int | float) or not math.isfinite(latency) or latency <= 0:
        raise CalibrationError(
            f"{path}, row {number}: latency={latency!r} must be a finite number above 0 "
            "(milliseconds)"
        )
    if latency * 1e6 > LONGEST_NS:
        raise CalibrationError(
            f"{path}, row {number}: latency={latency!r} ms is no time of one kernel: latencies "
            "must be milliseconds"
        )
    return float(latency) * 1e6


def _check_labels(path: Path, number: int, row: Row, layout: Layout, xpu: XpuSpec) -> None:
    operation, device = row.get("op_name"), row.get("device")
    if operation is not None and operation not in layout.operations:
        raise CalibrationError(
            f"{path}, row {number}: op_name={operation!r}, but this file holds "
            f"{' or '.join(layout.operations)}"
        )
    if device is not None and not is_device_of(device, xpu):
        raise CalibrationError(
            f"{path}, row {number}: device={device!r} is not {xpu.name}: give the accelerator that "
            "was measured"
        )


def is_device_of(device: str, xpu: XpuSpec) -> bool:
    """Whether a driver's name of a device is that of a catalogue entry."""
    squeezed = "".join(character for character in device.casefold() if character.isalnum())
    family = xpu.name.split("-")[0]
    return xpu.name.replace("-", "") in squeezed or (
        family in squeezed and any(character.isdigit() for character in family)
    )
