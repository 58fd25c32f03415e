"""The calibrated roofline: rates that were measured, prefill and decode apart."""

from __future__ import annotations

from pathlib import Path

from llm_inference_simulator.calibration import RooflineParameters, load_calibration
from llm_inference_simulator.catalog import ModelSpec, XpuSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models.core_roofline import (
    PhaseRates,
    RooflineHardware,
    WeightFormat,
    group_bandwidth,
)
from llm_inference_simulator.performance_models.roofline import (
    AllReduce,
    RooflinePerformanceModel,
)


class VLLMRooflineModel(RooflinePerformanceModel):
    """The roofline of :class:`RooflinePerformanceModel` with effective rates from measurements.

    ``calibration`` is a file (see :class:`~llm_inference_simulator.calibration.CalibrationFile`) or
    the parameters themselves. What a kernel loses to its launch is part of the measured rates and
    overheads, so no kernel latency is added; the link's constants stay the catalogue's.
    """

    name = "vllm_roofline"

    def __init__(
        self,
        model: ModelSpec | str,
        xpu: XpuSpec | str,
        tensor_parallel_size: int = 1,
        *,
        calibration: RooflineParameters | str | Path,
        engine: EngineConfig | None = None,
        all_reduce: AllReduce = "auto",
    ) -> None:
        self.calibration_source = "given parameters"
        self.calibration_sha256: str | None = None
        self._measured_on: tuple[tuple[str, str], ...] = ()
        if isinstance(calibration, RooflineParameters):
            self.parameters = calibration
        else:
            self._read(Path(calibration))
        super().__init__(model, xpu, tensor_parallel_size, engine=engine, all_reduce=all_reduce)
        self.warnings = (*self.warnings, *self._mismatches())

    def _read(self, path: Path) -> None:
        calibration, self.calibration_sha256 = load_calibration(path)
        self.calibration_source = str(path)
        self.parameters = calibration.roofline_params
        measured = {
            "model": calibration.model,
            "xpu": calibration.xpu,
            "tensor_parallel_size": calibration.tensor_parallel_size,
        }
        self._measured_on = tuple(
            (field, str(value)) for field, value in measured.items() if value is not None
        )

    def _mismatches(self) -> tuple[str, ...]:
        """Warn where the measurements were of something else; rates of another xPU are an error."""
        own = {
            "model": self.model.name,
            "xpu": self.xpu.name,
            "tensor_parallel_size": str(self.tensor_parallel_size),
        }
        warnings = []
        for field, measured in self._measured_on:
            if measured == own[field]:
                continue
            if field == "xpu":
                raise CalibrationError(
                    f"calibration {self.calibration_source} was measured on xpu={measured}, not on "
                    f"{own[field]}: use a calibration of this accelerator, or the roofline model"
                )
            warnings.append(
                f"calibration {self.calibration_source} was measured with {field}={measured}, "
                f"this run has {field}={own[field]}"
            )
        return tuple(warnings)

    @property
    def description(self) -> str:  # type: ignore[override]
        """One line: what the times come from."""
        return f"calibrated: {self.calibration_source}"

    def _hardware(self, weights: WeightFormat, all_reduce: AllReduce) -> RooflineHardware:
        del weights  # the measured rates are those of the measured format
        measured = self.parameters
        return RooflineHardware(
            prefill=_rates(
                measured.prefill_effective_tflops, measured.prefill_effective_bandwidth_gbps
            ),
            decode=_rates(
                measured.decode_effective_tflops, measured.decode_effective_bandwidth_gbps
            ),
            kernel_latency_s=0.0,
            step_overhead_s=measured.step_overhead_us / 1e6,
            sequence_overhead_s=measured.sequence_overhead_us / 1e6,
            link_bandwidth=group_bandwidth(self.xpu, self.tensor_parallel_size)
            * self.xpu.link_efficiency,
            link_latency_s=self.xpu.link_latency_us / 1e6,
            all_reduce=all_reduce,
        )


def _rates(tflops: float, bandwidth_gbps: float) -> PhaseRates:
    return PhaseRates(
        linear_flops=tflops * 1e12,
        attention_flops=tflops * 1e12,
        memory_bandwidth=bandwidth_gbps * 1e9,
    )
