"""Measured kernel times of one accelerator: the tables, and the file that holds them.

Every table has one form: a kernel, fixed attributes, axes, and a time for each point of the grid
that the axes span. Times are nanoseconds of one launch on one accelerator.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import itertools
import json
import math
import operator
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import CalibrationError, unknown_name

SCHEMA_VERSION = 1

AXES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("shape", "tokens"),
    "prefill_attention": ("heads", "batch", "tokens", "cached"),
    "decode_attention": ("heads", "batch", "context"),
    "mla_prefill": ("heads", "batch", "tokens"),
    "mla_decode": ("heads", "batch", "context"),
    "experts": ("shape", "tokens"),
    "all_reduce": ("ranks", "bytes"),
    "all_gather": ("ranks", "bytes"),
    "all_to_all": ("ranks", "bytes"),
    "elementwise": ("tokens",),
}
"""Axes by kernel.

``gemm``: shape (n, k) of the weight, ``tokens`` rows. Attention: heads (query, key-value) of one
accelerator; ``tokens`` new ones of each of ``batch`` sequences on top of ``cached`` ones;
``context`` keys that each decoding sequence reads. ``mla_*``: whole modules of latent attention,
heads (query heads,). ``experts``: shape (hidden, intermediate of the model, top_k, experts, tensor
parallel, expert parallel). ``all_reduce``: payload; ``all_gather``: what one accelerator receives;
``all_to_all``: what it sends.
"""

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("format",),
    "prefill_attention": ("kv_dtype", "head_dim", "window"),
    "decode_attention": ("kv_dtype", "head_dim", "window"),
    "mla_prefill": ("format", "kv_dtype"),
    "mla_decode": ("format", "kv_dtype"),
    "experts": ("format", "distribution"),
    "all_reduce": ("launch",),
    "all_gather": (),
    "all_to_all": (),
    "elementwise": ("name", "width"),
}
"""What distinguishes tables of one kernel, beside the axes.

``window``: keys that a token sees, 0 for all. ``launch``: ``graph`` or ``eager``. ``distribution``:
how tokens spread over experts. ``width``: numbers a token that the kernel reads or writes.
"""

Value = int | tuple[int, ...]

_PARTS: Mapping[str, int] = {
    "gemm": 2,
    "prefill_attention": 2,
    "decode_attention": 2,
    "mla_prefill": 1,
    "mla_decode": 1,
    "experts": 6,
}
"""Numbers that make up a value of the first axis; kernels that are not here have plain ones."""


class Where(NamedTuple):
    """Which table: a kernel and its attributes."""

    kernel: str
    attributes: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class KernelTable:
    """Times over a grid; NaN where a point was not measured."""

    kernel: str
    attributes: tuple[str | int, ...]
    axes: tuple[tuple[Value, ...], ...]
    """Rising values of each axis of :data:`AXES`."""
    latency_ns: NDArray[np.float64]
    """One number for each combination, in the axes' order."""

    @property
    def points(self) -> int:
        """How many points were measured."""
        return int(np.count_nonzero(~np.isnan(self.latency_ns)))


LONGEST_NS = 2**32 - 1
"""Of one launch: what the file can hold."""


def table_from_rows(where: Where, rows: Mapping[tuple[Value, ...], Sequence[float]]) -> KernelTable:
    """Lay measured rows out on a grid; the median of repeated ones counts."""
    names = AXES[where.kernel]
    axes = tuple(tuple(sorted({row[axis] for row in rows})) for axis in range(len(names)))
    index = [{value: place for place, value in enumerate(axis)} for axis in axes]
    latency = np.full([len(axis) for axis in axes], np.nan)
    for row, values in rows.items():
        place = tuple(index[axis][value] for axis, value in enumerate(row))
        latency[place] = values[0] if len(values) == 1 else float(np.median(values))
    return KernelTable(where.kernel, where.attributes, axes, latency)


