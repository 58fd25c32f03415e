"""Run a sweep into its folder: journal, table of results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.sweep.executors import Executor, local_executor
from llm_inference_simulator.sweep.journal import open_journal
from llm_inference_simulator.sweep.rows import Row
from llm_inference_simulator.sweep.spec import SweepSpec
from llm_inference_simulator.tables import is_installed, write_table

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class SweepResult:
    """All rows of a finished sweep, in the order of its points."""

    spec: SweepSpec
    rows: tuple[Row, ...]

    def columns(self) -> dict[str, list[Any]]:
        """One entry a configuration: its number, status, reason, parameters and every metric."""
        columns: dict[str, list[Any]] = {
            "configuration": [row.index for row in self.rows],
            "status": [row.status for row in self.rows],
            "reason": [row.reason for row in self.rows],
        }
        for name in self.spec.parameters:
            columns[name] = _one_kind([point.get(name) for point in self.spec.points])
        for name in dict.fromkeys(name for row in self.rows for name in row.metrics):
            columns.setdefault(name, [row.metrics.get(name) for row in self.rows])
        return columns

    def write(self, folder: Path) -> Path:
        """Write ``results.parquet``, or ``results.csv`` where pyarrow is missing."""
        path = folder / ("results.parquet" if is_installed("pyarrow") else "results.csv")
        columns = {name: _array(values) for name, values in self.columns().items()}
        write_table(columns, path, "--output")
        return path


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C in :func:`run_sweep`; the folder holds what had finished."""


def run_sweep(
    spec: SweepSpec,
    folder: str | Path,
    *,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> tuple[SweepResult, Path]:
    """Run what ``folder`` does not hold yet and write the table of results into it.

    ``executor`` runs the configurations (None: all cores of this machine); ``progress`` gets
    (finished, all). Returns the rows and the file of the table. Raises :class:`ConfigError` for a
    folder that cannot be used and :class:`SweepInterrupted` on Ctrl-C; a configuration that goes
    wrong is a row.
    """
    folder = Path(folder)
    prepare_folder(folder)
    with open_journal(folder, spec.fingerprint()) as journal:

        def finish(row: Row) -> None:
            journal.append(row)
            if progress is not None:
                progress(len(journal.rows), len(spec))

        left = [index for index in range(len(spec)) if index not in journal.rows]
        try:
            (executor or local_executor())(spec, left, finish)
        except KeyboardInterrupt:
            done = f"{len(journal.rows):,} of {len(spec):,} configurations"
            raise SweepInterrupted(f"interrupted after {done}") from None
        result = SweepResult(spec, tuple(journal.rows[index] for index in range(len(spec))))
        return result, result.write(folder)


def prepare_folder(folder: Path) -> None:
    """Make the folder if it is missing; what it lies in must exist."""
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"--output {folder} is a file: give a folder") from None
    except FileNotFoundError:
        raise ConfigError(
            f"--output {folder}: folder {folder.parent} does not exist: create it first"
        ) from None
    except OSError as error:
        raise ConfigError(f"--output {folder} cannot be made: {error.strerror}") from None


def _one_kind(values: Sequence[Any]) -> list[Any]:
    """Values of one column: numbers, truths or texts; what is mixed becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return list(values)
    return [None if value is None else _text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, Mapping | list):
        import json

        return json.dumps(value)
    return str(value)


def _array(values: Sequence[Any]) -> NDArray[Any]:
    """A column that keeps its missing values."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
