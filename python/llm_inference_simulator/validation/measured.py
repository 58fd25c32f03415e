"""A measured run: what served, what was asked of it, and the latencies that its clients saw."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.workload import Workload, build_workload

METRICS = (
    "e2e_mean",
    "e2e_p90",
    "e2e_p99",
    "ttft_mean",
    "ttft_p90",
    "ttft_p99",
    "itl_mean",
)
"""What is compared, in milliseconds. ``itl_mean`` is the mean over requests of
(E2E - TTFT) / (output tokens - 1), not that of the pooled gaps between tokens."""

NS_PER_MS = 1e6

Latencies = Mapping[str, float]
"""Milliseconds by the names of :data:`METRICS`; what was not measured is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a run with one request rate."""

    request_rate: float
    """Requests per second."""
    seconds: float
    measured: Latencies | None
    """None where only the whole run was measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRun:
    """One run of a real server, ready to be predicted."""

    id: str
    source: str
    """File that it was read from."""
    workload_name: str
    config: SimulatorConfig
    """Server and load as the simulator says them; what prices a step is not part of it."""
    measured: Latencies
    stages: tuple[Stage, ...] = ()
    requests: Workload | None = None
    """Requests as they were sent; None: ``config.workload`` describes them."""
    notes: tuple[str, ...] = ()
    """What was assumed or left out when the file was read."""

    @functools.cached_property
    def workload(self) -> Workload:
        """The requests to simulate, made once however often the run is predicted."""
        if self.requests is not None:
            return self.requests
        return build_workload(self.config.workload, self.config.seed)

    @property
    def stage_bounds_ns(self) -> NDArray[np.int64]:
        """Start of each stage and the end of the last, in nanoseconds."""
        ends = np.cumsum([0.0, *(stage.seconds for stage in self.stages)])
        return np.rint(ends * 1e9).astype(np.int64)


def latency_metrics(
    ttft_ms: NDArray[np.float64], e2e_ms: NDArray[np.float64], output_tokens: NDArray[np.int64]
) -> dict[str, float]:
    """:data:`METRICS` of requests that completed; those without requests are left out.

    Percentiles are linear. A request of one output token has no time between tokens and stays out
    of ``itl_mean``.
    """
    found: dict[str, float] = {}
    for name, values in (("e2e", e2e_ms), ("ttft", ttft_ms)):
        if len(values):
            p90, p99 = np.percentile(values, [90, 99])
            found |= {
                f"{name}_mean": float(values.mean()),
                f"{name}_p90": float(p90),
                f"{name}_p99": float(p99),
            }
    several = output_tokens > 1
    if several.any():
        gaps = (e2e_ms[several] - ttft_ms[several]) / (output_tokens[several] - 1)
        found["itl_mean"] = float(gaps.mean())
    return found
