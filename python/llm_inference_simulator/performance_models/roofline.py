"""The analytic roofline: peak rates of the catalogue times the fractions it states."""

from __future__ import annotations

from typing import Literal

from llm_inference_simulator._core import CostModel, OperationCost, StepShape
from llm_inference_simulator.capacity import check_tensor_parallel_size
from llm_inference_simulator.catalog import ModelSpec, XpuSpec, load_model, load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.base import (
    BasePerformanceModel,
    decode_step,
    prefill_step,
)
from llm_inference_simulator.performance_models.core_roofline import (
    PhaseRates,
    RooflineHardware,
    RooflineModelShape,
    WeightFormat,
    achievable_bandwidth,
    achievable_flops,
    group_bandwidth,
    group_warnings,
    model_shape,
    weight_format,
)

AllReduce = Literal["ring", "tree", "auto"]


class RooflinePerformanceModel(BasePerformanceModel):
    """Prices a step operation by operation (docs/cost_model.md).

    ``model`` and ``xpu`` are catalogue names, paths or the loaded entries. ``engine`` gives the
    formats of weights and cache. ``max_model_len`` is the longest sequence to be priced; None: the
    engine's, or else the model's context. Raises
    :class:`~llm_inference_simulator.errors.ConfigError` for what the model cannot price.
    """

    name = "roofline"

    def __init__(
        self,
        model: ModelSpec | str,
        xpu: XpuSpec | str,
        tensor_parallel_size: int = 1,
        *,
        engine: EngineConfig | None = None,
        all_reduce: AllReduce = "auto",
        max_model_len: int | None = None,
    ) -> None:
        self.model = load_model(model) if isinstance(model, str) else model
        self.xpu = load_xpu(xpu) if isinstance(xpu, str) else xpu
        self.tensor_parallel_size = tensor_parallel_size
        engine = engine or EngineConfig()
        check_tensor_parallel_size(self.model, tensor_parallel_size)
        self.require_supported(
            max_model_len or engine.max_model_len or self.model.max_position_embeddings
        )
        weights = weight_format(self.model, self.xpu, engine)
        self.shape: RooflineModelShape = model_shape(
            self.model, engine, weights, tensor_parallel_size
        )
        self.hardware: RooflineHardware = self._hardware(weights, all_reduce)
        self.warnings = (*weights.warnings, *group_warnings(self.xpu, tensor_parallel_size))
        self.peak_flops = self.xpu.peak_flops(weights.compute_dtype)
        self.peak_bandwidth = self.xpu.memory_bytes_per_s
        self._efficiency = self.xpu.compute_efficiency_of(weights.compute_dtype)
        self._core = CostModel.roofline(self.shape, self.hardware)

    def require_supported(self, max_model_len: int) -> None:
        """Raise :class:`ConfigError` where sequences of ``max_model_len`` would be mispriced."""
        reason = self.model.unsupported_by_roofline(max_model_len)
        if reason is not None:
            raise ConfigError(reason)

    @property
    def description(self) -> str:  # type: ignore[override]
        """One line: what the times come from."""
        return (
            f"analytic, not calibrated: {self._efficiency:.0%} of dense peak FLOPS, "
            f"{self.xpu.memory_efficiency:.0%} of peak bandwidth"
        )

    def _hardware(self, weights: WeightFormat, all_reduce: AllReduce) -> RooflineHardware:
        xpu = self.xpu
        rates = PhaseRates(
            linear_flops=achievable_flops(xpu, weights.compute_dtype),
            attention_flops=achievable_flops(xpu, "bfloat16"),
            memory_bandwidth=achievable_bandwidth(xpu),
        )
        return RooflineHardware(
            prefill=rates,
            decode=rates,
            kernel_latency_s=xpu.kernel_latency_us / 1e6,
            step_overhead_s=xpu.step_overhead_us / 1e6,
            sequence_overhead_s=0.0,
            link_bandwidth=group_bandwidth(xpu, self.tensor_parallel_size) * xpu.link_efficiency,
            link_latency_s=xpu.link_latency_us / 1e6,
            all_reduce=all_reduce,
        )

    def cost_model(self) -> CostModel:
        """The roofline as the core runs it."""
        return self._core

    def estimate_step_time(self, step: StepShape) -> float:
        """Seconds of a step; see :meth:`BasePerformanceModel.estimate_step_time`."""
        return self._core.step_seconds(step)

    def breakdown_step(self, step: StepShape) -> dict[str, OperationCost]:
        """Components of a step by name: seconds, operations, bytes and the bound of each.

        Their seconds sum to :meth:`estimate_step_time`; all numbers are per accelerator.
        """
        return {part.name: part for part in self._core.breakdown(step)}

    def breakdown_prefill(self, batch_size: int, seq_length: int) -> dict[str, OperationCost]:
        """Components of :meth:`estimate_prefill_time`."""
        return self.breakdown_step(prefill_step(batch_size, seq_length))

    def breakdown_decode(self, batch_size: int, kv_cache_length: int) -> dict[str, OperationCost]:
        """Components of :meth:`estimate_decode_time`."""
        return self.breakdown_step(decode_step(batch_size, kv_cache_length))
