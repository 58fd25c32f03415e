"""Multi-head latent attention (DeepSeek): absorbed in decoding, expanded in prompts."""

from __future__ import annotations

from collections.abc import Iterator

from llm_inference_simulator.capacity import DTYPE_BYTES
from llm_inference_simulator.catalog.model_spec import MlaSpec
from llm_inference_simulator.performance_models.operations import (
    LatentAttention,
    Layout,
    Operation,
)

MODULE = "latent_attention"
"""What the projections and small kernels of a measured module are part of."""


def latent_attention(layout: Layout, mla: MlaSpec) -> Iterator[Operation]:
    """DeepSeek's attention: absorbed where decoding, expanded to full heads in prompts."""
    model, layers = layout.model, layout.model.num_layers
    heads = model.num_attention_heads / layout.ranks
    key = mla.qk_nope_head_dim + mla.qk_rope_head_dim
    latent = mla.kv_lora_rank + mla.qk_rope_head_dim
    sparse = mla.index_top_k > 0
    windowed = sparse and layout.window is not None
    decode_keys = "decode_window_tokens" if windowed else "decode_context_tokens"
    pairs = "prefill_window_pairs" if windowed else "prefill_attention_pairs"
    sizes = (
        model.hidden_size,
        mla.q_lora_rank or 0,
        mla.kv_lora_rank,
        mla.qk_nope_head_dim,
        mla.qk_rope_head_dim,
        mla.v_head_dim,
    )
    down = latent + (mla.q_lora_rank or 0)
    yield layout.projection(
        "qkv_down_projection", "attention", layers, (model.hidden_size, down), module=MODULE
    )
    query_input = mla.q_lora_rank or model.hidden_size
    yield layout.projection(
        "query_projection", "attention", layers, (query_input, heads * key), module=MODULE
    )
    yield layout.elementwise(
        "rotary_embedding",
        layers,
        3 * (heads + 1) * mla.qk_rope_head_dim,
        2 * (heads + 1) * mla.qk_rope_head_dim,
        module=MODULE,
    )
    yield Operation(
        name="kv_cache_write",
        repeat=layers,
        bytes=(("tokens", latent * (DTYPE_BYTES + layout.kv_bytes)),),
        module=MODULE,
    )
    if mla.index_num_heads and mla.q_lora_rank is not None:
        yield from _indexer(layout, mla)
    expanded = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    weight = layout.formats.of("attention")
    yield Operation(
        # Keys and values of every token in reach, cached ones included, from their latents.
        name="latent_expansion",
        runs="prefill",
        kind=weight.kind,
        repeat=layers,
        operations=(("prefill_context_tokens", 2.0 * mla.kv_lora_rank * expanded),),
        bytes=(
            ("one", mla.kv_lora_rank * expanded * weight.bytes_per_weight),
            (
                "prefill_context_tokens",
                latent * layout.kv_bytes + expanded * DTYPE_BYTES,
            ),
        ),
        module=MODULE,
    )
    yield Operation(
        name="attention_prefill",
        runs="prefill",
        repeat=layers,
        operations=((pairs, 2.0 * heads * (key + mla.v_head_dim)),),
        bytes=(
            ("prefill_tokens", heads * (key + mla.v_head_dim) * DTYPE_BYTES),
            ("prefill_context_tokens", heads * (key + mla.v_head_dim) * DTYPE_BYTES),
        ),
        shape=LatentAttention(heads, weight.format, "prefill", sizes, sparse),
    )
    absorbed = heads * mla.kv_lora_rank
    for name, width in (
        ("query_absorption", mla.qk_nope_head_dim),
        ("value_expansion", mla.v_head_dim),
    ):
        yield Operation(
            name=name,
            runs="decode",
            repeat=layers,
            operations=(("decode_seqs", 2.0 * absorbed * width),),
            bytes=(
                ("one", absorbed * width * DTYPE_BYTES),
                ("decode_seqs", (absorbed + heads * width) * DTYPE_BYTES),
            ),
            module=MODULE,
        )
    yield Operation(
        # All heads read one latent cache, which tensor parallelism does not divide.
        name="attention_decode",
        runs="decode",
        repeat=layers,
        operations=((decode_keys, 2.0 * heads * (latent + mla.kv_lora_rank)),),
        bytes=(
            ("decode_seqs", heads * (latent + mla.kv_lora_rank) * DTYPE_BYTES),
            (decode_keys, float(latent * layout.kv_bytes)),
        ),
        shape=LatentAttention(heads, weight.format, "decode", sizes, sparse),
    )
    yield layout.projection(
        "output_projection",
        "attention",
        layers,
        (heads * mla.v_head_dim, model.hidden_size),
        module=MODULE,
    )


def _indexer(layout: Layout, mla: MlaSpec) -> Iterator[Operation]:
    """Sparse attention's choice of keys: FP8 scores of every key in reach, on every rank."""
    layers, width = layout.model.num_layers, mla.index_num_heads * mla.index_head_dim
    yield layout.projection("indexer_projection", "indexer", layers, (mla.q_lora_rank or 0, width))
    work = 2.0 * width
    yield Operation(
        name="indexer_scores_prefill",
        runs="prefill",
        repeat=layers,
        operations=(("prefill_attention_pairs", work),),
        bytes=(("prefill_context_tokens", float(mla.index_head_dim)),),
    )
    yield Operation(
        name="indexer_scores_decode",
        runs="decode",
        repeat=layers,
        operations=(("decode_context_tokens", work),),
        bytes=(("decode_context_tokens", float(mla.index_head_dim)),),
    )
