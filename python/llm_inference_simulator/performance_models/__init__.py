"""Performance models: what a step of an engine costs."""

from typing import TYPE_CHECKING, Any

from llm_inference_simulator._core import OperationCost, StepShape
from llm_inference_simulator.performance_models.base import BasePerformanceModel
from llm_inference_simulator.performance_models.factory import create_performance_model
from llm_inference_simulator.performance_models.op_table import OpTablePerformanceModel
from llm_inference_simulator.performance_models.roofline import RooflinePerformanceModel

if TYPE_CHECKING:
    from llm_inference_simulator.performance_models.vllm_roofline import VLLMRooflineModel

PerformanceModel = BasePerformanceModel
"""The interface's earlier name."""

__all__ = [
    "BasePerformanceModel",
    "OpTablePerformanceModel",
    "OperationCost",
    "PerformanceModel",
    "RooflinePerformanceModel",
    "StepShape",
    "VLLMRooflineModel",
    "create_performance_model",
]


def __getattr__(name: str) -> Any:
    # Few runs need it: imported on first use, as the command line starts faster without.
    if name != "VLLMRooflineModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llm_inference_simulator.performance_models.vllm_roofline import VLLMRooflineModel

    return VLLMRooflineModel
