"""From a file of measurements to :class:`MeasuredRun`: which format it is, and its reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import read_text
from llm_inference_simulator.validation import bench_serve, run_records
from llm_inference_simulator.validation.measured import MeasuredRun

Settings = Mapping[str, Any]
"""Parts of a configuration as plain data (``{"engine": {"max_num_seqs": 64}}``): what a file
doesn't hold, or what shall replace it."""


def read_runs(
    path: str | Path,
    settings: Settings | None = None,
    *,
    calibration: CalibrationFile | None = None,
) -> list[MeasuredRun]:
    """Read every run of a file: a list of run records, or detailed ``vllm bench serve`` results.

    ``settings`` give what a bench result doesn't hold (its server), and replace what a run record
    says; they have the keys of :class:`SimulatorConfig`. The engine that ``calibration`` was
    measured on is a bench result's where ``settings`` say nothing else. Raises
    :class:`ConfigError` naming file, run and field.
    """
    path, settings = Path(path), settings or {}
    values = _parse(path)
    if all(map(run_records.recognises, values)):
        return run_records.read(values, path, settings)
    if all(map(bench_serve.recognises, values)):
        return bench_serve.read(values, path, settings, calibration)
    raise ConfigError(
        f"measurements {path}: unknown shape: give a list of runs, each with 'stages' and "
        "'measured_ms', or the result of vllm bench serve --save-result --save-detailed"
    )


def _parse(path: Path) -> list[Any]:
    """Objects of a JSON file: of its list, of its lines (--append-result), or its only one."""
    text = read_text(path, "measurements")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise ConfigError(
                f"measurements {path} is not valid JSON: {error.msg} (line {error.lineno}, column "
                f"{error.colno})"
            ) from None
        data = [_line(path, row, line) for row, line in enumerate(lines, start=1)]
    values = data if isinstance(data, list) else [data]
    if not values:
        raise ConfigError(f"measurements {path} holds no run: its list is empty")
    return values


def _line(path: Path, row: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"measurements {path}, line {row}: not valid JSON: {error.msg} (column {error.colno})"
        ) from None
