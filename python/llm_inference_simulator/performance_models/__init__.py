"""Performance models: what a step of an engine costs."""

from llm_inference_simulator._core import OperationCost, StepShape
from llm_inference_simulator.performance_models.base import BasePerformanceModel
from llm_inference_simulator.performance_models.factory import create_performance_model
from llm_inference_simulator.performance_models.op_table import OpTablePerformanceModel
from llm_inference_simulator.performance_models.roofline import RooflinePerformanceModel
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
