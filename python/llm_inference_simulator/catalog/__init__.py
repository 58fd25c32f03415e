"""Catalogues of models and accelerators."""

from llm_inference_simulator.catalog.model_spec import ModelSpec, QuantizationSpec
from llm_inference_simulator.catalog.models import ModelEntry, list_models, load_model
from llm_inference_simulator.catalog.xpu_spec import ComputeDtype, XpuSpec
from llm_inference_simulator.catalog.xpus import list_xpus, load_xpu

__all__ = [
    "ComputeDtype",
    "ModelEntry",
    "ModelSpec",
    "QuantizationSpec",
    "XpuSpec",
    "list_models",
    "list_xpus",
    "load_model",
    "load_xpu",
]