class KernelTables:
    """All tables of one accelerator."""

    def __init__(self, tables: Sequence[KernelTable]) -> None:
        self._tables = {(table.kernel, table.attributes): table for table in tables}

    def get(self, kernel: str, *attributes: str | int) -> KernelTable | None:
        """Return the table of a kernel with these attributes, if there is one."""
        return self._tables.get((kernel, attributes))

    def of(self, kernel: str) -> list[KernelTable]:
        """Return all tables of a kernel."""
        return [table for table in self._tables.values() if table.kernel == kernel]

    def __iter__(self) -> Iterator[KernelTable]:
        return iter(self._tables.values())

    def __len__(self) -> int:
        return len(self._tables)

    @property
    def points(self) -> int:
        """How many points were measured."""
        return sum(table.points for table in self._tables.values())

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data; whole nanoseconds, 0 for points that were not measured.

        Times are written as base64 of little-endian unsigned 32-bit numbers: read in a fraction of
        the time that decimal text takes.
        """
        return [
            {
                "kernel": table.kernel,
                **dict(zip(ATTRIBUTES[table.kernel], table.attributes, strict=True)),
                "axes": dict(zip(AXES[table.kernel], table.axes, strict=True)),
                "latency_ns": _encode(table.latency_ns),
            }
            for table in self._tables.values()
        ]

    @classmethod
    def from_json(cls, data: Any, source: str) -> KernelTables:
        """Read plain data; raises :class:`CalibrationError` naming the table and the fault."""
        if not isinstance(data, list) or not data:
            raise CalibrationError(f"{source}: tables must be a list of kernel tables")
        tables = [_table(item, f"{source}: tables[{index}]") for index, item in enumerate(data)]
        keys = [(table.kernel, table.attributes) for table in tables]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise CalibrationError(
                    f"{source}: tables[{index}] repeats kernel={key[0]} {key[1]}: remove one"
                )
        return cls(tables)


def _table(item: Any, source: str) -> KernelTable:
    if not isinstance(item, dict):
        raise CalibrationError(f"{source} must be a mapping, not {type(item).__name__}")
    kernel = item.get("kernel")
    if not isinstance(kernel, str) or kernel not in AXES:
        raise CalibrationError(f"{source}: {unknown_name('kernel', str(kernel), AXES)}")
    expected = {"kernel", "axes", "latency_ns", *ATTRIBUTES[kernel]}
    for key in item.keys() - expected:
        raise CalibrationError(f"{source}: {unknown_name('key', key, expected)}")
    for key in expected - item.keys():
        raise CalibrationError(f"{source}: {key} is missing")
    attributes = tuple(item[name] for name in ATTRIBUTES[kernel])
    for name, value in zip(ATTRIBUTES[kernel], attributes, strict=True):
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise CalibrationError(f"{source}: {name}={value!r} must be a word or a whole number")
    axes = _axes(item["axes"], kernel, f"{source}: axes")
    latency = _latency(item["latency_ns"], axes, source)
    return KernelTable(kernel, attributes, axes, latency)


def _axes(data: Any, kernel: str, source: str) -> tuple[tuple[Value, ...], ...]:
    names = AXES[kernel]
    if not isinstance(data, dict):
        raise CalibrationError(f"{source} must be a mapping of {', '.join(names)}")
    for name in data.keys() - set(names):
        raise CalibrationError(f"{source}: {unknown_name('key', name, names)}")
    parts = [_PARTS.get(kernel), *[None] * (len(names) - 1)]
    return tuple(_axis(data, *each, source) for each in zip(names, parts, strict=True))


def _axis(axes: Mapping[str, Any], name: str, parts: int | None, source: str) -> tuple[Value, ...]:
    """Read the values of an axis: numbers, or lists of ``parts`` numbers."""
    values = axes.get(name)
    if not isinstance(values, list) or not values:
        raise CalibrationError(f"{source}.{name} must be a list of whole numbers")
    least = 0 if name == "cached" else 1
    if not _are_whole(values, parts, least):
        wrong = next(value for value in values if not _are_whole([value], parts, least))
        form = "one whole number" if parts is None else f"a list of {parts} whole numbers"
        raise CalibrationError(f"{source}.{name}: {wrong!r} must be {form}, at least {least}")
    read: tuple[Value, ...] = tuple(values) if parts is None else tuple(map(tuple, values))
    if not all(map(operator.lt, read, read[1:])):
        raise CalibrationError(f"{source}.{name} must rise, without repeats")
    return read


def _are_whole(values: list[Any], parts: int | None, least: int) -> bool:
    """Tell whether all values are numbers of at least ``least``, or lists of ``parts`` such.

    Tens of thousands are read at the start of a run, so none is looked at by itself.
    """
    numbers = values
    if parts is not None:
        if {*map(type, values)} != {list} or {*map(len, values)} != {parts}:
            return False
        numbers = [*itertools.chain.from_iterable(values)]
    return {*map(type, numbers)} == {int} and min(numbers) >= least


def _encode(latency_ns: NDArray[np.float64]) -> str:
    whole = np.nan_to_num(np.rint(latency_ns)).astype("<u4")
    return base64.b64encode(whole.tobytes()).decode("ascii")


def _latency(data: Any, axes: tuple[tuple[Value, ...], ...], source: str) -> NDArray[np.float64]:
    size = math.prod(len(axis) for axis in axes)
    try:
        if isinstance(data, str):
            raw = binascii.a2b_base64(data, strict_mode=True)
            latency = np.frombuffer(raw, dtype="<u4").astype(np.float64)
        else:
            latency = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError):
        raise CalibrationError(
            f"{source}: latency_ns must be a list of numbers, or base64 of 32-bit ones"
        ) from None
    if latency.shape != (size,):
        raise CalibrationError(
            f"{source}: latency_ns has {latency.size} numbers, its axes span {size}: the file is "
            "damaged or was cut"
        )
    if not (latency.min() >= 0 and latency.max() <= LONGEST_NS):  # NaN is neither
        wrong = int(np.argmin((latency >= 0) & (latency <= LONGEST_NS)))
        raise CalibrationError(
            f"{source}: latency_ns[{wrong}]={latency[wrong]} must be a number from 0 to "
            f"{LONGEST_NS}"
        )
    if not latency.any():
        raise CalibrationError(f"{source}: latency_ns has no measured point: remove the table")
    latency[latency == 0] = np.nan
    return latency.reshape([len(axis) for axis in axes])


def read_document(path: Path) -> tuple[dict[str, Any], str]:
    """Read a JSON file, compressed or not, and the SHA-256 of its bytes."""
    try:
        raw = path.read_bytes()
        text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        data = json.loads(text)
    except FileNotFoundError:
        raise CalibrationError(f"calibration file {path} does not exist: check the path") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as cause:
        raise CalibrationError(f"calibration file {path} is damaged or was cut: {cause}") from None
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise CalibrationError(f"calibration file {path} cannot be read: {reason}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as cause:
        raise CalibrationError(f"calibration file {path} is not valid JSON: {cause}") from None
    if not isinstance(data, dict):
        raise CalibrationError(f"calibration file {path} must hold one mapping of keys to values")
    return data, hashlib.sha256(raw).hexdigest()
