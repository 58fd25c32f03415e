"""How vLLM cuts the cache of a model into blocks.

Rules of ``kv_cache_utils.py`` and ``kv_cache_interface.py`` in vLLM 0.15.1. A model whose layers
are alike has one group: a block holds ``block_size`` tokens of every layer. A hybrid one (Gemma,
gpt-oss, Llama 4) is cut into groups of equally many layers of one kind, which draw on one pool of
blocks that all have the same bytes; a sequence has a block table for each group, and a windowed
group gives back what its window has left behind. vLLM turns this off, and keeps every token in all
layers, with a KV connector, with KV events, with ``--disable-hybrid-kv-cache-manager``, and for
chunked attention with EAGLE: none of these is simulated.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from llm_inference_simulator.capacity.memory import DTYPE_BYTES
from llm_inference_simulator.catalog.model_spec import AttentionKind, ModelSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError

PADDING_RATIO = 1.25
"""Groups take the more numerous kind's layers as their size while it has less than this many times
the other's, and are padded; else the less numerous kind's."""


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that share a block table."""

    kind: AttentionKind
    block_size: int
    """Tokens of a block."""
    window: int | None = None
    """Tokens whose blocks it keeps; None: all."""


@dataclass(frozen=True, slots=True)
class KvLayout:
    """The pool of blocks of one accelerator."""

    groups: tuple[KvGroup, ...]
    block_bytes: int
    """Of one block: the layers of one group."""
    block_size: int
    """Tokens of a block as the engine counts them, ``EngineConfig.block_size``."""
    step_tokens: int
    """``max_num_batched_tokens``: a window's group holds those of a step beside the window."""

    def blocks_of(self, tokens: int) -> int:
        """Most blocks, over all groups, that a sequence of ``tokens`` tokens ever takes."""
        return sum(self._blocks_of(group, tokens) for group in self.groups)

    def _blocks_of(self, group: KvGroup, tokens: int) -> int:
        if group.window is None:
            return -(-tokens // group.block_size)
        if group.kind == "chunked":
            return -(-min(group.window + self.step_tokens, tokens) // group.block_size)
        # One more, since the window need not begin where a block does.
        return -(-min(group.window - 1 + self.step_tokens, tokens) // group.block_size) + 1

    def blocks_per_token_block(self, tokens: int) -> float:
        """Blocks of the pool that ``block_size`` tokens of such a sequence take on average.

        1 where there is one group of full attention. In a hybrid model it falls with the length,
        from the number of groups (nothing has left a window) to that of the groups of full
        attention.
        """
        return self.blocks_of(tokens) / -(-tokens // self.block_size)


def kv_dtype_bytes(engine: EngineConfig, model: ModelSpec | None = None) -> int:
    """Bytes of a cached element.

    ``auto`` is FP8 where the checkpoint brings scales for it (compressed-tensors'
    ``kv_cache_scheme``, ModelOpt's ``kv_cache_quant_algo``), else the activations' type.
    """
    if engine.kv_cache_dtype == "auto":
        quantization = None if model is None else model.quantization
        return 1 if quantization is not None and quantization.fp8_kv_cache else DTYPE_BYTES
    return 1 if engine.kv_cache_dtype == "fp8" else DTYPE_BYTES


def kv_bytes_per_token_per_rank(
    model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int
) -> int:
    """Bytes of a token in one accelerator's cache, in all layers.

    KV heads are divided over the group, and copied where it has more ranks than heads; the latent
    cache of MLA lies on every rank whole.
    """
    width = kv_dtype_bytes(engine, model)
    return sum(
        _layer_bytes(model, layer, width, tensor_parallel_size) for layer in range(model.num_layers)
    )


def kv_layout(model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int) -> KvLayout:
    """Cut the model's layers into groups.

    Raises :class:`ConfigError` where the layers' pages do not divide each other, as vLLM does.
    """
    size, width = engine.block_size, kv_dtype_bytes(engine, model)
    layers: dict[tuple[AttentionKind, int], int] = defaultdict(int)
    for layer, kind in enumerate(model.attention_kinds):
        page = size * _layer_bytes(model, layer, width, tensor_parallel_size)
        layers[kind, page] += 1
    kinds = {kind for kind, _ in layers}
    if len(kinds) == 1:
        # Where all layers have windows vLLM gives back what has left them; the engine's blocks
        # cannot, and a pool scaled up for long sequences would not hold as many short ones.
        (kind,) = kinds
        block_bytes = sum(page * count for (_, page), count in layers.items())
        group = KvGroup(kind, size)
        return KvLayout((group,), block_bytes, size, engine.max_num_batched_tokens)
    largest = max(page for _, page in layers)
    for _, page in layers:
        if largest % page:
            raise ConfigError(
                f"model {model.name!r} on tensor_parallel_size={tensor_parallel_size} has layers "
                f"whose blocks take {page} and {largest} bytes, which no common block size makes "
                "equal (vLLM refuses it too): choose another tensor_parallel_size"
            )
    counts = list(layers.values())
    group_size = max(counts) if max(counts) < PADDING_RATIO * min(counts) else min(counts)
    groups = [
        KvGroup(kind, size * (largest // page), None if kind == "full" else model.window)
        for (kind, page), count in layers.items()
        for _ in range(-(-count // group_size))
    ]
    return KvLayout(tuple(groups), largest * group_size, size, engine.max_num_batched_tokens)


def _layer_bytes(model: ModelSpec, layer: int, width: int, tensor_parallel_size: int) -> int:
    if model.mla is not None:
        return model.layer_kv_bytes(layer, width)
    heads = model.heads_of(layer)
    local = max(1, heads.num_key_value_heads // tensor_parallel_size)
    return 2 * local * heads.head_dim * width
