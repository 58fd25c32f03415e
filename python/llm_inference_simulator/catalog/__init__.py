"""Catalogues of models and accelerators."""

from llm_inference_simulator.catalog.model_spec import ModelSpec, QuantizationSpec
from llm_inference_simulator.catalog.models import (
    ModelEntry,
    canonical_model_name,
    list_models,
    load_model,
)
from llm_inference_simulator.catalog.xpu_spec import ComputeDtype, XpuSpec
from llm_inference_simulator.catalog.xpus import canonical_xpu_name, list_xpus, load_xpu

__all__ = [
    "ComputeDtype",
    "ModelEntry",
    "ModelSpec",
    "QuantizationSpec",
    "XpuSpec",
    "canonical_model_name",
    "canonical_xpu_name",
    "list_models",
    "list_xpus",
    "load_model",
    "load_xpu",
]
