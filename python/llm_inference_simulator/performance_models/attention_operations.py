"""Attention with grouped heads: full, sliding and chunked layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from llm_inference_simulator.capacity import DTYPE_BYTES
from llm_inference_simulator.catalog.model_spec import HeadSpec
from llm_inference_simulator.performance_models.operations import (
    Attention,
    Layout,
    Operation,
)


def attention(layout: Layout) -> Iterator[Operation]:
    """Operations of all attention layers, those with other heads or a window apart."""
    model = layout.model
    layers = Counter(
        (model.heads_of(layer), layout.window is not None and kind != "full")
        for layer, kind in enumerate(model.attention_kinds)
    )
    by_heads: Counter[HeadSpec] = Counter()
    for (heads, _), count in layers.items():
        by_heads[heads] += count
    for index, (heads, count) in enumerate(by_heads.items()):
        yield from _around_attention(layout, heads, count, "" if index == 0 else "_global")
    for (heads, windowed), count in layers.items():
        suffix = "_window" if windowed else ""
        yield from _attention_kernels(layout, heads, count, windowed=windowed, suffix=suffix)


def _around_attention(
    layout: Layout, heads: HeadSpec, layers: int, suffix: str
) -> Iterator[Operation]:
    hidden, width = layout.model.hidden_size, heads.head_dim
    queries, keys = layout.heads(heads)
    query, key = queries * width, keys * width
    projected = query + (1 if heads.key_is_value else 2) * key
    yield layout.projection("qkv_projection" + suffix, "attention", layers, (hidden, projected))
    if layout.model.qk_norm != "none":
        yield layout.elementwise("qk_norm" + suffix, layers, 4 * (query + key), 2 * (query + key))
    if not layout.model.learned_positions:
        yield layout.elementwise(
            "rotary_embedding" + suffix, layers, 3 * (query + key), 2 * (query + key)
        )
    yield Operation(
        name="kv_cache_write" + suffix,
        repeat=layers,
        bytes=(("tokens", 2 * key * DTYPE_BYTES + 2 * key * layout.kv_bytes),),
    )
    yield layout.projection("output_projection" + suffix, "attention", layers, (query, hidden))


def _attention_kernels(
    layout: Layout, heads: HeadSpec, layers: int, *, windowed: bool, suffix: str
) -> Iterator[Operation]:
    queries, keys = layout.heads(heads)
    query, cached = queries * heads.head_dim, 2 * keys * heads.head_dim * layout.kv_bytes
    # Models whose layers differ in heads: each kind of layer has a kernel of its own.
    if layout.model.global_heads is not None and heads == layout.model.global_heads:
        suffix = "_global"
    decode_keys = "decode_window_tokens" if windowed else "decode_context_tokens"
    yield Operation(
        name="attention_prefill" + suffix,
        runs="prefill",
        repeat=layers,
        operations=(
            (
                "prefill_window_pairs" if windowed else "prefill_attention_pairs",
                4.0 * query,
            ),
        ),
        bytes=(
            ("prefill_tokens", 2 * query * DTYPE_BYTES),
            ("prefill_window_tokens" if windowed else "prefill_context_tokens", cached),
        ),
        shape=_attention_shape(layout, heads, windowed, "prefill"),
    )
    yield Operation(
        name="attention_decode" + suffix,
        runs="decode",
        repeat=layers,
        operations=((decode_keys, 4.0 * query),),
        bytes=(("decode_seqs", 2 * query * DTYPE_BYTES), (decode_keys, cached)),
        shape=_attention_shape(layout, heads, windowed, "decode"),
    )


def _attention_shape(
    layout: Layout, heads: HeadSpec, windowed: bool, phase: Literal["prefill", "decode"]
) -> Attention:
    queries, keys = layout.heads(heads)
    window = layout.window[1] if windowed and layout.window is not None else 0
    return Attention(queries, keys, heads.head_dim, window, phase)
