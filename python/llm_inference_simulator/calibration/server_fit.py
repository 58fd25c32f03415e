"""What a server adds to an engine: one factor for its steps and one latency for its requests.

The processes of a server share the machine with the engine, so its steps are slower by a little,
and a request passes through HTTP and a tokeniser. Both are fitted to the means of light runs; runs
before and after what is to be predicted average out a machine that drifts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llm_inference_simulator.calibration.bench_results import BenchResult
from llm_inference_simulator.calibration.front_end import FrontEndLatency
from llm_inference_simulator.calibration.roof_solver import require_scipy
from llm_inference_simulator.errors import CalibrationError

Predict = Callable[[int, float, float], Mapping[str, float]]
"""Means that a simulation gives for (run, step factor, request latency in ms), as ``means_ms``."""

LARGEST_ERROR = 0.1
"""Means that the best correction misses by more give a warning."""
_LIKELY_FACTORS = (0.8, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCorrection:
    """The correction, and what is left of the differences."""

    step_factor: float
    front_end: FrontEndLatency | None
    errors: tuple[dict[str, float], ...]
    """Predicted over measured means, less 1, of each run."""
    warnings: tuple[str, ...]


def fit_server(benches: Sequence[BenchResult], predict: Predict) -> ServerCorrection:
    """Fit the correction to the measured means of runs; raises :class:`CalibrationError`.

    A latency before the engine and one after it are the same to a client, so their sum is given as
    the request's.
    """
    optimize = require_scipy()
    shortest = [b.means_ms["ttft"] for b in benches if b.through_server and "ttft" in b.means_ms]

    def errors(factor: float, latency_ms: float) -> tuple[dict[str, float], ...]:
        found = []
        for run, bench in enumerate(benches):
            predicted = predict(run, factor, latency_ms if bench.through_server else 0.0)
            found.append({name: predicted[name] / at - 1 for name, at in bench.means_ms.items()})
        return tuple(found)

    def loss(point: list[float]) -> float:
        factor, latency_ms = math.exp(point[0]), (abs(point[1]) if shortest else 0.0)
        return sum(e**2 for run in errors(factor, latency_ms) for e in run.values())

    # A simulation jumps where a request joins another step: a simplex does not mind.
    start = [0.0, 0.05 * min(shortest, default=0.0)]
    simplex = [start, [0.2, start[1]], [0.0, 2 * start[1] + 1.0]]
    found = optimize.minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-7, "maxfev": 200},
    )
    factor = math.exp(found.x[0])
    latency_ms = abs(float(found.x[1])) if shortest else 0.0
    if not 0.01 <= factor <= 100:
        raise CalibrationError(
            f"{_names(benches)}: no step factor explains the run ({factor:.3g}): was it measured "
            "on the engine of the calibration?"
        )
    left = errors(factor, latency_ms)
    return ServerCorrection(
        step_factor=factor,
        front_end=FrontEndLatency(request_latency_ms=latency_ms) if shortest else None,
        errors=left,
        warnings=(
            *(warning for bench in benches for warning in bench.warnings),
            *_warnings(benches, factor, left),
        ),
    )


def _names(benches: Sequence[BenchResult]) -> str:
    return ", ".join(bench.source.file for bench in benches)


def _warnings(
    benches: Sequence[BenchResult], factor: float, errors: Sequence[Mapping[str, float]]
) -> list[str]:
    warnings = [
        f"{bench.source.file}: mean {name} is {error:+.0%} off after the correction: a run of "
        "another engine, or steps that were not measured"
        for bench, run in zip(benches, errors, strict=True)
        for name, error in run.items()
        if abs(error) > LARGEST_ERROR
    ]
    low, high = _LIKELY_FACTORS
    if not low <= factor <= high:
        warnings.append(
            f"{_names(benches)}: server_step_factor={factor:.2f} is far from 1: check that the "
            "bench run and the step logs are of the same engine and settings"
        )
    return warnings
