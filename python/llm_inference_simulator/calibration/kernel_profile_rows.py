"""Reads layer profiles in the layout of LLMServingSim's profiler: CSV files by model and group.

``OWNER/MODEL/DTYPE/tpN/`` holds ``dense.csv`` (layer, tokens, time_us), ``attention.csv``
(prefill_chunk, kv_prefill, n_decode, kv_decode, time_us), ``per_sequence.csv`` (layer, sequences,
time_us) and ``meta.yaml`` a folder up. Times are microseconds of one layer, launched eagerly. What
a layer's matrix is follows from the profiled model's own sizes, so the times become those of plain
kernels, of use to any model.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration.kernel_tables import (
    KernelTables,
    Value,
    Where,
    table_from_rows,
)
from llm_inference_simulator.calibration.op_table_rows import ImportedTables, is_device_of
from llm_inference_simulator.calibration.unit_check import UnitCheck
from llm_inference_simulator.catalog import ModelSpec, XpuSpec, load_model
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.files import read_mapping

SLOWEST_US = 1e7
"""A layer of ten seconds has another unit."""

_COLUMNS = {
    "dense.csv": ("layer", "tokens", "time_us"),
    "attention.csv": ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode", "time_us"),
    "per_sequence.csv": ("layer", "sequences", "time_us"),
}
_DTYPES = {"bf16": "bfloat16", "fp16": "bfloat16"}
"""Folder of a 16-bit type; both run at one speed."""

Rows = dict[Where, dict[tuple[Value, ...], list[float]]]


def import_kernel_profiles(folder: Path, xpu: XpuSpec) -> ImportedTables:
    """Read all profiles of one accelerator; expert layers are left out (no shape is recorded).

    Raises :class:`CalibrationError` with file, row and reason.
    """
    if not folder.is_dir():
        raise CalibrationError(
            f"--from-kernel-profiles {folder} is not a folder: give the one that holds an "
            "accelerator's profiles"
        )
    metas = sorted(folder.rglob("meta.yaml"))
    if not metas:
        raise CalibrationError(
            f"--from-kernel-profiles {folder} holds no profiles (meta.yaml): give the folder of "
            "one accelerator"
        )
    rows: Rows = defaultdict(lambda: defaultdict(list))
    hashes: dict[str, str] = {}
    versions: dict[str, str] = {}
    for meta_file in metas:
        meta = read_mapping(meta_file, "profile description", CalibrationError)
        model = _profiled_model(meta_file, meta, xpu)
        versions[meta_file.parent.relative_to(folder).as_posix()] = str(meta.get("vllm_version"))
        for path in sorted(meta_file.parent.rglob("*.csv")):
            if path.name not in _COLUMNS:
                continue
            size = _group_size(path, model)
            for where, place, latency_ns in _points(path, model, size, xpu):
                rows[where][place].append(latency_ns)
            name = path.relative_to(folder).as_posix()
            hashes[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if not rows:
        raise CalibrationError(
            f"--from-kernel-profiles {folder} holds no times ({', '.join(_COLUMNS)} in tpN folders "
            "beside meta.yaml)"
        )
    tables = [table_from_rows(where, points) for where, points in sorted(rows.items())]
    return ImportedTables(KernelTables(tables), hashes, versions)


def _profiled_model(meta_file: Path, meta: Mapping[str, Any], xpu: XpuSpec) -> ModelSpec:
    device = str(meta.get("gpu"))
    if not is_device_of(device, xpu):
        raise CalibrationError(
            f"{meta_file}: gpu={device!r} is not {xpu.name}: give the accelerator that was measured"
        )
    if meta_file.parent.name not in _DTYPES:
        raise CalibrationError(
            f"{meta_file.parent}: {meta_file.parent.name!r} is no format that is understood "
            f"({', '.join(_DTYPES)})"
        )
    name = str(meta.get("model"))
    for candidate in (name, name.removesuffix("-Instruct-2507")):
        try:
            return load_model(candidate)
        except ConfigError:
            continue
    raise CalibrationError(
        f"{meta_file}: model={name!r} is not in the catalogue, so its matrices' sizes are unknown"
    )


def _group_size(path: Path, model: ModelSpec) -> int:
    name = path.parent.name
    if not name.startswith("tp") or not name[2:].isdigit() or int(name[2:]) < 1:
        raise CalibrationError(f"{path}: its folder must be tpN, N the size of the group")
    size = int(name[2:])
    if model.num_attention_heads % size:
        raise CalibrationError(
            f"{path}: a group of {size} does not divide the {model.num_attention_heads} heads of "
            f"{model.name}"
        )
    return size


def _points(
    path: Path, model: ModelSpec, size: int, xpu: XpuSpec
) -> Iterator[tuple[Where, tuple[Value, ...], float]]:
    reader = {
        "dense.csv": _dense,
        "attention.csv": _attention,
        "per_sequence.csv": _per_sequence,
    }[path.name]
    check = UnitCheck(path, xpu, "time_us", "microseconds")
    for number, row in enumerate(_read(path), start=1):
        latency_ns = _number(path, number, row, "time_us", SLOWEST_US) * 1e3
        if latency_ns <= 0:
            raise CalibrationError(f"{path}, row {number}: time_us={row['time_us']} must exceed 0")
        point = reader(path, number, row, model, size)
        if point is None:
            continue
        where, place = point
        if where.kernel == "gemm" and isinstance(place[0], tuple) and isinstance(place[1], int):
            check.product(number, row["time_us"], latency_ns, place[1], *place[0])
        yield where, place, latency_ns
    check.finish()


def _read(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for column in _COLUMNS[path.name]:
                if column not in (reader.fieldnames or ()):
                    raise CalibrationError(f"{path}: column {column!r} is missing")
            number = 0
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise CalibrationError(
                        f"{path}, row {number}: it has not the header's columns: the file is "
                        "damaged or was cut"
                    )
                yield row
            if number == 0:
                raise CalibrationError(f"{path} has no rows")
    except (OSError, UnicodeDecodeError, csv.Error) as cause:
        raise CalibrationError(f"{path} cannot be read: {cause}") from None


def _number(path: Path, number: int, row: Mapping[str, str], column: str, most: float) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise CalibrationError(
            f"{path}, row {number}: {column}={row[column]!r} must be a number from 0 to {most:g}"
        )
    return value


def _whole(path: Path, number: int, row: Mapping[str, str], column: str, least: int = 0) -> int:
    value = _number(path, number, row, column, 1e9)
    if value < least:
        raise CalibrationError(f"{path}, row {number}: {column}={row[column]} must exceed 0")
    if value != int(value):
        raise CalibrationError(f"{path}, row {number}: {column}={row[column]} must be whole")
    return int(value)


def _dense(
    path: Path, number: int, row: Mapping[str, str], model: ModelSpec, size: int
) -> tuple[Where, tuple[Value, ...]] | None:
    tokens, hidden = _whole(path, number, row, "tokens", 1), model.hidden_size
    query = model.num_attention_heads * model.head_dim // size
    key = max(1, model.num_key_value_heads // size) * model.head_dim
    width = model.intermediate_size // size
    matrices = {
        "qkv_proj": (query + 2 * key, hidden),
        "o_proj": (hidden, query),
        "gate_up_proj": (2 * width, hidden),
        "down_proj": (hidden, width),
    }
    elements = {
        "act_fn": 3 * width,
        "layernorm": 4 * hidden,
        "rotary_emb": 2 * (query + key),
        "qk_norm": 2 * (query + key),
    }
    layer = row["layer"]
    if layer in matrices:
        return Where("gemm", ("bfloat16",)), (matrices[layer], tokens)
    if layer in elements:
        return Where("elementwise", (layer, elements[layer])), (tokens,)
    if layer in ("embedding", "final_layernorm"):
        return None  # once a step, and like the others
    raise CalibrationError(f"{path}, row {number}: layer={layer!r} is not understood")


def _attention(
    path: Path, number: int, row: Mapping[str, str], model: ModelSpec, size: int
) -> tuple[Where, tuple[Value, ...]] | None:
    chunk, cached, seqs, context = (
        _whole(path, number, row, column) for column in _COLUMNS["attention.csv"][:4]
    )
    heads = (model.num_attention_heads // size, max(1, model.num_key_value_heads // size))
    attributes = ("bfloat16", model.head_dim, 0)
    if chunk and not seqs:
        return Where("prefill_attention", attributes), (heads, 1, chunk, cached)
    if seqs and not chunk and context:
        return Where("decode_attention", attributes), (heads, seqs, context)
    return None  # mixed steps are priced as the sum of both


def _per_sequence(
    path: Path, number: int, row: Mapping[str, str], model: ModelSpec, size: int
) -> tuple[Where, tuple[Value, ...]] | None:
    seqs = _whole(path, number, row, "sequences", 1)
    if row["layer"] == "lm_head":
        return Where("gemm", ("bfloat16",)), ((model.vocab_size // size, model.hidden_size), seqs)
    if row["layer"] == "sampler":
        return None  # its time is part of the fitted overheads
    raise CalibrationError(f"{path}, row {number}: layer={row['layer']!r} is not understood")
