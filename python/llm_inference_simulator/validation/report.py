"""A whole validation: every run predicted, compared and summarised."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.config import FrontEndConfig, PerformanceModelConfig
from llm_inference_simulator.errors import CalibrationError, SimulatorError
from llm_inference_simulator.files import atomic_text
from llm_inference_simulator.performance_models.factory import find_calibration_of
from llm_inference_simulator.validation.error_table import (
    MetricError,
    RunErrors,
    compare,
    summarise,
)
from llm_inference_simulator.validation.measured import METRICS, MeasuredRun
from llm_inference_simulator.validation.prediction import simulate_run

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Runs against predictions that one performance model and one front end made."""

    performance: PerformanceModelConfig
    front_end: FrontEndConfig
    runs: tuple[RunErrors, ...]
    left_out: bool = False
    """Whether each run was predicted with overheads fitted to the others."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a run could not be predicted, by its id."""

    @property
    def held_out(self) -> list[RunErrors]:
        """Runs that no parameter was fitted to, as far as the calibration says."""
        return [each for each in self.runs if not each.used_for_fitting]

    @property
    def fitted(self) -> list[RunErrors]:
        """Runs that the calibration says its parameters were fitted to."""
        return [each for each in self.runs if each.used_for_fitting]

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; errors in percent, latencies in milliseconds."""
        from llm_inference_simulator._core import __version__

        return {
            "schema_version": SCHEMA_VERSION,
            "version": __version__,
            "metrics": list(METRICS),
            "performance": self.performance.model_dump(mode="json"),
            "front_end": self.front_end.model_dump(mode="json"),
            "left_out": self.left_out,
            "runs": [_run(each) for each in self.runs],
            "failed": dict(self.failed),
            "summary": {
                "held_out": summarise(self.held_out),
                "used_for_fitting": summarise(self.fitted),
            },
        }

    def write_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict`, whole or not at all."""
        with atomic_text(Path(path)) as file:
            json.dump(self.to_dict(), file, indent=2, allow_nan=False)
            file.write("\n")


def validate(
    runs: Sequence[MeasuredRun],
    performance: PerformanceModelConfig | None = None,
    front_end: FrontEndConfig | None = None,
    *,
    report: Callable[[MeasuredRun], None] | None = None,
) -> Validation:
    """Predict every run; one that the simulator refuses goes to ``failed`` with the reason.

    ``report`` is called before each run. Raises :class:`CalibrationError` where the calibration
    data cannot be read.
    """
    performance, front_end = performance or PerformanceModelConfig(), front_end or FrontEndConfig()
    fitted: dict[str, frozenset[str]] = {}
    compared: list[RunErrors] = []
    failed: dict[str, str] = {}
    for run in runs:
        if report is not None:
            report(run)
        xpu = run.config.xpu
        if xpu not in fitted:
            fitted[xpu] = fitted_runs(performance, xpu)
        try:
            prediction = simulate_run(run, performance, front_end)
        except SimulatorError as error:
            failed[run.id] = str(error)
            continue
        compared.append(compare(run, prediction, used_for_fitting=run.id in fitted[xpu]))
    return Validation(
        performance=performance, front_end=front_end, runs=tuple(compared), failed=failed
    )


def leave_one_out(
    runs: Sequence[MeasuredRun],
    performance: PerformanceModelConfig | None = None,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> Validation:
    """Predict every run with overheads that are fitted anew to all others.

    The runs are of one accelerator, and its calibration holds kernel tables. Raises
    :class:`CalibrationError`.
    """
    from llm_inference_simulator.validation.overhead_fit import fit_overheads

    performance = performance or PerformanceModelConfig()
    xpus = sorted({run.config.xpu for run in runs})
    if len(xpus) != 1:
        raise CalibrationError(
            f"leaving runs out needs runs of one accelerator, not of {', '.join(xpus) or 'none'}"
        )
    calibration = find_calibration_of(performance, load_xpu(xpus[0]))
    if not isinstance(calibration, KernelCalibration):
        raise CalibrationError(
            f"leaving runs out fits the overheads of kernel tables, which xpu={xpus[0]} lacks "
            "here: give kernel tables as calibration_data"
        )
    fit = fit_overheads(runs, calibration, performance, report=report)
    return Validation(
        performance=performance, front_end=FrontEndConfig(), runs=fit.held_out, left_out=True
    )


def fitted_runs(performance: PerformanceModelConfig, xpu: str) -> frozenset[str]:
    """Ids of the runs that the calibration of ``xpu`` says it was fitted to.

    Raises :class:`CalibrationError` where ``fitted_runs`` is there but no list of ids.
    """
    calibration = find_calibration_of(performance, load_xpu(xpu))
    listed = [] if calibration is None else calibration.provenance.get("fitted_runs", [])
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
        raise CalibrationError(
            f"calibration {performance.calibration_data or xpu}: provenance.fitted_runs={listed!r} "
            "is not a list of run ids"
        )
    return frozenset(listed)


def _run(errors: RunErrors) -> dict[str, Any]:
    run, prediction = errors.run, errors.prediction
    return {
        "id": run.id,
        "source": run.source,
        "model": run.config.model,
        "xpu": run.config.xpu,
        "tensor_parallel_size": run.config.cluster.tensor_parallel_size,
        "workload": run.workload_name,
        "used_for_fitting": errors.used_for_fitting,
        "requests": prediction.requests,
        "completed": prediction.completed,
        "performance_model": prediction.performance_model,
        "performance_description": prediction.performance_description,
        "errors": _plain(errors.whole),
        "stages": [
            {
                "request_rate": stage.request_rate,
                "seconds": stage.seconds,
                "errors": _plain(found),
            }
            for stage, found in zip(run.stages, errors.stages, strict=True)
        ],
        "notes": list(run.notes),
        "warnings": list(prediction.warnings),
        "config": run.config.to_dict(),
    }


def _plain(errors: Sequence[MetricError]) -> dict[str, dict[str, float]]:
    return {
        error.metric: {
            "measured_ms": error.measured_ms,
            "predicted_ms": error.predicted_ms,
            "error_percent": error.error_percent,
        }
        for error in errors
    }
