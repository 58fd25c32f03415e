"""From a configuration to the performance model that it names."""

from __future__ import annotations

from llm_inference_simulator.catalog import ModelSpec, XpuSpec
from llm_inference_simulator.config import EngineConfig, PerformanceModelConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.base import BasePerformanceModel
from llm_inference_simulator.performance_models.roofline import RooflinePerformanceModel
from llm_inference_simulator.performance_models.vllm_roofline import VLLMRooflineModel


def create_performance_model(
    performance: PerformanceModelConfig,
    model: ModelSpec | str,
    xpu: XpuSpec | str,
    tensor_parallel_size: int = 1,
    engine: EngineConfig | None = None,
    *,
    max_model_len: int | None = None,
) -> BasePerformanceModel:
    """Build the performance model that ``performance`` names for a model on an accelerator.

    ``max_model_len`` is the resolved one, where it is known (None: the engine's, or the model's
    context). Raises :class:`~llm_inference_simulator.errors.ConfigError` and
    :class:`~llm_inference_simulator.errors.CalibrationError`.
    """
    if performance.resolved_model == "roofline":
        return RooflinePerformanceModel(
            model,
            xpu,
            tensor_parallel_size,
            engine=engine,
            all_reduce=performance.all_reduce,
            max_model_len=max_model_len,
        )
    if performance.calibration_data is None:
        raise ConfigError("performance_model=vllm_roofline needs calibration_data")
    return VLLMRooflineModel(
        model,
        xpu,
        tensor_parallel_size,
        calibration=performance.calibration_data,
        engine=engine,
        all_reduce=performance.all_reduce,
        max_model_len=max_model_len,
    )
