"""Columns as parquet or csv files, and as the tables of other libraries."""

from __future__ import annotations

import csv
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_path

CSV_ROWS_AT_ONCE = 65_536


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
    extras = {"pyarrow": "'llm-inference-simulator[parquet]'"}
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


def _write_parquet(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    # An open file and not its name: pyarrow removes a named file, were it a FIFO, when it fails.
    with path.open("wb") as file:
        importlib.import_module("pyarrow.parquet").write_table(to_arrow(columns), file)


def _write_csv(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    rows = max((len(column) for column in columns.values()), default=0)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for start in range(0, rows, CSV_ROWS_AT_ONCE):
            part = [
                column[start : start + CSV_ROWS_AT_ONCE].tolist() for column in columns.values()
            ]
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
