"""What each architecture fixes in its code rather than in its config.json.

The values are those of the model definitions and configuration classes in Hugging Face
transformers. An architecture that is not listed is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Windows = Literal["all", "qwen", "every_second", "every_sixth", "listed", "chunked"]
Experts = Literal["none", "every_layer", "qwen", "deepseek", "llama4", "gemma4"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Traits of an architecture; None for a bias means that the file's key decides."""

    tied: bool = False
    """Default of tie_word_embeddings."""
    gated: bool = True
    norms_per_layer: int = 2
    norm_bias: bool = False
    qkv_bias: bool | None = None
    output_bias: bool | None = None
    """Attention's output projection; None: as ``attention_bias``."""
    mlp_bias: bool | None = None
    lm_head_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"
    sinks: bool = False
    position_offset: int | None = None
    """Learned positions: rows beyond max_position_embeddings; None: rotary positions."""
    windows: Windows = "all"
    """Which layers ``sliding_window`` applies to, where ``layer_types`` does not say."""
    experts: Experts = "none"
    mla: bool = False
    required_kv_heads: bool = False
    """num_key_value_heads has no safe default (Gemma's classes have defaults of their own)."""
    defaults: Mapping[str, int] = field(default_factory=dict)
    """Values of keys that published files leave out because the class has them."""


_QWEN3 = Family(qkv_bias=None, qk_norm="head", windows="qwen")
_BIASED = Family(
    tied=True, gated=False, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True,
    position_offset=0,
)  # fmt: skip
_DEEPSEEK = Family(experts="deepseek", mla=True)

FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "ministral": Family(),
    "granite": Family(),
    "mixtral": Family(experts="every_layer"),
    "phimoe": Family(
        experts="every_layer", norm_bias=True, lm_head_bias=True
    ),
    "qwen2": Family(qkv_bias=True, output_bias=False, windows="qwen"),
    "qwen2_moe": Family(qkv_bias=True, output_bias=False, windows="qwen", experts="qwen"),
    "qwen3": _QWEN3,
    "qwen3_moe": Family(qk_norm="head", windows="qwen", experts="qwen"),
    "gemma": Family(tied=True, required_kv_heads=True),
    "gemma2": Family(
        tied=True, norms_per_layer=4, windows="every_second", required_kv_heads=True
    ),
    "gemma3_text": Family(
        tied=True, norms_per_layer=4, qk_norm="head", windows="every_sixth", required_kv_heads=True,
        defaults={
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262_208,
            "max_position_embeddings": 131_072,
            "sliding_window": 4096,
        },
    ),
    # Seven norms where a dense MLP and experts share a layer, four in a dense layer.
    "gemma4_text": Family(
        tied=True, norms_per_layer=7, qk_norm="head", windows="listed", experts="gemma4",
        required_kv_heads=True,
    ),
    "phi": Family(
        gated=False, norms_per_layer=1, norm_bias=True, qkv_bias=True, output_bias=True,
        mlp_bias=True, lm_head_bias=True,
    ),
    "phi3": Family(),
    "starcoder2": Family(
        tied=True, gated=False, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True
    ),
    "olmo2": Family(qk_norm="full"),
    "gpt_oss": Family(sinks=True, windows="listed", experts="every_layer"),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "llama4_text": Family(windows="chunked", experts="llama4"),
    "gpt2": _BIASED,
    "opt": Family(
        tied=True, gated=False, norm_bias=True, qkv_bias=True, output_bias=True, mlp_bias=True,
        position_offset=2,
    ),
}  # fmt: skip
"""By ``model_type`` of the (text) configuration."""

FOREIGN_KEYS = {
    "linear_attn_config": "linear attention",
    "linear_num_value_heads": "linear attention",
    "full_attention_interval": "linear attention",
    "mamba_num_heads": "Mamba layers",
    "mamba_d_state": "Mamba layers",
    "ssm_state_size": "Mamba layers",
    "ssm_cfg": "Mamba layers",
    "hybrid_override_pattern": "Mamba layers",
    "hybrid_layer_pattern": "layers with different heads",
    "compress_ratios": "compressed attention",
    "block_configs": "layers of different shapes",
}
"""Keys that announce layers which no listed architecture has."""
