"""What the core's roofline needs to know of a model and an accelerator, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.catalog import ModelSpec, XpuSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError

BYTES_PER_16_BIT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineModelShape:
    """A dense transformer in plain numbers (docs/cost_model.md); the core reads these attributes."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    gated_mlp: bool
    vocab_size: int
    tensor_parallel_size: int
    weight_bytes: float
    embedding_bytes: float
    activation_bytes: float
    kv_cache_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRates:
    """Achievable rates of one phase, per second and accelerator."""

    linear_flops: float
    attention_flops: float
    memory_bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineHardware:
    """An accelerator as the roofline sees it: achievable rates and constants, in seconds."""

    prefill: PhaseRates
    decode: PhaseRates
    kernel_latency_s: float
    step_overhead_s: float
    sequence_overhead_s: float
    link_bandwidth: float
    link_latency_s: float
    all_reduce: Literal["ring", "tree", "auto"] = "auto"
