"""The memory of an accelerator, divided; and the verdict where a model does not fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_inference_simulator.capacity.kv_cache import (
    KvLayout,
    kv_bytes_per_token_per_rank,
    kv_dtype_bytes,
    kv_layout,
)
from llm_inference_simulator.capacity.memory import (
    activation_bytes,
    runtime_bytes,
    weight_bytes_per_rank,
)
from llm_inference_simulator.capacity.parallelism import check_tensor_parallel_size
from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.catalog.pipeline import pipeline_stages
from llm_inference_simulator.catalog.xpu_spec import XpuSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError

GIB = 2**30

MLA_BLOCK_SIZE = 64
"""Tokens of a block that vLLM's backends for latent attention on Hopper and Blackwell insist on."""


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
    """CUDA modules, workspaces and the collectives' buffers, outside PyTorch's pool."""
    kv_cache_bytes: int
    """What the KV blocks take: all that is left, or what ``num_gpu_blocks_override`` asks for."""
    kv_bytes_per_token: int
    """Of the whole model, whatever the tensor-parallel size."""
    kv_bytes_per_token_per_rank: int
    block_bytes: int
    """Of one block of the pool."""
    pool_blocks: int
    """vLLM's ``num_gpu_blocks``: blocks of the pool, the null block included."""
    blocks_per_token_block: float
    """Blocks of the pool that ``block_size`` tokens of a sequence of ``max_model_len`` take, over
    all groups of layers; 1 in a model whose layers all attend to everything."""
    num_gpu_blocks: int
    """Blocks as the engine counts them, one for ``block_size`` tokens of a sequence whatever the
    groups; the null block included.

    ``pool_blocks`` over ``blocks_per_token_block``: exact where the layers are alike. In a hybrid
    model it holds as many sequences of ``max_model_len`` tokens as vLLM's "maximum concurrency",
    and too many shorter ones, of whose tokens fewer have left the windows.
    """
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
    layout: KvLayout

    @property
    def cache(self) -> int:
        """Bytes left for blocks; negative where the model does not fit."""
        return self.usable - self.weights - self.activations - self.runtime

    @property
    def blocks(self) -> int:
        return max(0, self.cache // self.layout.block_bytes)


def plan_memory(
    model: ModelSpec,
    xpu: XpuSpec,
    engine: EngineConfig,
    tensor_parallel_size: int,
    *,
    engines: int = 1,
    pipeline_parallel_size: int = 1,
) -> MemoryPlan:
    """Divide an accelerator's memory into weights, activations and KV blocks.

    With expert parallelism the experts are spread over all ``engines`` of the pool. Of several
    stages the plan is that of the scarcest: vLLM gives all of them as many blocks as it has.

    Raises :class:`CapacityError` where the model, or one sequence of ``max_model_len`` tokens, does
    not fit, with the changes that would help, and :class:`ConfigError` for a tensor-parallel size
    or a ``max_model_len`` that the model does not allow.
    """
    check_tensor_parallel_size(
        model, tensor_parallel_size, whole_experts=engine.enable_expert_parallel
    )
    _check_max_model_len(model, engine)
    if pipeline_parallel_size == 1:
        return _plan(model, xpu, engine, tensor_parallel_size, engines=engines)
    plans = []
    for stage in pipeline_stages(model, pipeline_parallel_size):
        try:
            part = stage.part_of(model)
            plans.append(
                _plan(part, xpu, engine, tensor_parallel_size, engines=engines, pipelined=True)
            )
        except CapacityError as error:
            raise CapacityError(
                f"stage {stage.index + 1} of pipeline_parallel_size={stage.count} "
                f"(layers {stage.layers.start} to {stage.layers.stop - 1}): {error}"
            ) from None
    return replace(
        min(plans, key=lambda plan: plan.num_gpu_blocks),
        max_model_len=min(plan.max_model_len for plan in plans),
        kv_bytes_per_token=model.kv_bytes_per_token(kv_dtype_bytes(engine, model)),
        warnings=tuple(dict.fromkeys(warning for plan in plans for warning in plan.warnings)),
    )


def _plan(
    model: ModelSpec,
    xpu: XpuSpec,
    engine: EngineConfig,
    tensor_parallel_size: int,
    *,
    engines: int,
    pipelined: bool = False,
) -> MemoryPlan:
    """Plan one accelerator for the layers of ``model``."""
    memory = xpu.usable_memory_bytes
    budget = _budget(model, memory, engine, tensor_parallel_size, engines, pipelined=pipelined)
    if not _enough(budget, engine):
        raise _does_not_fit(
            model, xpu, engine, tensor_parallel_size, engines=engines, budget=budget
        )
    pool, kv_cache_bytes = budget.blocks, budget.cache
    if engine.num_gpu_blocks_override is not None:
        pool = engine.num_gpu_blocks_override
        kv_cache_bytes = pool * budget.layout.block_bytes
    longest = _longest(budget.layout, pool, model.max_position_embeddings)
    max_model_len = engine.max_model_len or max(1, longest)
    engine.require_whole_prompts(max_model_len)
    return MemoryPlan(
        total_bytes=xpu.usable_memory_bytes,
        usable_bytes=budget.usable,
        weight_bytes_per_rank=budget.weights,
        activation_bytes=budget.activations,
        runtime_bytes=budget.runtime,
        kv_cache_bytes=kv_cache_bytes,
        kv_bytes_per_token=model.kv_bytes_per_token(kv_dtype_bytes(engine, model)),
        kv_bytes_per_token_per_rank=kv_bytes_per_token_per_rank(
            model, engine, tensor_parallel_size
        ),
        block_bytes=budget.layout.block_bytes,
        pool_blocks=pool,
        blocks_per_token_block=budget.layout.blocks_per_token_block(max_model_len),
        num_gpu_blocks=_engine_blocks(budget.layout, pool, max_model_len),
        block_size=engine.block_size,
        max_model_len=max_model_len,
        warnings=tuple(_warnings(model, engine, budget, longest, max_model_len)),
    )


def _engine_blocks(layout: KvLayout, pool: int, max_model_len: int) -> int:
    """Blocks of ``block_size`` tokens that stand for the pool, and the null block."""
    token_blocks = -(-max_model_len // layout.block_size)
    return 1 + (pool - 1) * token_blocks // layout.blocks_of(max_model_len)


def _longest(layout: KvLayout, pool: int, context: int) -> int:
    """Tokens of the longest sequence, up to ``context``, that the pool holds (0: none)."""
    low, high = 0, context
    while low < high:
        middle = (low + high + 1) // 2
        if layout.blocks_of(middle) <= pool - 1:
            low = middle
        else:
            high = middle - 1
    return low


def _warnings(
    model: ModelSpec, engine: EngineConfig, budget: _Budget, longest: int, max_model_len: int
) -> list[str]:
    warnings = []
    if engine.num_gpu_blocks_override is not None:
        warnings.append(_override_note(engine.num_gpu_blocks_override, budget.blocks))
    if engine.max_model_len is None and max_model_len < model.max_position_embeddings:
        warnings.append(
            f"max_model_len is {max_model_len}: the KV cache does not hold the model's context of "
            f"{model.max_position_embeddings} tokens"
        )
    elif max_model_len > longest:
        warnings.append(
            f"max_model_len={max_model_len} exceeds the {longest} tokens of the KV cache: "
            "longer requests are rejected"
        )
    if model.windowed_layers == model.num_layers and (model.window or 0) < max_model_len:
        warnings.append(
            f"all {model.num_layers} layers keep a window of {model.window} tokens; the KV cache "
            "counts them as full attention, which vLLM's does not"
        )
    shortest = sum(engine.block_size / group.block_size for group in budget.layout.groups)
    per_block = budget.layout.blocks_per_token_block(max_model_len)
    if shortest > per_block:
        warnings.append(
            f"{model.windowed_layers} of {model.num_layers} layers keep a window of {model.window} "
            f"tokens: the KV cache is counted for sequences of max_model_len={max_model_len}, "
            f"whose {engine.block_size} tokens take {per_block:.2f} blocks of vLLM's pool; short "
            f"ones take {shortest:.2f}, so give the longest of the workload as max_model_len"
        )
    if model.mla is not None and engine.block_size % MLA_BLOCK_SIZE:
        warnings.append(
            f"block_size={engine.block_size}: vLLM runs multi-head latent attention with blocks of "
            f"{MLA_BLOCK_SIZE} tokens; give --block-size {MLA_BLOCK_SIZE} to do so too"
        )
    if model.unknown_vision is not None:
        warnings.append(
            f"the weights of the vision tower ({model.unknown_vision}) are not counted: vLLM has "
            "somewhat fewer KV blocks"
        )
    return warnings


def _budget(
    model: ModelSpec,
    memory_bytes: int,
    engine: EngineConfig,
    tensor_parallel_size: int,
    engines: int,
    *,
    pipelined: bool = False,
) -> _Budget:
    return _Budget(
        usable=int(memory_bytes * engine.gpu_memory_utilization),
        weights=weight_bytes_per_rank(
            model,
            engine,
            tensor_parallel_size,
            expert_ranks=tensor_parallel_size * engines if engine.enable_expert_parallel else None,
        ),
        activations=activation_bytes(model, engine, tensor_parallel_size),
        runtime=runtime_bytes(2 if pipelined else tensor_parallel_size),
        layout=kv_layout(model, engine, tensor_parallel_size),
    )


def _blocks_needed(layout: KvLayout, engine: EngineConfig) -> int:
    """Fewest blocks an engine can work with: the null block and one sequence."""
    if engine.num_gpu_blocks_override is not None:
        return 0
    return 1 + layout.blocks_of(engine.max_model_len or 1)


def _enough(budget: _Budget, engine: EngineConfig) -> bool:
    return budget.cache >= 0 and budget.blocks >= _blocks_needed(budget.layout, engine)


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
    *,
    engines: int,
    budget: _Budget,
) -> CapacityError:
    from llm_inference_simulator.capacity.remedies import remedies

    needed = _blocks_needed(budget.layout, engine) * budget.layout.block_bytes
    missing = needed - budget.cache
    sequence = (
        "the smallest KV cache"
        if engine.max_model_len is None
        else f"one sequence of max_model_len={engine.max_model_len}"
    )
    accelerators = f"{tensor_parallel_size} x {xpu.name}"
    helps = remedies(model, xpu, engine, tensor_parallel_size, engines)
    advice = "; or ".join(helps) if helps else "choose a smaller model"
    return CapacityError(
        f"model {model.name!r} does not fit {accelerators}: {missing / GIB:.2f} GiB are missing on "
        f"each (weights {budget.weights / GIB:.2f}, activations {budget.activations / GIB:.2f}, "
        f"runtime {budget.runtime / GIB:.2f}, {sequence} "
        f"{needed / GIB:.2f}; usable {budget.usable / GIB:.2f} = "
        f"gpu_memory_utilization {engine.gpu_memory_utilization:g} of "
        f"{xpu.usable_memory_bytes / GIB:.2f} GiB). To make it fit: {advice}"
    )


def fits(
    model: ModelSpec,
    memory_bytes: int,
    engine: EngineConfig,
    tensor_parallel_size: int,
    engines: int,
) -> bool:
    """Whether an engine could run with this much memory per accelerator."""
    return _enough(_budget(model, memory_bytes, engine, tensor_parallel_size, engines), engine)


def longest_sequence(
    model: ModelSpec,
    memory_bytes: int,
    engine: EngineConfig,
    tensor_parallel_size: int,
    engines: int,
) -> int:
    """Tokens of the longest sequence that the cache holds (0 where nothing fits)."""
    budget = _budget(model, memory_bytes, engine, tensor_parallel_size, engines)
    return _longest(budget.layout, budget.blocks, model.max_position_embeddings)
