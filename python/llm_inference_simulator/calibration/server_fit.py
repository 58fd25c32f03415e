"""What a server adds to an engine: one factor for its steps and one latency for its requests.

The processes of a server share the machine with the engine, so its steps are slower by a little,
and a request passes through HTTP and a tokeniser. Both are fitted to the means of one light run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llm_inference_simulator.calibration.bench_results import BenchResult
from llm_inference_simulator.calibration.parameters import FrontEndLatency
from llm_inference_simulator.calibration.roof_solver import require_scipy
from llm_inference_simulator.errors import CalibrationError

Predict = Callable[[float, float], Mapping[str, float]]
"""Means that a simulation gives for (step factor, request latency in ms), as in ``means_ms``."""

LARGEST_ERROR = 0.1
"""Means that the best correction misses by more give a warning."""
_LIKELY_FACTORS = (0.8, 1.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCorrection:
    """The correction, and what is left of the differences."""

    step_factor: float
    front_end: FrontEndLatency | None
    errors: dict[str, float]
    """Predicted over measured means, less 1."""
    warnings: tuple[str, ...]


def fit_server(bench: BenchResult, predict: Predict) -> ServerCorrection:
    """Fit the correction to the measured means of a run; raises :class:`CalibrationError`.

    A latency before the engine and one after it are the same to a client, so their sum is given as
    the request's.
    """
    optimize = require_scipy()
    fits_latency = bench.through_server and "ttft" in bench.means_ms

    def errors(factor: float, latency_ms: float) -> dict[str, float]:
        predicted = predict(factor, latency_ms)
        return {name: predicted[name] / value - 1 for name, value in bench.means_ms.items()}

    def loss(point: list[float]) -> float:
        factor, latency_ms = math.exp(point[0]), (abs(point[1]) if fits_latency else 0.0)
        return sum(error**2 for error in errors(factor, latency_ms).values())

    # A simulation jumps where a request joins another step: a simplex does not mind.
    start = [0.0, 0.05 * bench.means_ms["ttft"]] if fits_latency else [0.0, 0.0]
    simplex = [start, [0.2, start[1]], [0.0, 2 * start[1] + 1.0]]
    found = optimize.minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-7, "maxfev": 200},
    )
    factor = math.exp(found.x[0])
    latency_ms = abs(float(found.x[1])) if fits_latency else 0.0
    if not 0.01 <= factor <= 100:
        raise CalibrationError(
            f"{bench.source.file}: no step factor explains the run ({factor:.3g}): was it measured "
            "on the engine of the calibration?"
        )
    left = errors(factor, latency_ms)
    return ServerCorrection(
        step_factor=factor,
        front_end=FrontEndLatency(request_latency_ms=latency_ms) if fits_latency else None,
        errors=left,
        warnings=(*bench.warnings, *_warnings(bench, factor, left)),
    )


def _warnings(bench: BenchResult, factor: float, errors: Mapping[str, float]) -> list[str]:
    warnings = [
        f"{bench.source.file}: mean {name} is {error:+.0%} off after the correction: a run of "
        "another engine, or steps that were not measured"
        for name, error in errors.items()
        if abs(error) > LARGEST_ERROR
    ]
    low, high = _LIKELY_FACTORS
    if not low <= factor <= high:
        warnings.append(
            f"{bench.source.file}: server_step_factor={factor:.2f} is far from 1: check that the "
            "bench run and the step logs are of the same engine and settings"
        )
    return warnings
