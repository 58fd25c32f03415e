"""Step times from kernels that were measured one by one."""

from __future__ import annotations

from pathlib import Path

from llm_inference_simulator._core import CostModel, OperationCost, StepShape
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.capacity import kv_dtype_bytes
from llm_inference_simulator.catalog import ModelSpec, XpuSpec
from llm_inference_simulator.catalog.pipeline import PipelineStage
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models.base import decode_step, prefill_step
from llm_inference_simulator.performance_models.hardware import ExchangeLink
from llm_inference_simulator.performance_models.kernel_terms import Term, TermBuilder
from llm_inference_simulator.performance_models.kernel_times import KernelTimes
from llm_inference_simulator.performance_models.roofline import (
    AllReduce,
    RooflinePerformanceModel,
)

EXTRAPOLATED_SHARE = 0.25
"""Share of a step's time from beyond the tables above which a run says so."""

_TYPICAL = ((32, 1024), (1, 1024))
"""Decode batch and context, and prompts and tokens, at which the share is taken."""


class OpTablePerformanceModel(RooflinePerformanceModel):
    """Sums the measured times of a model's kernels (docs/cost_model.md).

    ``calibration`` holds the kernel tables of the accelerator and the host's overheads. What the
    tables do not have is priced by the roofline at the accelerator's achievable rates;
    :meth:`breakdown_step` says of every component where its time comes from.
    """

    name = "op_table"

    def __init__(
        self,
        model: ModelSpec | str,
        xpu: XpuSpec | str,
        tensor_parallel_size: int = 1,
        *,
        calibration: KernelCalibration | str | Path,
        engine: EngineConfig | None = None,
        all_reduce: AllReduce = "auto",
        max_model_len: int | None = None,
        engines: int = 1,
        expert_load_imbalance: float = 1.0,
        exchange: ExchangeLink | None = None,
        stage: PipelineStage | None = None,
        expert_distribution: str = "power_law_1.2",
    ) -> None:
        if isinstance(calibration, KernelCalibration):
            self.calibration = calibration
        else:
            self.calibration = KernelCalibration.read(calibration)
        self.calibration_file = self.calibration.source
        self.calibration_sha256 = self.calibration.sha256
        self.front_end = self.calibration.front_end
        self._distribution = expert_distribution
        super().__init__(
            model,
            xpu,
            tensor_parallel_size,
            engine=engine,
            all_reduce=all_reduce,
            max_model_len=max_model_len,
            engines=engines,
            expert_load_imbalance=expert_load_imbalance,
            exchange=exchange,
            stage=stage,
        )
        self.calibration.require_xpu(self.xpu)
        self.warnings = (*self.warnings, *self._extrapolations())

    @property
    def description(self) -> str:  # type: ignore[override]
        """One line: what the times come from."""
        return f"measured kernels: {self.calibration.describe()}"

    def _compile(self) -> CostModel:
        builder = TermBuilder(
            composition=self.composition,
            times=KernelTimes(self.calibration.tables, self.xpu),
            hardware=self.hardware,
            exchange_was_measured=self.exchange is None or not self.exchange.crosses_nodes,
            overheads=self.calibration.overheads,
            kv_dtype="fp8" if kv_dtype_bytes(self.engine, self.model) == 1 else "bfloat16",
            distribution=self._distribution,
            largest_step=self.engine.max_num_batched_tokens,
            penalties=self.model.repetition_penalty != 1.0
            and self.engine.generation_config == "auto",
        )
        self.decode_terms: list[Term] = builder.terms(mixed=False)
        self.mixed_terms: list[Term] = builder.terms(mixed=True)
        return CostModel.table(self.composition, self.hardware, self.decode_terms, self.mixed_terms)

    def provenance_shares(self, step: StepShape) -> dict[str, float]:
        """Shares of a step's time by where they come from."""
        parts = self._core.breakdown(step)
        total = sum(part.seconds for part in parts)
        shares: dict[str, float] = {}
        for part in parts:
            shares[part.provenance] = shares.get(part.provenance, 0.0) + part.seconds / total
        return shares

    def _extrapolations(self) -> tuple[str, ...]:
        decode = decode_step(*_TYPICAL[0], self.attention_window)
        prompt = prefill_step(*_TYPICAL[1], self.attention_window)
        found = []
        for kind, step in (("decode", decode), ("prefill", prompt)):
            share = self.provenance_shares(step).get("extrapolated", 0.0)
            if share > EXTRAPOLATED_SHARE:
                parts: list[OperationCost] = sorted(
                    (p for p in self._core.breakdown(step) if p.provenance == "extrapolated"),
                    key=lambda part: -part.seconds,
                )
                names = ", ".join(part.name for part in parts[:3])
                found.append(
                    f"{share:.0%} of a typical {kind} step's time lies beyond the measured kernels "
                    f"({names}): expect larger errors"
                )
        return tuple(found)
