"""The interface of performance models: what prices a step."""

from __future__ import annotations

from abc import ABC, abstractmethod

from llm_inference_simulator._core import CostModel, StepShape
from llm_inference_simulator.calibration import FrontEndLatency


class BasePerformanceModel(ABC):
    """Prices the steps of one engine.

    A subclass needs :meth:`estimate_step_time`; an instance can be given to
    :func:`llm_inference_simulator.simulate`. It is then asked once a step, so a model that can be
    expressed in the core (:meth:`cost_model`) runs a thousand times faster.
    """

    name: str = "custom"
    """Name in summaries and results."""
    description: str = ""
    """One line for the summary: what the times come from."""
    warnings: tuple[str, ...] = ()
    """What a reader of the results must know."""
    peak_flops: float | None = None
    """Peak floating-point operations per second and accelerator, for utilisation; None: unknown."""
    peak_bandwidth: float | None = None
    """Peak bytes of memory traffic per second and accelerator, for utilisation; None: unknown."""

    attention_window: tuple[str, int] | None = None
    """("sliding" or "chunked", tokens) that layers with a window see; None: the model has none."""

    front_end: FrontEndLatency | None = None
    """What the measured server adds to a request; None: not measured."""
    calibration_file: str | None = None
    """Path of the measurements that the times come from; None: no file."""
    calibration_sha256: str | None = None
    """SHA-256 of that file's bytes."""

    @abstractmethod
    def estimate_step_time(self, step: StepShape) -> float:
        """Seconds that a step takes, prompt chunks and decoding requests together.

        The step's sums are defined in docs/spec.md, section 8. The value must be finite and not
        negative; the simulation stops with a ``SimulationError`` otherwise.
        """

    def estimate_prefill_time(self, batch_size: int, seq_length: int) -> float:
        """Seconds of a step that computes ``batch_size`` prompts of ``seq_length`` tokens."""
        return self.estimate_step_time(prefill_step(batch_size, seq_length, self.attention_window))

    def estimate_decode_time(self, batch_size: int, kv_cache_length: int) -> float:
        """Seconds of a step that gives each of ``batch_size`` requests one token.

        ``kv_cache_length`` counts the keys that each request reads, the new token's among them.
        """
        return self.estimate_step_time(
            decode_step(batch_size, kv_cache_length, self.attention_window)
        )

    def cost_model(self) -> CostModel:
        """The model as the core runs it; by default a call of :meth:`estimate_step_time` a step."""
        return CostModel.external(self.estimate_step_time)


def prefill_step(
    batch_size: int, seq_length: int, attention_window: tuple[str, int] | None = None
) -> StepShape:
    """Build a step of whole prompts; raises ``ValueError`` for sizes below 1."""
    _at_least_one(batch_size=batch_size, seq_length=seq_length)
    return StepShape.prefill(batch_size, seq_length, attention_window=attention_window)


def decode_step(
    batch_size: int, kv_cache_length: int, attention_window: tuple[str, int] | None = None
) -> StepShape:
    """Build a step of one token a request; raises ``ValueError`` for sizes below 1."""
    _at_least_one(batch_size=batch_size, kv_cache_length=kv_cache_length)
    return StepShape.decode(batch_size, kv_cache_length, attention_window)


def _at_least_one(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be at least 1")
