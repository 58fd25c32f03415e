"""Columns as parquet or csv files, and as the tables of other libraries."""

from __future__ import annotations

import contextlib
import csv
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_path

CSV_ROWS_AT_ONCE = 65_536
PARQUET: dict[str, Any] = {"use_dictionary": False}
"""Most columns are times that hardly ever repeat: a dictionary of them only costs time."""


def check_table_path(path: Path, flag: str) -> None:
    """Refuse a suffix that has no format, or parquet without its library, before the run."""
    suffix = path.suffix.casefold()
    if suffix not in (".parquet", ".csv"):
        raise ConfigError(
            f"{flag} {path}: {path.suffix or 'no suffix'!r} is not a table format; end the name in "
            ".parquet or .csv"
        )
    if suffix == ".parquet":
        require("pyarrow", "parquet files")


def is_installed(library: str) -> bool:
    """Whether an optional library can be imported."""
    return importlib.util.find_spec(library) is not None


def require(library: str, purpose: str) -> Any:
    """Import an optional library or say how to get it."""
    extras = {
        "pyarrow": "'llm-inference-simulator[parquet]'",
        "ray": "'llm-inference-simulator[ray]'",
        "optuna": "'llm-inference-simulator[optuna]'",
    }
    try:
        return importlib.import_module(library)
    except ImportError:
        raise ConfigError(
            f"{purpose} need {library}, which is not installed: pip install "
            f"{extras.get(library, library)}"
        ) from None


def write_table(columns: Mapping[str, NDArray[Any]], path: Path, flag: str) -> None:
    """Write one row per entry, atomically, in the format that the suffix names."""
    check_table_path(path, flag)
    with atomic_path(path) as temporary:
        if path.suffix.casefold() == ".parquet":
            _write_parquet(columns, temporary)
        else:
            _write_csv(columns, temporary)


BlockWriter = Callable[[Mapping[str, NDArray[Any]]], None]
"""Writes the next rows of a table."""


@contextlib.contextmanager
def block_writer(path: Path, flag: str) -> Iterator[BlockWriter]:
    """Yield what writes the next rows of a table: a row group of parquet, or lines of csv.

    The file appears under its name, whole, when the block ends well.
    """
    check_table_path(path, flag)
    blocks = _parquet_blocks if path.suffix.casefold() == ".parquet" else _csv_blocks
    with atomic_path(path) as temporary, blocks(temporary) as write:
        yield write


@contextlib.contextmanager
def _parquet_blocks(path: Path) -> Iterator[BlockWriter]:
    parquet = importlib.import_module("pyarrow.parquet")
    with path.open("wb") as file, contextlib.ExitStack() as stack:
        writer: Any = None

        def write(columns: Mapping[str, NDArray[Any]]) -> None:
            nonlocal writer
            table = to_arrow(columns)
            if writer is None:
                writer = stack.enter_context(parquet.ParquetWriter(file, table.schema, **PARQUET))
            writer.write_table(table)

        yield write


@contextlib.contextmanager
def _csv_blocks(path: Path) -> Iterator[BlockWriter]:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        has_header = False

        def write(columns: Mapping[str, NDArray[Any]]) -> None:
            nonlocal has_header
            if not has_header:
                lines.writerow(columns)
                has_header = True
            _write_lines(lines, columns)

        yield write


def _write_parquet(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    # An open file and not its name: pyarrow removes a named file, were it a FIFO, when it fails.
    with path.open("wb") as file:
        importlib.import_module("pyarrow.parquet").write_table(to_arrow(columns), file, **PARQUET)


def _write_csv(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        _write_lines(writer, columns)


def _write_lines(writer: Any, columns: Mapping[str, NDArray[Any]]) -> None:
    rows = max((len(column) for column in columns.values()), default=0)
    for start in range(0, rows, CSV_ROWS_AT_ONCE):
        part = [column[start : start + CSV_ROWS_AT_ONCE].tolist() for column in columns.values()]
        writer.writerows(zip(*part, strict=True))


def to_arrow(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Return a ``pyarrow.Table``."""
    pyarrow = require("pyarrow", "Arrow tables")
    return pyarrow.table({name: np.ascontiguousarray(column) for name, column in columns.items()})


def to_pandas(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Return a ``pandas.DataFrame``."""
    return require("pandas", "pandas tables").DataFrame(dict(columns))


def to_polars(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Return a ``polars.DataFrame``."""
    return require("polars", "polars tables").DataFrame(dict(columns))
