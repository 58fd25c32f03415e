"""Fits what kernels do not show on whole measured runs, and says how well that carries over.

Few physical constants, the same for every model of an accelerator (``HostOverheads`` and the front
end), chosen so that relative errors of mean ITL, TTFT and E2E are least in squares. Predictions are
nearly linear in the constants, so a few Gauss-Newton rounds with differences are enough. A fit that
leaves a run out begins where all runs led and takes rounds of its own without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration import FrontEndLatency
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.calibration.roof_solver import require_scipy
from llm_inference_simulator.config import FrontEndConfig, PerformanceModelConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from llm_inference_simulator.validation.error_table import RunErrors, compare
from llm_inference_simulator.validation.measured import MeasuredRun
from llm_inference_simulator.validation.prediction import Prediction, simulate_run

Array = NDArray[np.float64]

FITTED_METRICS = ("itl_mean", "ttft_mean", "e2e_mean")
_WEIGHTS = (1.0, 0.6, 0.5)
"""TTFT is a few steps and a constant, noisier than ITL; E2E is nearly ITL again."""

_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant that is fitted."""

    name: str
    unit: str
    start: float
    step: float
    """Of the difference quotient."""
    least: float
    most: float
    neutral: float
    """Without effect."""


CONSTANTS = (
    Constant("kernel_latency_us", "us", 1.0, 1.0, 0.0, 10.0, 0.0),
    Constant("all_reduce_factor", "", 1.0, 0.2, 1.0, 4.0, 1.0),
    Constant("penalties_step_us", "us", 500.0, 200.0, 0.0, 5000.0, 0.0),
    Constant("request_latency_ms", "ms", 7.0, 2.0, 0.0, 100.0, 0.0),
)
"""``request_latency_ms`` is the whole front end: runs tell the sum of both directions only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverheadFit:
    """Fitted constants, and how the runs compare with and without their help."""

    calibration: KernelCalibration
    """The tables with the fitted constants."""
    values: dict[str, float]
    untold: tuple[str, ...]
    """Constants that no run tells of, which keep the calibration's values."""
    spread: dict[str, float]
    """Standard deviation over the fits that leave one run out."""
    fitted: tuple[RunErrors, ...]
    """Every run, predicted with constants that it helped to choose."""
    held_out: tuple[RunErrors, ...]
    """Every run, predicted with constants fitted to the others."""


