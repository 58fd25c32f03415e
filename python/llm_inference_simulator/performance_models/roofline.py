"""The analytic roofline: peak rates of the catalogue times the fractions it states."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from llm_inference_simulator._core import CostModel, OperationCost, StepShape
from llm_inference_simulator.capacity import check_tensor_parallel_size
from llm_inference_simulator.catalog import ModelSpec, XpuSpec, load_model, load_xpu
from llm_inference_simulator.catalog.pipeline import PipelineStage
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.base import (
    BasePerformanceModel,
    decode_step,
    prefill_step,
)
from llm_inference_simulator.performance_models.composition import attention_window, compose
from llm_inference_simulator.performance_models.hardware import (
    ExchangeLink,
    PhaseRates,
    RooflineHardware,
    achievable_bandwidth,
    achievable_flops,
    group_bandwidth,
    group_warnings,
)
from llm_inference_simulator.performance_models.operations import Composition
from llm_inference_simulator.performance_models.weight_formats import WeightFormats, weight_formats

AllReduce = Literal["ring", "tree", "auto"]


class RooflinePerformanceModel(BasePerformanceModel):
    """Prices a step operation by operation (docs/cost_model.md).

    ``model`` and ``xpu`` are catalogue names, paths or the loaded entries. ``engine`` gives the
    formats of weights and cache. ``max_model_len`` is the longest sequence to be priced; None: the
    engine's, or else the model's context. With expert parallelism (an engine setting)
    experts lie on the accelerators of ``engines`` data-parallel engines, and the busiest one serves
    ``expert_load_imbalance`` times the mean; ``exchange`` joins them (None: the link of a
    tensor-parallel group). ``stage`` prices one stage of a pipeline. Raises
    :class:`~llm_inference_simulator.errors.ConfigError` for what cannot be priced.
    """

    name = "roofline"
    _step_factor = 1.0
    """How many times as long everything takes as its rates say."""

    def __init__(
        self,
        model: ModelSpec | str,
        xpu: XpuSpec | str,
        tensor_parallel_size: int = 1,
        *,
        engine: EngineConfig | None = None,
        all_reduce: AllReduce = "auto",
        max_model_len: int | None = None,
        engines: int = 1,
        expert_load_imbalance: float = 1.0,
        exchange: ExchangeLink | None = None,
        stage: PipelineStage | None = None,
    ) -> None:
        self.model = load_model(model) if isinstance(model, str) else model
        self.xpu = load_xpu(xpu) if isinstance(xpu, str) else xpu
        self.tensor_parallel_size = tensor_parallel_size
        self.engine = engine or EngineConfig()
        check_tensor_parallel_size(
            self.model, tensor_parallel_size, whole_experts=self.engine.enable_expert_parallel
        )
        self.formats: WeightFormats = weight_formats(self.model, self.xpu, self.engine)
        self.composition: Composition = compose(
            self.model,
            self.engine,
            self.formats,
            tensor_parallel_size,
            max_model_len=max_model_len
            or self.engine.max_model_len
            or self.model.max_position_embeddings,
            expert_parallel=self.engine.enable_expert_parallel,
            engines=engines,
            expert_load_imbalance=expert_load_imbalance,
            stage=stage,
        )
        self.attention_window = self.composition.attention_window
        self.exchange = exchange
        self.hardware: RooflineHardware = self._with_exchange(self._hardware(all_reduce))
        self.warnings = (*self.formats.warnings, *group_warnings(self.xpu, tensor_parallel_size))
        self.peak_flops = self.xpu.peak_flops(self.formats.compute_dtype)
        self.peak_bandwidth = self.xpu.memory_bytes_per_s
        self._core = self._compile()

    def _compile(self) -> CostModel:
        return CostModel.roofline(self.composition, self.hardware)

    def require_length(self, max_model_len: int) -> None:
        """Raise :class:`ConfigError` where sequences of ``max_model_len`` would be mispriced."""
        if attention_window(self.model, max_model_len) != self.attention_window:
            raise ConfigError(
                "performance_model was built for other lengths than max_model_len="
                f"{max_model_len}, which changes what {self.model.name!r}'s layers see: build it "
                "with that max_model_len"
            )

    @property
    def description(self) -> str:  # type: ignore[override]
        """One line: what the times come from."""
        return (
            "analytic, not calibrated: "
            f"{self.xpu.compute_efficiency_of(self.formats.compute_dtype):.0%} of dense peak "
            "FLOPS, "
            f"{self.xpu.memory_efficiency:.0%} of peak bandwidth"
        )

    def _hardware(self, all_reduce: AllReduce) -> RooflineHardware:
        xpu = self.xpu
        rates = PhaseRates(
            linear_flops=achievable_flops(xpu, self.formats.compute_dtype),
            attention_flops=achievable_flops(xpu, "bfloat16"),
            memory_bandwidth=achievable_bandwidth(xpu),
            step_overhead_s=xpu.step_overhead_us / 1e6,
        )
        return RooflineHardware(
            prefill=rates,
            decode=rates,
            kernel_latency_s=xpu.kernel_latency_us / 1e6,
            sequence_overhead_s=0.0,
            link_bandwidth=group_bandwidth(xpu, self.tensor_parallel_size) * xpu.link_efficiency,
            link_latency_s=xpu.link_latency_us / 1e6,
            all_reduce=all_reduce,
        )

    def _with_exchange(self, hardware: RooflineHardware) -> RooflineHardware:
        if self.exchange is None:
            return hardware
        return replace(
            hardware,
            exchange_bandwidth=self.exchange.bytes_per_s / self._step_factor,
            exchange_latency_s=self.exchange.latency_s * self._step_factor,
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
        return self.breakdown_step(prefill_step(batch_size, seq_length, self.attention_window))

    def breakdown_decode(self, batch_size: int, kv_cache_length: int) -> dict[str, OperationCost]:
        """Components of :meth:`estimate_decode_time`."""
        return self.breakdown_step(decode_step(batch_size, kv_cache_length, self.attention_window))
