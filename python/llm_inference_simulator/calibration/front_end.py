"""Which front end a run has: its own settings, else what the calibration measured, else none."""

from __future__ import annotations

from llm_inference_simulator.calibration.parameters import FrontEndLatency
from llm_inference_simulator.config import FrontEndConfig


def resolve_front_end(own: FrontEndConfig, measured: FrontEndLatency | None) -> FrontEndLatency:
    """Latencies of a run in milliseconds; one that the configuration gives wins."""
    if measured is None:
        measured = FrontEndLatency(request_latency_ms=0.0, response_latency_ms=0.0)
    given = own.model_dump(exclude_none=True)
    return FrontEndLatency(**{**measured.model_dump(), **given})
