"""The ``validate`` command: measured runs, their predictions and the table of errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.calibration.shipped import open_calibration
from llm_inference_simulator.cli.catalog import print_table
from llm_inference_simulator.cli.run_config import name_flags, put_flags
from llm_inference_simulator.config import FrontEndConfig, PerformanceModelConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import check_writable, is_stream, real_path
from llm_inference_simulator.progress_bar import task_bar
from llm_inference_simulator.sections import Section
from llm_inference_simulator.validation import (
    METRICS,
    STATISTICS,
    MeasuredRun,
    MetricError,
    RunErrors,
    Validation,
    leave_one_out,
    read_runs,
    summarise,
    validate,
)

EXIT_BAD_INPUT = 2

_HEADINGS = tuple(metric.replace("_", "\n") for metric in METRICS)
_RIGHT = range(1, 1 + len(METRICS))


class _PricedBy(Section):
    """What all runs are predicted with."""

    performance: PerformanceModelConfig = PerformanceModelConfig()
    front_end: FrontEndConfig = FrontEndConfig()


def run_validate(flags: Mapping[str, Any]) -> int:
    """Validate what ``flags`` name and return the exit code: 2 where a run could not be predicted.

    The others are printed and written all the same.
    """
    files = [Path(name) for name in flags["command.files"]]
    if not files:
        raise ConfigError(
            "validate needs a file of measured runs: a list of run records, or the result of "
            "vllm bench serve --save-result --save-detailed"
        )
    output = flags.get("command.output")
    if output is not None:
        _check_output(Path(output), files)
    try:
        validation = _validated(files, flags)
    except ConfigError as error:
        raise ConfigError(name_flags(str(error), flags, None)) from None
    if output is not None:
        try:
            validation.write_json(output)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"--output {output} cannot be written: {reason}") from None
    if output is None or not is_stream(Path(output)):
        print_validation(validation)
    for name, reason in validation.failed.items():
        print(f"error: run {name} cannot be predicted: {reason}", file=sys.stderr)
    return EXIT_BAD_INPUT if validation.failed else 0


def _check_output(output: Path, files: Sequence[Path]) -> None:
    for file in files:
        if not is_stream(output) and real_path(output) == real_path(file):
            raise ConfigError(f"--output {output} would overwrite the measurements: give a name")
    check_writable(output, "--output")


def _validated(files: Sequence[Path], flags: Mapping[str, Any]) -> Validation:
    settings: dict[str, Any] = {}
    put_flags(settings, flags)
    priced_by: dict[str, Any] = {
        name: settings.pop(name) for name in _PricedBy.model_fields if name in settings
    }
    given = _PricedBy.parse(priced_by, source="")
    performance, front_end = given.performance, given.front_end
    calibration = _measured(performance)
    runs = [run for file in files for run in read_runs(file, settings, calibration=calibration)]
    _require_distinct(runs)
    if flags.get("command.leave_one_out"):
        if front_end != FrontEndConfig():
            raise ConfigError(
                "--leave-one-out fits the front end's latencies itself: leave out "
                "--request-latency-ms and --response-latency-ms"
            )
        return leave_one_out(runs, performance, report=_stage(flags))
    if flags.get("command.no_progress"):
        return validate(runs, performance, front_end)
    with task_bar(len(runs), "predicting") as move:
        if move is None:
            return validate(runs, performance, front_end)
        begun = 0

        def report(run: MeasuredRun) -> None:
            nonlocal begun
            move(begun, run.id)
            begun += 1

        return validate(runs, performance, front_end, report=report)


def _measured(performance: PerformanceModelConfig) -> CalibrationFile | None:
    """The calibration that tells which engine was measured; kernel tables know no engine."""
    if performance.calibration_data is None:
        return None
    calibration = open_calibration(performance.calibration_data)
    return calibration if isinstance(calibration, CalibrationFile) else None


def _stage(flags: Mapping[str, Any]) -> Callable[[str], None]:
    """Name the stages on a terminal; a pipe gets the table only."""
    if flags.get("command.no_progress") or not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(text, file=sys.stderr)


def _require_distinct(runs: Sequence[MeasuredRun]) -> None:
    """Refuse a run that would count twice, or hide another."""
    sources: dict[str, str] = {}
    for run in runs:
        if run.id in sources:
            raise ConfigError(
                f"run {run.id} stands in {sources[run.id]} and in {run.source}: name each file "
                "once, and give bench results different file names"
            )
        sources[run.id] = run.source


def print_validation(validation: Validation) -> None:
    """Print every run, then the summaries; errors are signed, positive where predicted too long."""
    for each in validation.runs:
        _print_run(each)
    _print_summary(_held_out_title(validation), validation.held_out)
    if validation.fitted:
        _print_summary("used for fitting: no measure of accuracy", validation.fitted)
    models = sorted(
        {
            f"{each.prediction.performance_model} ({each.prediction.performance_description})"
            for each in validation.runs
        }
    )
    if models:
        print(f"\npriced by {', '.join(models)}")


def _held_out_title(validation: Validation) -> str:
    if validation.left_out:
        return "held out: each run predicted with overheads fitted to all others"
    if validation.fitted:
        return "held out: not among the calibration's fitted_runs"
    return "nothing was fitted to these runs"


def _print_run(errors: RunErrors) -> None:
    run = errors.run
    mark = ", used for fitting" if errors.used_for_fitting else ""
    print(
        f"{run.id}: {run.config.model} on {run.config.cluster.tensor_parallel_size} x "
        f"{run.config.xpu}, {run.workload_name}{mark}"
    )
    rows = _part_rows("", errors.whole)
    if len(run.stages) > 1:
        for stage, found in zip(run.stages, errors.stages, strict=True):
            if found:
                rows += _part_rows(f"{stage.request_rate:g}/s ", found)
    print_table(("ms", *_HEADINGS), rows, right=_RIGHT)
    for note in (*run.notes, *errors.prediction.warnings):
        print(f"note: {note}")
    print()


def _part_rows(part: str, errors: Sequence[MetricError]) -> list[list[str]]:
    by_metric = {error.metric: error for error in errors}

    def row(name: str, text: Any) -> list[str]:
        cells = (by_metric.get(metric) for metric in METRICS)
        return [part + name, *("-" if error is None else text(error) for error in cells)]

    return [
        row("measured", lambda error: _milliseconds(error.measured_ms)),
        row("predicted", lambda error: _milliseconds(error.predicted_ms)),
        row("error %", lambda error: f"{error.error_percent:+.1f}"),
    ]


def _milliseconds(value: float) -> str:
    return f"{value:,.1f}" if value < 10_000 else f"{value:,.0f}"


def _print_summary(title: str, runs: Sequence[RunErrors]) -> None:
    summary = summarise(runs)
    if summary is None:
        return
    print(f"{title} ({len(runs)} runs)")
    rows = _statistic_rows("", summary["overall"])
    if summary["stages"]:
        rows += _statistic_rows("stages: ", summary["stages"])
    print_table(("|error| %", *_HEADINGS), rows, right=_RIGHT)
    for key, heading in (
        ("by_model", "model"),
        ("by_xpu", "accelerator"),
        ("by_workload", "workload"),
    ):
        print()
        rows = []
        for name, statistics in summary[key].items():
            count = max((int(each["count"]) for each in statistics.values()), default=0)
            rows += [[f"{name} ({count})", *[""] * len(METRICS)]]
            rows += _statistic_rows("  ", statistics)
        print_table((f"{heading}, |error| %", *_HEADINGS), rows, right=_RIGHT)
    print()


def _statistic_rows(part: str, statistics: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    rows = []
    for statistic in STATISTICS:
        sign = "+" if statistic == "bias" else ""
        cells = (
            f"{statistics[metric][statistic]:{sign}.1f}" if metric in statistics else "-"
            for metric in METRICS
        )
        rows.append([part + statistic, *cells])
    return rows