def fit_overheads(
    runs: Sequence[MeasuredRun],
    calibration: KernelCalibration,
    performance: PerformanceModelConfig | None = None,
    *,
    report: Callable[[str], None] = lambda _: None,
) -> OverheadFit:
    """Fit the constants of ``calibration`` to ``runs``; those that no run tells of stay.

    Raises :class:`CalibrationError` where the runs are too few, lack a metric or ran elsewhere.
    """
    require_scipy()
    fit = _Fit(list(runs), calibration, performance or PerformanceModelConfig())
    values = np.array([constant.start for constant in CONSTANTS])
    everyone = np.ones(len(runs), dtype=bool)
    own, neutral = fit.own_values(), np.array([constant.neutral for constant in CONSTANTS])
    predicted, slopes = fit.linearised(values)
    for number in range(_ROUNDS):
        report(f"fitting overheads: round {number + 1} of {_ROUNDS}")
        better = fit.solve(values, predicted, slopes, everyone, own)
        moved = np.abs(better - values).max(initial=0.0)
        values = better
        predicted, slopes = fit.linearised(values)
        if moved < 1e-3:
            break
    others, held_out = [], []
    for index, run in enumerate(runs):
        report(f"leaving out run {index + 1} of {len(runs)}")
        kept = everyone.copy()
        kept[index] = False
        # Where only this run tells of a constant, its effect is left out with it.
        without = fit.solve(values, predicted, slopes, kept, neutral)
        without = fit.solve(without, *fit.linearised(without), kept, neutral)
        others.append(without)
        held_out.append(compare(run, fit.predict(run, without), used_for_fitting=False))
    fitted = [compare(run, fit.predict(run, values), used_for_fitting=True) for run in runs]
    spread = np.std(others, axis=0)
    untold = tuple(
        constant.name
        for constant, told in zip(CONSTANTS, _told(slopes, everyone), strict=True)
        if not told
    )
    return OverheadFit(
        calibration=_with(calibration, values, runs, untold),
        values=_by_name(values),
        untold=untold,
        spread=_by_name(spread),
        fitted=tuple(fitted),
        held_out=tuple(held_out),
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """Runs, and how constants change their predictions."""

    runs: list[MeasuredRun]
    calibration: KernelCalibration
    performance: PerformanceModelConfig

    def __post_init__(self) -> None:
        if len(self.runs) <= len(CONSTANTS):
            raise CalibrationError(
                f"{len(self.runs)} runs cannot tell {len(CONSTANTS)} constants: give more runs"
            )
        for run in self.runs:
            for metric in FITTED_METRICS:
                if metric not in run.measured:
                    raise CalibrationError(f"run {run.id} of {run.source} lacks {metric}")

    def own_values(self) -> Array:
        """The constants that the calibration has already."""
        own = self.calibration.overheads.model_dump()
        front_end = self.calibration.front_end
        own["request_latency_ms"] = 0.0
        if front_end is not None:
            own["request_latency_ms"] = front_end.request_latency_ms + front_end.response_latency_ms
        return np.array([own[constant.name] for constant in CONSTANTS])

    def predict(self, run: MeasuredRun, values: Array) -> Prediction:
        calibration = _with(self.calibration, values)
        engine = run.config.engine
        model = OpTablePerformanceModel(
            run.config.model,
            run.config.xpu,
            run.config.cluster.tensor_parallel_size,
            calibration=calibration,
            engine=engine,
            all_reduce=self.performance.all_reduce,
            max_model_len=engine.max_model_len,
            expert_distribution=self.performance.expert_distribution,
        )
        return simulate_run(run, model, FrontEndConfig())

    def metrics(self, values: Array) -> Array:
        rows = [self.predict(run, values).metrics for run in self.runs]
        return np.array([[row[metric] for metric in FITTED_METRICS] for row in rows])

    def linearised(self, values: Array) -> tuple[Array, Array]:
        """Predictions (run, metric), and their slopes (run, metric, constant)."""
        predicted = self.metrics(values)
        slopes = np.empty((*predicted.shape, len(CONSTANTS)))
        for index, constant in enumerate(CONSTANTS):
            moved = values.copy()
            moved[index] += constant.step
            slopes[..., index] = (self.metrics(moved) - predicted) / constant.step
        return predicted, slopes

    def solve(
        self,
        values: Array,
        predicted: Array,
        slopes: Array,
        kept: NDArray[np.bool_],
        otherwise: Array,
    ) -> Array:
        """Constants with the least weighted relative errors of the kept runs, inside bounds.

        ``otherwise`` where no kept run tells of a constant.
        """
        measured = np.array(
            [[run.measured[metric] for metric in FITTED_METRICS] for run in self.runs]
        )
        weights = (np.array(_WEIGHTS) / measured)[kept]
        design = (slopes[kept] * weights[..., None]).reshape(-1, len(CONSTANTS))
        target = ((measured - predicted)[kept] * weights).ravel() + design @ values
        scale, told = np.abs(design).max(axis=0), _told(slopes, kept)
        low, high = (
            np.array([getattr(constant, side) for constant in CONSTANTS])[told] * scale[told]
            for side in ("least", "most")
        )
        found = require_scipy().lsq_linear(
            design[:, told] / scale[told], target, bounds=(low, high)
        )
        solution = otherwise.copy()
        solution[told] = found.x / scale[told]
        return solution


def _told(slopes: Array, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the kept runs depend on each constant."""
    return np.asarray(np.abs(slopes[kept]).max(axis=(0, 1)) > 0)


def _with(
    calibration: KernelCalibration,
    values: Array,
    runs: Sequence[MeasuredRun] = (),
    untold: Sequence[str] = (),
) -> KernelCalibration:
    """The calibration with these constants, naming the runs that they were fitted to."""
    named = _by_name(values)
    front_end = FrontEndLatency(request_latency_ms=named.pop("request_latency_ms"))
    overheads = calibration.overheads.model_copy(update=named)
    provenance = dict(calibration.provenance)
    if runs:
        provenance["fitted_runs"] = [run.id for run in runs]
        note = "fitted on whole runs (leave-one-out errors: validate)"
        if untold:
            note += f"; not told by them, as before: {', '.join(untold)}"
        provenance["overheads"] = note
    return replace(
        calibration,
        overheads=HostOverheads.model_validate(overheads.model_dump()),
        front_end=front_end,
        provenance=provenance,
    )


def _by_name(values: Array) -> dict[str, float]:
    return {constant.name: float(value) for constant, value in zip(CONSTANTS, values, strict=True)}
