"""How many KV blocks an engine has, or why the model does not fit and what would make it fit.

As in vLLM: memory · ``gpu_memory_utilization`` - weights - peak of the profiling run - what lies
outside PyTorch's pool, divided into blocks. Sliding and chunked layers are counted as full
attention, so models that have them get somewhat fewer blocks here than from vLLM's hybrid cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llm_inference_simulator.catalog.model_spec import (
    WEIGHT_FORMATS,
    ModelSpec,
    QuantizationSpec,
    weight_bytes,
)
from llm_inference_simulator.catalog.weights import model_weights
from llm_inference_simulator.catalog.xpu_spec import XpuSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError

GIB = 2**30

DTYPE_BYTES = 2
"""Of an unquantised weight or activation: every ``dtype`` that an engine may have has 16 bits."""

RUNTIME_BYTES = GIB // 2
"""CUDA context, library workspaces and CUDA graphs. Fitted: it centres the block counts that vLLM
0.15.1 logged for Llama, Qwen2.5, Mistral-Nemo and Yi on H100 (each then agrees within 1 %)."""

COLLECTIVE_BYTES = {1: 0, 2: 358_612_992}
"""Buffers of the collectives, by tensor-parallel size (aiconfigurator's ``nccl_mem`` on H100)."""
COLLECTIVE_BYTES_BEYOND = 411_041_792
"""The same for larger groups."""

SAMPLER_COPIES = 5
"""Float32 copies of the logits alive at the peak of the profiling run's sampling (logits, sorted
values, 64-bit indices, probabilities)."""

MAX_UTILIZATION = 0.98
"""Largest ``gpu_memory_utilization`` worth suggesting."""

PLAUSIBLE_TP_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Tensor-parallel sizes that a remedy may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Memory of one accelerator of an engine. All sizes are bytes per accelerator."""

    total_bytes: int
    """What the driver reports."""
    usable_bytes: int
    """Times ``gpu_memory_utilization``."""
    weight_bytes_per_rank: int
    activation_bytes: int
    """Peak of vLLM's profiling run with ``max_num_batched_tokens`` tokens."""
    runtime_bytes: int
    """CUDA graphs, context, workspaces and the collectives' buffers."""
    kv_cache_bytes: int
    """What the KV blocks take: all that is left, or what ``num_gpu_blocks_override`` asks for."""
    kv_bytes_per_token: int
    """Of the whole model, whatever the tensor-parallel size."""
    kv_bytes_per_token_per_rank: int
    block_bytes: int
    num_gpu_blocks: int
    """Blocks, vLLM's null block included."""
    block_size: int
    max_model_len: int
    """Given, or the model's context, or what the cache holds if that is less."""
    warnings: tuple[str, ...]

    @property
    def cache_tokens(self) -> int:
        """Tokens that the usable blocks hold."""
        return (self.num_gpu_blocks - 1) * self.block_size

    @property
    def max_concurrency(self) -> float:
        """Sequences of ``max_model_len`` tokens that the cache holds at once."""
        return self.cache_tokens / self.max_model_len


@dataclass(frozen=True, slots=True)
class _Budget:
    """Bytes of one accelerator before the cache is divided into blocks."""

    usable: int
    weights: int
    activations: int
    runtime: int
    block: int

    @property
    def cache(self) -> int:
        """Bytes left for blocks; negative where the model does not fit."""
        return self.usable - self.weights - self.activations - self.runtime

    @property
    def blocks(self) -> int:
        return max(0, self.cache // self.block)


def plan_memory(
    model: ModelSpec, xpu: XpuSpec, engine: EngineConfig, tensor_parallel_size: int
) -> MemoryPlan:
    """Divide an accelerator's memory into weights, activations and KV blocks.

    Raises :class:`CapacityError` where the model, or one sequence of ``max_model_len`` tokens, does
    not fit, with the changes that would help, and :class:`ConfigError` for a tensor-parallel size
    or a ``max_model_len`` that the model does not allow.
    """
    check_tensor_parallel_size(model, tensor_parallel_size)
    _check_max_model_len(model, engine)
    budget = _budget(model, xpu.usable_memory_bytes, engine, tensor_parallel_size)
    size, warnings = engine.block_size, []
    blocks, kv_cache_bytes = budget.blocks, budget.cache
    if budget.cache < 0 or blocks < _blocks_needed(engine):
        raise _does_not_fit(model, xpu, engine, tensor_parallel_size, budget)
    if engine.num_gpu_blocks_override is not None:
        warnings.append(_override_note(engine.num_gpu_blocks_override, blocks))
        blocks = engine.num_gpu_blocks_override
        kv_cache_bytes = blocks * budget.block
    cache_tokens = (blocks - 1) * size
    max_model_len = engine.max_model_len or min(model.max_position_embeddings, cache_tokens)
    if engine.max_model_len is None and max_model_len < model.max_position_embeddings:
        warnings.append(
            f"max_model_len is {max_model_len}: the KV cache does not hold the model's context of "
            f"{model.max_position_embeddings} tokens"
        )
    elif max_model_len > cache_tokens:
        warnings.append(
            f"max_model_len={max_model_len} exceeds the {cache_tokens} tokens of the KV cache: "
            "longer requests are rejected"
        )
    engine.require_whole_prompts(max_model_len)
    if model.windowed_layers and model.window is not None and model.window < max_model_len:
        warnings.append(
            f"{model.windowed_layers} of {model.num_layers} layers keep a window of {model.window} "
            "tokens; the KV cache counts them as full attention"
        )
    return MemoryPlan(
        total_bytes=xpu.usable_memory_bytes,
        usable_bytes=budget.usable,
        weight_bytes_per_rank=budget.weights,
        activation_bytes=budget.activations,
        runtime_bytes=budget.runtime,
        kv_cache_bytes=kv_cache_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token(kv_dtype_bytes(engine)),
        kv_bytes_per_token_per_rank=budget.block // size,
        block_bytes=budget.block,
        num_gpu_blocks=blocks,
        block_size=size,
        max_model_len=max_model_len,
        warnings=tuple(warnings),
    )


def resolve_quantization(model: ModelSpec, engine: EngineConfig) -> QuantizationSpec | None:
    """Format of the weights: the model's own, or what the engine quantises them to when loading."""
    wanted, own = engine.quantization, model.quantization
    if wanted is None or (own is not None and own.format == wanted):
        return own
    if own is not None:
        raise ConfigError(
            f"quantization={wanted!r} contradicts model {model.name!r}, whose weights are stored "
            f"as {own.format}: leave it out or choose an unquantised version of the model"
        )
    return WEIGHT_FORMATS[wanted]


def kv_dtype_bytes(engine: EngineConfig) -> int:
    """Bytes of a cached element; ``auto`` is the activations' type."""
    return 1 if engine.kv_cache_dtype == "fp8" else DTYPE_BYTES


def weight_bytes_per_rank(model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int) -> int:
    """Bytes of weights on each accelerator of a tensor-parallel group."""
    quantization = resolve_quantization(model, engine)
    total = 0.0
    for weight in model_weights(model):
        if weight.elements:
            share = weight.elements_per_rank(tensor_parallel_size) / weight.elements
            total += weight_bytes(weight, DTYPE_BYTES, quantization) * share
    return math.ceil(total)


def kv_bytes_per_token_per_rank(
    model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int
) -> int:
    """Bytes of a token in one accelerator's cache.

    KV heads are divided over the group, and copied where it has more ranks than heads; the latent
    cache of MLA lies on every rank whole.
    """
    width = kv_dtype_bytes(engine)
    if model.mla is not None:
        return model.kv_bytes_per_token(width)
    total = 0
    for layer in range(model.num_layers):
        heads = model.heads_of(layer)
        local = max(1, heads.num_key_value_heads // tensor_parallel_size)
        total += 2 * local * heads.head_dim * width
    return total


def activation_bytes(model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int) -> int:
    """Peak of vLLM's profiling run.

    In the MLP each of ``max_num_batched_tokens`` tokens keeps the residual and its normed copy, the
    rank's share of gate and up and of their product; with experts the same for each chosen expert,
    and its output. Afterwards ``max_num_seqs`` rows of logits are sampled.
    """
    matrices = 3 if model.gated_mlp else 2
    per_token = matrices * model.intermediate_size / tensor_parallel_size
    if model.moe is not None:
        routed = matrices * model.moe.intermediate_size / tensor_parallel_size + model.hidden_size
        per_token = max(per_token, model.moe.top_k * routed)
    per_token += 2 * model.hidden_size
    rows = min(engine.max_num_seqs, engine.max_num_batched_tokens)
    sampling = SAMPLER_COPIES * rows * model.vocab_size * 4
    return math.ceil(engine.max_num_batched_tokens * per_token * DTYPE_BYTES) + sampling


def valid_tensor_parallel_sizes(model: ModelSpec) -> list[int]:
    """Sizes that vLLM accepts: heads and MLP divide, KV heads divide or are copied evenly."""
    return [size for size in range(1, model.num_attention_heads + 1) if _divides(model, size)]


def check_tensor_parallel_size(model: ModelSpec, tensor_parallel_size: int) -> None:
    """Refuse a size that vLLM would refuse; the message lists the valid ones."""
    if tensor_parallel_size >= 1 and _divides(model, tensor_parallel_size):
        return
    valid = ", ".join(map(str, valid_tensor_parallel_sizes(model)))
    raise ConfigError(
        f"tensor_parallel_size={tensor_parallel_size} does not divide model {model.name!r} "
        f"({model.num_attention_heads} attention heads, {model.num_key_value_heads} KV heads, MLP "
        f"of {model.intermediate_size}): use one of {valid}"
    )


def _divides(model: ModelSpec, size: int) -> bool:
    if model.num_attention_heads % size or model.intermediate_size % size:
        return False
    if model.mla is not None:
        return True
    groups = {model.num_key_value_heads}
    if model.global_heads is not None:
        groups.add(model.global_heads.num_key_value_heads)
    return all(heads % size == 0 or size % heads == 0 for heads in groups)


def _budget(
    model: ModelSpec, memory_bytes: int, engine: EngineConfig, tensor_parallel_size: int
) -> _Budget:
    per_token = kv_bytes_per_token_per_rank(model, engine, tensor_parallel_size)
    collectives = COLLECTIVE_BYTES.get(tensor_parallel_size, COLLECTIVE_BYTES_BEYOND)
    return _Budget(
        usable=int(memory_bytes * engine.gpu_memory_utilization),
        weights=weight_bytes_per_rank(model, engine, tensor_parallel_size),
        activations=activation_bytes(model, engine, tensor_parallel_size),
        runtime=RUNTIME_BYTES + collectives,
        block=per_token * engine.block_size,
    )


def _blocks_needed(engine: EngineConfig) -> int:
    """Fewest blocks an engine can work with: the null block and one sequence."""
    if engine.num_gpu_blocks_override is not None:
        return 0
    if engine.max_model_len is None:
        return 2
    return 1 + -(-engine.max_model_len // engine.block_size)


def _check_max_model_len(model: ModelSpec, engine: EngineConfig) -> None:
    context = model.max_position_embeddings
    if engine.max_model_len is not None and engine.max_model_len > context:
        raise ConfigError(
            f"max_model_len={engine.max_model_len} exceeds the context of model {model.name!r}: "
            f"give at most {context}"
        )


def _override_note(override: int, computed: int) -> str:
    note = f"num_gpu_blocks_override={override} replaces the {computed} blocks that memory holds"
    return f"{note}: a real engine would run out of memory" if override > computed else note


def _does_not_fit(
    model: ModelSpec,
    xpu: XpuSpec,
    engine: EngineConfig,
    tensor_parallel_size: int,
    budget: _Budget,
) -> CapacityError:
    from llm_inference_simulator.capacity_remedies import remedies

    needed = _blocks_needed(engine)
    missing = needed * budget.block - budget.cache
    sequence = (
        "the smallest KV cache"
        if engine.max_model_len is None
        else f"one sequence of max_model_len={engine.max_model_len}"
    )
    accelerators = f"{tensor_parallel_size} x {xpu.name}"
    helps = remedies(model, xpu, engine, tensor_parallel_size)
    advice = "; or ".join(helps) if helps else "choose a smaller model"
    return CapacityError(
        f"model {model.name!r} does not fit {accelerators}: {missing / GIB:.2f} GiB are missing on "
        f"each (weights {budget.weights / GIB:.2f}, activations {budget.activations / GIB:.2f}, "
        f"runtime {budget.runtime / GIB:.2f}, {sequence} "
        f"{needed * budget.block / GIB:.2f}; usable {budget.usable / GIB:.2f} = "
        f"gpu_memory_utilization {engine.gpu_memory_utilization:g} of "
        f"{xpu.usable_memory_bytes / GIB:.2f} GiB). To make it fit: {advice}"
    )


def fits(
    model: ModelSpec, memory_bytes: int, engine: EngineConfig, tensor_parallel_size: int
) -> bool:
    """Whether an engine could run with this much memory per accelerator."""
    budget = _budget(model, memory_bytes, engine, tensor_parallel_size)
    return budget.cache >= 0 and budget.blocks >= _blocks_needed(engine)


def longest_sequence(
    model: ModelSpec, memory_bytes: int, engine: EngineConfig, tensor_parallel_size: int
) -> int:
    """Tokens of the longest sequence that the cache holds (0 where nothing fits)."""
    budget = _budget(model, memory_bytes, engine, tensor_parallel_size)
    held = max(0, budget.blocks - 1) * engine.block_size
    return min(held, model.max_position_embeddings)
