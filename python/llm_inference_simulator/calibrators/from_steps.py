"""Calibrate from logs of engine steps."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration import CalibrationFile, RooflineParameters
from llm_inference_simulator.calibration.parameters import DataSource
from llm_inference_simulator.calibration.step_data import StepData, read_step_logs
from llm_inference_simulator.calibration.step_fit import BOOTSTRAP_SAMPLES, StepFit, fit_steps
from llm_inference_simulator.capacity import resolve_quantization
from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import VLLMRooflineModel
from llm_inference_simulator.performance_models.weight_formats import activation_dtype

_ANY_RATES = RooflineParameters(
    prefill_effective_tflops=1.0,
    prefill_effective_bandwidth_gbps=1.0,
    decode_effective_tflops=1.0,
    decode_effective_bandwidth_gbps=1.0,
)
"""Operations and bytes do not depend on rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCalibration:
    """A calibration and the fit behind it."""

    calibration: CalibrationFile
    fit: StepFit


def calibrate_from_steps(
    files: Sequence[Path],
    *,
    model: str,
    xpu: str,
    tensor_parallel_size: int = 1,
    engine: EngineConfig | None = None,
    warm_up_steps: int | None = None,
    bootstrap_samples: int = BOOTSTRAP_SAMPLES,
    progress: Callable[[str], None] = lambda _: None,
) -> StepCalibration:
    """Fit the roofline of ``model`` on ``xpu`` to step logs.

    ``engine`` gives the formats of weights and cache that were measured. Raises
    :class:`ConfigError` and :class:`CalibrationError`.
    """
    data = read_step_logs(files, warm_up_steps=warm_up_steps)
    return calibrate_from_step_data(
        data,
        model=model,
        xpu=xpu,
        tensor_parallel_size=tensor_parallel_size,
        engine=engine,
        bootstrap_samples=bootstrap_samples,
        progress=progress,
    )


def calibrate_from_step_data(
    data: StepData,
    *,
    model: str,
    xpu: str,
    tensor_parallel_size: int = 1,
    engine: EngineConfig | None = None,
    indistinct: Sequence[str] = (),
    bootstrap_samples: int = BOOTSTRAP_SAMPLES,
    progress: Callable[[str], None] = lambda _: None,
) -> StepCalibration:
    """The same for steps that are in memory; ``indistinct`` as in :func:`fit_steps`."""
    engine = engine or EngineConfig()
    pricing = pricing_model(data, model, xpu, tensor_parallel_size, engine=engine)
    spec, device = pricing.model, pricing.xpu
    fit = fit_steps(
        data.steps,
        pricing.breakdown_step,
        window=pricing.attention_window,
        indistinct=indistinct,
        bootstrap_samples=bootstrap_samples,
        progress=progress,
    )
    quantization = resolve_quantization(spec, engine)
    # The roofline has refused formats that a calibration cannot name.
    weights: Any = "none" if quantization is None else quantization.format
    calibration = CalibrationFile(
        model=spec.name,
        xpu=device.name,
        dtype=activation_dtype(spec, engine),
        quantization=weights,
        tensor_parallel_size=tensor_parallel_size,
        roofline_params=fit.parameters,
        confidence=fit.confidence,
        intervals=fit.intervals,
        assumed=fit.assumed,
        knees_flop_per_byte=fit.knees_flop_per_byte,
        calibrated_range=fit.calibrated_range,
        held_out_error=fit.held_out_error,
        engine=data.engine,
        environment=data.environment,
        data=data.sources,
        provenance={
            "source": "step logs",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "data_sha256": combined_sha256(data.sources),
            "steps": len(fit.steps),
            "dropped_warm_up_steps": data.dropped_warm_up,
            "outlier_steps": int(fit.outliers.sum()),
        },
    )
    return StepCalibration(calibration=calibration, fit=fit)


def pricing_model(
    data: StepData, model: str, xpu: str, tensor_parallel_size: int, *, engine: EngineConfig
) -> VLLMRooflineModel:
    """A roofline of the measured engine, for what its steps compute and move."""
    longest = max(step.longest_context for step in data.steps)
    return VLLMRooflineModel(
        load_model(model),
        load_xpu(xpu),
        tensor_parallel_size,
        calibration=_ANY_RATES,
        engine=engine,
        max_model_len=data.engine.max_model_len or longest,
    )


def combined_sha256(sources: Sequence[DataSource]) -> str:
    """One hash for all files of a calibration, in their order."""
    return hashlib.sha256("".join(source.sha256 for source in sources).encode()).hexdigest()
