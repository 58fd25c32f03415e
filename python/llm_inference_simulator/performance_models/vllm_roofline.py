"""The calibrated roofline: rates that were measured, prefill and decode apart."""

from __future__ import annotations

from pathlib import Path

from llm_inference_simulator.calibration import (
    CalibrationFile,
    RooflineParameters,
    load_calibration,
)
from llm_inference_simulator.calibration.coverage import beyond_range
from llm_inference_simulator.calibration.parameters import CalibratedRange
from llm_inference_simulator.capacity import resolve_quantization
from llm_inference_simulator.catalog import (
    ModelSpec,
    XpuSpec,
    canonical_model_name,
    canonical_xpu_name,
)
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models.hardware import (
    ExchangeLink,
    PhaseRates,
    RooflineHardware,
    group_bandwidth,
)
from llm_inference_simulator.performance_models.roofline import (
    AllReduce,
    RooflinePerformanceModel,
)
from llm_inference_simulator.performance_models.weight_formats import activation_dtype


class VLLMRooflineModel(RooflinePerformanceModel):
    """The roofline of :class:`RooflinePerformanceModel` with effective rates from measurements.

    ``calibration`` is the path of a file, its content
    (:class:`~llm_inference_simulator.calibration.CalibrationFile`) or the parameters alone. What
    a kernel loses to its launch is part of the measured rates and overheads, so no kernel latency
    is added; the link's constants stay the catalogue's.
    """

    name = "vllm_roofline"

    def __init__(
        self,
        model: ModelSpec | str,
        xpu: XpuSpec | str,
        tensor_parallel_size: int = 1,
        *,
        calibration: CalibrationFile | RooflineParameters | str | Path,
        engine: EngineConfig | None = None,
        all_reduce: AllReduce = "auto",
        max_model_len: int | None = None,
        engines: int = 1,
        expert_load_imbalance: float = 1.0,
        exchange: ExchangeLink | None = None,
    ) -> None:
        self._measured_on: dict[str, str] = {}
        self._step_factor = 1.0
        self._range: CalibratedRange | None = None
        self._source: str | None = None
        if isinstance(calibration, RooflineParameters):
            self.parameters = calibration
        elif isinstance(calibration, CalibrationFile):
            self._adopt(calibration, "given calibration")
        else:
            self._read(Path(calibration))
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
        )
        if self._source is not None:
            engine = engine or EngineConfig()
            found = (
                *self._mismatches(self._source, engine),
                *self._extrapolations(self._source, engine, max_model_len),
            )
            self.warnings = (*self.warnings, *found)

    def _read(self, path: Path) -> None:
        calibration, self.calibration_sha256 = load_calibration(path)
        self.calibration_file = str(path)
        self._adopt(calibration, f"calibration {path}")

    def _adopt(self, calibration: CalibrationFile, source: str) -> None:
        self._source = source
        self.parameters = calibration.roofline_params
        self.front_end = calibration.front_end
        self._step_factor = calibration.server_step_factor
        self._range = calibration.calibrated_range
        measured = {
            "model": calibration.model and canonical_model_name(calibration.model),
            "xpu": calibration.xpu and canonical_xpu_name(calibration.xpu),
            "tensor_parallel_size": calibration.tensor_parallel_size,
            "dtype": calibration.dtype,
            "quantization": calibration.quantization,
        }
        self._measured_on = {
            field: str(value) for field, value in measured.items() if value is not None
        }

    def _mismatches(self, source: str, engine: EngineConfig) -> tuple[str, ...]:
        """Warn where the measurements were of something else; rates of another xPU are an error."""
        quantization = resolve_quantization(self.model, engine)
        own = {
            "model": canonical_model_name(self.model.name),
            "xpu": canonical_xpu_name(self.xpu.name),
            "tensor_parallel_size": str(self.tensor_parallel_size),
            "dtype": activation_dtype(self.model, engine),
            "quantization": "none" if quantization is None else quantization.format,
        }
        warnings = []
        for field, measured in self._measured_on.items():
            if measured == own[field]:
                continue
            if field == "xpu":
                raise CalibrationError(
                    f"{source} was measured on xpu={measured}, not on "
                    f"{own[field]}: use a calibration of this accelerator, or the roofline model"
                )
            warnings.append(
                f"{source} was measured with {field}={measured}, this run has {field}={own[field]}"
            )
        if quantization is not None and "quantization" not in self._measured_on:
            warnings.append(
                f"{source} does not say which quantization was measured, this run has "
                f"quantization={quantization.format}"
            )
        return tuple(warnings)

    def _extrapolations(
        self, source: str, engine: EngineConfig, max_model_len: int | None
    ) -> tuple[str, ...]:
        """Warn where the engine may run steps that were not measured."""
        longest = max_model_len or engine.max_model_len or self.model.max_position_embeddings
        beyond = beyond_range(
            self._range,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=min(engine.max_num_seqs, engine.max_batch_size or engine.max_num_seqs),
            max_model_len=longest,
        )
        return () if beyond is None else (f"{source}: {beyond}",)

    @property
    def description(self) -> str:  # type: ignore[override]
        """One line: what the times come from."""
        return f"calibrated: {self.calibration_file or 'given parameters'}"

    def _hardware(self, all_reduce: AllReduce) -> RooflineHardware:
        # The measured rates are those of the measured format.
        measured, slower = self.parameters, self._step_factor
        return RooflineHardware(
            prefill=_rates(
                measured.prefill_effective_tflops,
                measured.prefill_attention_effective_tflops,
                measured.prefill_effective_bandwidth_gbps,
                measured.prefill_step_overhead_us,
                slower,
            ),
            decode=_rates(
                measured.decode_effective_tflops,
                measured.decode_attention_effective_tflops,
                measured.decode_effective_bandwidth_gbps,
                measured.decode_step_overhead_us,
                slower,
            ),
            kernel_latency_s=0.0,
            sequence_overhead_s=slower * measured.sequence_overhead_us / 1e6,
            link_bandwidth=group_bandwidth(self.xpu, self.tensor_parallel_size)
            * self.xpu.link_efficiency
            / slower,
            link_latency_s=slower * self.xpu.link_latency_us / 1e6,
            all_reduce=all_reduce,
        )


def _rates(
    tflops: float,
    attention_tflops: float | None,
    bandwidth_gbps: float,
    step_overhead_us: float,
    slower: float,
) -> PhaseRates:
    """One phase's rates per second, every step so many times ``slower`` than measured."""
    attention = tflops if attention_tflops is None else attention_tflops
    return PhaseRates(
        linear_flops=tflops * 1e12 / slower,
        attention_flops=attention * 1e12 / slower,
        memory_bandwidth=bandwidth_gbps * 1e9 / slower,
        step_overhead_s=slower * step_overhead_us / 1e6,
    )
