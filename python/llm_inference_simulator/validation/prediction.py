"""What the simulator says of a measured run, with given prices of a step."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.config import FrontEndConfig, PerformanceModelConfig
from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.metrics import COMPLETED, Columns
from llm_inference_simulator.performance_models import BasePerformanceModel
from llm_inference_simulator.simulation import simulate
from llm_inference_simulator.validation.measured import NS_PER_MS, MeasuredRun, latency_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Predicted latencies of one run, in milliseconds."""

    metrics: dict[str, float]
    """By the names of :data:`~llm_inference_simulator.validation.METRICS`."""
    stages: tuple[dict[str, float], ...]
    """The same for each stage of the run: its requests are those that arrive in it."""
    requests: int
    completed: int
    performance_model: str
    performance_description: str
    warnings: tuple[str, ...]


def predict(
    run: MeasuredRun,
    performance: PerformanceModelConfig | BasePerformanceModel | None = None,
    front_end: FrontEndConfig | None = None,
) -> dict[str, float]:
    """Milliseconds of :data:`~llm_inference_simulator.validation.METRICS` for ``run``.

    ``performance`` names a model or is one, built for the run's model, accelerator and
    tensor-parallel size (None: as ``run.config`` says). Meant to be called often: the requests of a
    run are made once, and a call costs one simulation in the core, about 50 ms for 10,000 requests.
    Equal arguments give equal numbers. Raises the errors of
    :func:`llm_inference_simulator.simulate`, and :class:`WorkloadError` where no request completes.
    """
    return simulate_run(run, performance, front_end).metrics


def simulate_run(
    run: MeasuredRun,
    performance: PerformanceModelConfig | BasePerformanceModel | None = None,
    front_end: FrontEndConfig | None = None,
) -> Prediction:
    """:func:`predict` with stages, counts and warnings."""
    config, model = run.config, None
    if isinstance(performance, PerformanceModelConfig):
        config = config.model_copy(update={"performance": performance})
    else:
        model = performance
    if front_end is not None:
        config = config.model_copy(update={"front_end": front_end})
    result = simulate(config, workload=run.workload, performance_model=model)
    requests = result.requests
    completed = requests["status"] == COMPLETED
    if not completed.any():
        raise WorkloadError(
            f"no request of the run completes in the simulation: {' '.join(result.warnings)}"
        )
    bounds = run.stage_bounds_ns
    arrival = requests["arrival_ns"]
    return Prediction(
        metrics=_metrics(requests, completed),
        stages=tuple(
            _metrics(requests, completed & (arrival >= start) & (arrival < end))
            for start, end in itertools.pairwise(bounds)
        ),
        requests=len(arrival),
        completed=int(completed.sum()),
        performance_model=result.setup.pools[0].performance_model,
        performance_description=result.setup.pools[0].performance_description,
        warnings=result.warnings,
    )


def _metrics(requests: Columns, counted: NDArray[np.bool_]) -> dict[str, float]:
    return latency_metrics(
        requests["ttft_ns"][counted] / NS_PER_MS,
        requests["e2el_ns"][counted] / NS_PER_MS,
        requests["output_tokens"][counted],
    )
