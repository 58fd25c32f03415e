"""From a configuration to the performance model that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.shipped import (
    open_calibration,
    shipped_calibration,
    shipped_names,
)
from llm_inference_simulator.catalog import ModelSpec, XpuSpec, load_xpu
from llm_inference_simulator.catalog.pipeline import PipelineStage
from llm_inference_simulator.config import EngineConfig, PerformanceModelConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.base import BasePerformanceModel
from llm_inference_simulator.performance_models.hardware import ExchangeLink
from llm_inference_simulator.performance_models.op_table import OpTablePerformanceModel
from llm_inference_simulator.performance_models.roofline import RooflinePerformanceModel

if TYPE_CHECKING:
    from llm_inference_simulator.calibration import CalibrationFile

    Calibration = CalibrationFile | KernelCalibration
    FindCalibration = Callable[[PerformanceModelConfig, XpuSpec], Calibration | None]

PRICED_ENGINE_FIELDS = frozenset(
    {
        "dtype",
        "quantization",
        "kv_cache_dtype",
        "max_num_batched_tokens",
        "max_model_len",
        "enable_expert_parallel",
        "generation_config",
    }
)
"""Engine settings that the prices of ``roofline`` and ``op_table`` depend on; the others are about
scheduling. (What ``vllm_roofline`` warns of depends on more.)"""


def create_performance_model(
    performance: PerformanceModelConfig,
    model: ModelSpec | str,
    xpu: XpuSpec | str,
    tensor_parallel_size: int = 1,
    engine: EngineConfig | None = None,
    *,
    max_model_len: int | None = None,
    engines: int = 1,
    exchange: ExchangeLink | None = None,
    stage: PipelineStage | None = None,
    find_calibration: FindCalibration | None = None,
) -> BasePerformanceModel:
    """Build the performance model that ``performance`` names for a model on an accelerator.

    ``max_model_len`` is the resolved one, where it is known (None: the engine's, or the model's
    context); ``engines`` data-parallel engines share the experts under expert parallelism, and
    ``exchange`` joins them. ``stage`` prices one stage of a pipeline, which ``vllm_roofline``
    cannot. ``find_calibration`` stands in for :func:`find_calibration_of`, where the files have
    been read already. Raises :class:`~llm_inference_simulator.errors.ConfigError` and
    :class:`~llm_inference_simulator.errors.CalibrationError`.
    """
    xpu = load_xpu(xpu) if isinstance(xpu, str) else xpu
    calibration = (find_calibration or find_calibration_of)(performance, xpu)
    rates = None if isinstance(calibration, KernelCalibration) else calibration
    kind = performance.performance_model
    if kind == "vllm_roofline" and isinstance(calibration, KernelCalibration):
        raise ConfigError(
            f"performance_model=vllm_roofline needs effective rates, but calibration_data="
            f"{calibration.source} holds kernel tables: use performance_model=op_table, or derive "
            "the rates of your model from them (the command 'calibrate' with --from-op-tables and "
            "--model)"
        )
    if kind == "op_table" and rates is not None:
        raise ConfigError(
            f"performance_model=op_table needs kernel tables, but calibration_data="
            f"{performance.calibration_data} holds effective rates: use "
            "performance_model=vllm_roofline"
        )
    if stage is not None and rates is not None:
        raise ConfigError(
            f"pipeline_parallel_size={stage.count}: the rates of performance_model=vllm_roofline "
            "were fitted to whole steps, whose overheads cannot be divided into stages; use "
            "performance_model=roofline or op_table"
        )
    common = {
        "engine": engine,
        "all_reduce": performance.all_reduce,
        "max_model_len": max_model_len,
        "engines": engines,
        "exchange": exchange,
        "expert_load_imbalance": performance.expert_load_imbalance,
    }
    if calibration is None:
        return RooflinePerformanceModel(model, xpu, tensor_parallel_size, stage=stage, **common)  # type: ignore[arg-type]
    if isinstance(calibration, KernelCalibration):
        return OpTablePerformanceModel(
            model,
            xpu,
            tensor_parallel_size,
            calibration=calibration,
            expert_distribution=performance.expert_distribution,
            stage=stage,
            **common,  # type: ignore[arg-type]
        )
    assert performance.calibration_data is not None
    from llm_inference_simulator.performance_models.vllm_roofline import VLLMRooflineModel

    return VLLMRooflineModel(
        model,
        xpu,
        tensor_parallel_size,
        calibration=performance.calibration_data,
        **common,  # type: ignore[arg-type]
    )


def find_calibration_of(performance: PerformanceModelConfig, xpu: XpuSpec) -> Calibration | None:
    """Calibration that a run uses: the given one, else the accelerator's shipped one, if any."""
    if performance.calibration_data is not None:
        return open_calibration(performance.calibration_data)
    if performance.performance_model == "roofline":
        return None
    if performance.performance_model == "vllm_roofline":
        raise ConfigError(
            "performance_model=vllm_roofline needs calibration_data: give a calibration file (the "
            "command 'calibrate' makes one), or use performance_model=roofline"
        )
    if shipped_calibration(xpu.name) is not None:
        return open_calibration(xpu.name)
    if performance.performance_model == "op_table":
        raise ConfigError(
            f"performance_model=op_table needs kernel tables, and none come along for xpu="
            f"{xpu.name}: give calibration_data (shipped: {', '.join(shipped_names())}), or use "
            "performance_model=roofline"
        )
    return None
