"""What the simulator knows of a model: shapes, parameter counts, bytes of weights and cache.

A :class:`ModelSpec` describes the language model; of a vision tower it knows only what its memory
takes, and the extra layers of multi-token prediction are not part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.catalog.vision import VisionSpec
from llm_inference_simulator.catalog.weights import COMPONENTS, Weight, model_weights

AttentionKind = Literal["full", "sliding", "chunked"]
Dtype = Literal["bfloat16", "float16"]
QuantizedFormat = Literal["fp8", "int8", "int4", "mxfp4", "nvfp4"]

QUANTIZED_COMPONENTS = ("attention", "mlp", "experts", "shared_experts")
"""Linear layers that every format quantises; embedding, LM head, router and norms stay."""

SPARSE_FP8_LATENT_BYTES = 656
"""A token of DeepSeek's sparse attention in vLLM's ``fp8_ds_mla`` cache: 512 latent values in FP8,
four float32 scales, and 64 rotary values in 16 bits."""

INDEXER_SCALE_BYTES = 4
"""vLLM keeps one float32 scale per 128 FP8 values of the sparse-attention indexer's keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """Heads of grouped-query attention."""

    num_query_heads: int
    num_key_value_heads: int
    head_dim: int
    key_is_value: bool = False
    """Keys serve as values (Gemma 4's global layers): no value projection, yet both are cached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeSpec:
    """Mixture of experts."""

    num_experts: int
    top_k: int
    intermediate_size: int
    """Width of one routed expert."""
    shared_intermediate_size: int
    """Width of all shared experts together; 0 where there are none."""
    layers: tuple[bool, ...]
    """Which layers route to experts."""
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    """A learned gate scales the shared expert (Qwen2-MoE)."""
    dense_beside_experts: bool = False
    """A dense MLP runs beside the experts in the same layer (Gemma 4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MlaSpec:
    """Multi-head latent attention (DeepSeek-V2 and after)."""

    kv_lora_rank: int
    q_lora_rank: int | None
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_num_heads: int = 0
    """Heads of the sparse-attention indexer (DeepSeek-V3.2); 0: attention is not sparse."""
    index_head_dim: int = 0
    index_top_k: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationSpec:
    """How the weights are stored."""

    method: str
    """vLLM's or the file's own name for it."""
    format: QuantizedFormat
    bits: int
    weight_only: bool
    """Weights are widened before the multiplication, which runs at the 16-bit rate."""
    group_size: int | None = None
    """Weights that share a scale; None: a scale per tensor or channel, or a block (see below)."""
    overhead_bits: float = 0.0
    """Scales and zero points, in bits per weight."""
    block_width: int | None = None
    """Side of the square blocks of weights that share a scale (DeepSeek's FP8)."""
    fp8_kv_cache: bool = False
    """The checkpoint brings scales for an FP8 cache, which ``kv_cache_dtype=auto`` then uses."""
    components: tuple[str, ...] = QUANTIZED_COMPONENTS
    """Components that are quantised; all others stay in 16 bits."""

    def bytes_of(self, weight: Weight, dtype_bytes: int) -> float:
        """Bytes of ``weight``, which stays at ``dtype_bytes`` an element if it is not quantised."""
        if weight.quantizable and weight.component in self.components:
            return weight.elements * (self.bits + self.overhead_bits) / 8
        return float(weight.elements * dtype_bytes)


WEIGHT_FORMATS: Mapping[str, QuantizationSpec] = {
    # An FP8 scale per tensor and an INT8 scale per channel weigh nothing beside the weights.
    "fp8": QuantizationSpec(method="fp8", format="fp8", bits=8, weight_only=False),
    "int8": QuantizationSpec(method="int8", format="int8", bits=8, weight_only=False),
    # 128 weights share a 16-bit scale (AWQ, GPTQ); symmetric, so no zero points.
    "int4": QuantizationSpec(
        method="int4", format="int4", bits=4, weight_only=True, group_size=128, overhead_bits=0.125
    ),
}
"""What the engine option ``quantization`` stands for when the model is not quantised by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Shape of a decoder-only language model."""

    name: str
    source: str
    """Catalogue name or path that it was read from."""
    model_type: str
    """Hugging Face's name of the architecture."""
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    """Width of the dense MLP (of the dense layers, in a model that also has expert layers)."""
    gated_mlp: bool
    """Three matrices (gate, up, down) instead of two."""
    vocab_size: int
    tie_word_embeddings: bool
    max_position_embeddings: int
    """Context in tokens, after vLLM's rules for ``rope_scaling``."""
    dtype: Dtype
    """What vLLM's ``auto`` runs it in: a float32 checkpoint is narrowed to 16 bits."""
    attention_kinds: tuple[AttentionKind, ...]
    """One per layer."""
    window: int | None = None
    """Tokens that sliding and chunked layers see."""
    global_heads: HeadSpec | None = None
    """Heads of full-attention layers where they differ from the others'."""
    qkv_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    lm_head_bias: bool = False
    qk_norm: Literal["none", "head", "full"] = "none"
    """Learned norms of queries and keys: per head dimension, or across all heads."""
    attention_sinks: bool = False
    """One learned logit per query head (gpt-oss)."""
    norms_per_layer: int = 2
    norm_bias: bool = False
    final_norm: bool = True
    holds_embedding: bool = True
    """Off in a stage of a pipeline that neither embeds nor shares the matrix with its LM head."""
    holds_lm_head: bool = True
    """Off in all stages of a pipeline but the last."""
    learned_positions: int = 0
    """Rows of a learned position embedding (GPT-2, GPT-3, OPT)."""
    rotary_elements: int = 0
    """Cosines and sines of all positions, which vLLM computes when loading and keeps."""
    moe: MoeSpec | None = None
    mla: MlaSpec | None = None
    quantization: QuantizationSpec | None = None
    vision: VisionSpec | None = None
    unknown_vision: str | None = None
    """``model_type`` of a vision tower that is there but whose size is not known."""

    repetition_penalty: float = 1.0
    """What the checkpoint's sampling defaults ask for; 1: nothing. vLLM's server follows them."""

    def heads_of(self, layer: int) -> HeadSpec:
        """Attention heads of a layer (of no meaning where attention is latent)."""
        if self.global_heads is not None and self.attention_kinds[layer] == "full":
            return self.global_heads
        return HeadSpec(
            num_query_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
        )

    @property
    def windowed_layers(self) -> int:
        """Number of layers that see ``window`` tokens only."""
        return sum(kind != "full" for kind in self.attention_kinds)

    def parameters(self) -> dict[str, int]:
        """Parameters by component; a component that the model lacks is left out."""
        counts = dict.fromkeys(COMPONENTS, 0)
        for weight in model_weights(self):
            counts[weight.component] += weight.elements
        return {name: count for name, count in counts.items() if count}

    @property
    def parameter_count(self) -> int:
        """All parameters; tied embeddings count once."""
        return sum(self.parameters().values())

    @property
    def active_parameter_count(self) -> int:
        """Parameters that one token meets: all but the routed experts not chosen for it."""
        counts = self.parameters()
        idle = 0
        if self.moe is not None:
            experts = counts.get("experts", 0)
            idle = experts - experts * self.moe.top_k // self.moe.num_experts
        return sum(counts.values()) - idle

    def kv_bytes_per_token(self, kv_dtype_bytes: int = 2) -> int:
        """Bytes that one token occupies in the cache of the whole model, on one accelerator.

        Grouped-query attention: 2 · KV heads · head size a layer. Latent attention: kv_lora_rank +
        rope size a layer, once, and the indexer's FP8 keys where it is sparse. Sliding and chunked
        layers count in full: a token inside their window costs this; see
        :meth:`kv_bytes_per_sequence` for what a long sequence costs.
        """
        return sum(self.layer_kv_bytes(layer, kv_dtype_bytes) for layer in range(self.num_layers))

    def kv_bytes_per_sequence(self, context_tokens: int, kv_dtype_bytes: int = 2) -> int:
        """Least cache bytes of a sequence: sliding and chunked layers keep their window only."""
        total = 0
        for layer, kind in enumerate(self.attention_kinds):
            kept = context_tokens
            if kind != "full" and self.window is not None:
                kept = min(context_tokens, self.window)
            total += kept * self.layer_kv_bytes(layer, kv_dtype_bytes)
        return total

    def layer_kv_bytes(self, layer: int, kv_dtype_bytes: int) -> int:
        """Bytes of one token in one layer's cache, on one accelerator."""
        if self.mla is None:
            heads = self.heads_of(layer)
            return 2 * heads.num_key_value_heads * heads.head_dim * kv_dtype_bytes
        latent = (self.mla.kv_lora_rank + self.mla.qk_rope_head_dim) * kv_dtype_bytes
        if self.mla.index_top_k and kv_dtype_bytes == 1:
            latent = SPARSE_FP8_LATENT_BYTES
        scales = -(-self.mla.index_head_dim // 128) * INDEXER_SCALE_BYTES
        return latent + self.mla.index_head_dim + scales

    def weight_bytes(
        self, dtype_bytes: int = 2, quantization: QuantizationSpec | None = None
    ) -> int:
        """Bytes of all weights of the whole model.

        ``quantization`` None means the model's own (:attr:`quantization`), if it has one.
        """
        quantization = quantization or self.quantization
        return round(
            sum(weight_bytes(weight, dtype_bytes, quantization) for weight in model_weights(self))
        )


def weight_bytes(weight: Weight, dtype_bytes: int, quantization: QuantizationSpec | None) -> float:
    """Bytes of one weight, quantised or not."""
    if quantization is None:
        return float(weight.elements * dtype_bytes)
    return quantization.bytes_of(weight, dtype_bytes)
