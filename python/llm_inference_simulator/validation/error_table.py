"""Signed errors of predictions, and their statistics over runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_inference_simulator.validation.measured import METRICS, Latencies, MeasuredRun
from llm_inference_simulator.validation.prediction import Prediction

STATISTICS = ("mean", "median", "p90", "bias")
"""Of |error| in percent: mean, median and linear 90th percentile; ``bias`` is the mean of the
signed errors, positive where predictions are too long."""


@dataclass(frozen=True, slots=True)
class MetricError:
    """A measured and a predicted latency in milliseconds."""

    metric: str
    measured_ms: float
    predicted_ms: float

    @property
    def error_percent(self) -> float:
        """Signed error in percent of the measured value: positive where predicted too long."""
        return 100.0 * (self.predicted_ms - self.measured_ms) / self.measured_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class RunErrors:
    """The errors of one run's prediction."""

    run: MeasuredRun
    prediction: Prediction
    used_for_fitting: bool
    whole: tuple[MetricError, ...]
    stages: tuple[tuple[MetricError, ...], ...]
    """By stage; empty where a stage was not measured."""


def compare(
    run: MeasuredRun, prediction: Prediction, *, used_for_fitting: bool = False
) -> RunErrors:
    """Set a prediction against the measurement; metrics that only one of them has are left out."""
    return RunErrors(
        run=run,
        prediction=prediction,
        used_for_fitting=used_for_fitting,
        whole=_errors(run.measured, prediction.metrics),
        stages=tuple(
            _errors(stage.measured or {}, predicted)
            for stage, predicted in zip(run.stages, prediction.stages, strict=True)
        ),
    )


def _errors(measured: Latencies, predicted: Latencies) -> tuple[MetricError, ...]:
    return tuple(
        MetricError(metric, measured[metric], predicted[metric])
        for metric in METRICS
        if metric in measured and metric in predicted
    )


Statistics = dict[str, dict[str, float]]
"""metric -> statistic of :data:`STATISTICS`, and ``count`` -> percent."""


def error_statistics(errors: Iterable[MetricError]) -> Statistics:
    """Return count, mean, median and p90 of |error| and the bias, in percent, by metric."""
    by_metric: dict[str, list[float]] = {}
    for error in errors:
        by_metric.setdefault(error.metric, []).append(error.error_percent)
    found: Statistics = {}
    for metric in METRICS:
        if metric in by_metric:
            signed = np.array(by_metric[metric])
            size = np.abs(signed)
            found[metric] = {
                "count": len(signed),
                "mean": float(size.mean()),
                "median": float(np.median(size)),
                "p90": float(np.percentile(size, 90)),
                "bias": float(signed.mean()),
            }
    return found


def summarise(runs: Sequence[RunErrors]) -> dict[str, Any] | None:
    """Statistics over runs, over their stages, and by model, accelerator and workload.

    None where there are no runs. Held-out and fitted runs don't belong into one summary: pass them
    apart.
    """
    if not runs:
        return None
    return {
        "runs": len(runs),
        "overall": _whole(runs),
        "stages": error_statistics(
            error for each in runs for stage in each.stages for error in stage
        ),
        "by_model": _grouped(runs, lambda each: each.run.config.model),
        "by_xpu": _grouped(runs, lambda each: each.run.config.xpu),
        "by_workload": _grouped(runs, lambda each: each.run.workload_name),
    }


def _whole(runs: Sequence[RunErrors]) -> Statistics:
    return error_statistics(error for each in runs for error in each.whole)


def _grouped(
    runs: Sequence[RunErrors], key: Callable[[RunErrors], str]
) -> Mapping[str, Statistics]:
    groups: dict[str, list[RunErrors]] = {}
    for each in runs:
        groups.setdefault(key(each), []).append(each)
    return {name: _whole(members) for name, members in sorted(groups.items())}
