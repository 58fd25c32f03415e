"""What lies between clients and engines, and which a run has: given, else measured, else none."""

from llm_inference_simulator.config import FrontEndConfig
from llm_inference_simulator.sections import Milliseconds, Section


class FrontEndLatency(Section):
    """What lies between clients and engine; measurements tell the sum of the two."""

    request_latency_ms: Milliseconds
    response_latency_ms: Milliseconds = 0.0

    @property
    def request_latency_ns(self) -> int:
        """The part before the engine, as the core takes it."""
        return round(self.request_latency_ms * 1e6)

    @property
    def response_latency_ns(self) -> int:
        """The part after the end of a step, as the core takes it."""
        return round(self.response_latency_ms * 1e6)


def resolve_front_end(own: FrontEndConfig, measured: FrontEndLatency | None) -> FrontEndLatency:
    """Latencies of a run in milliseconds; one that the configuration gives wins."""
    request, response = own.request_latency_ms, own.response_latency_ms
    if measured is not None:
        request = measured.request_latency_ms if request is None else request
        response = measured.response_latency_ms if response is None else response
    # Both sources have been checked.
    return FrontEndLatency.model_construct(
        request_latency_ms=request or 0.0, response_latency_ms=response or 0.0
    )
