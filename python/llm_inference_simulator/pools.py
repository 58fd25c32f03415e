"""Resolves the pools of a configuration: accelerators, memory, prices, settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_inference_simulator.aggregated_cluster import Pool, engine_settings
from llm_inference_simulator.capacity import DTYPE_BYTES, plan_memory
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.catalog.pipeline import pipeline_stages
from llm_inference_simulator.energy import economics_of
from llm_inference_simulator.errors import CapacityError, ConfigError
from llm_inference_simulator.expert_groups import (
    exchange_link,
    exchange_warnings,
    sharing_engines,
    steps_together,
)
from llm_inference_simulator.results import Capacity, PoolSetup

if TYPE_CHECKING:
    from llm_inference_simulator.calibration import FrontEndLatency
    from llm_inference_simulator.capacity import MemoryPlan
    from llm_inference_simulator.catalog import ModelSpec, XpuSpec
    from llm_inference_simulator.config import EngineConfig, PoolConfig, SimulatorConfig
    from llm_inference_simulator.performance_models import BasePerformanceModel

    ModelFactory = Callable[..., BasePerformanceModel]
    """With the parameters of ``performance_models.create_performance_model``."""

    MemoryPlanner = Callable[..., MemoryPlan]
    """With the parameters of :func:`plan_memory`."""


@dataclass(frozen=True, slots=True)
class ResolvedPool:
    """A pool before the first event: for the core, and for the result."""

    core: Pool
    setup: PoolSetup
    engine: EngineConfig
    front_end: FrontEndLatency | None
    """What a measured server adds to a request; None: not measured."""
    warnings: tuple[str, ...]


def resolve_pools(
    config: SimulatorConfig,
    model: ModelSpec,
    performance_model: BasePerformanceModel | None,
    create: ModelFactory | None = None,
    plan: MemoryPlanner = plan_memory,
) -> tuple[ResolvedPool, ...]:
    """Plan the memory and the prices of each pool.

    ``performance_model`` replaces the one that the configuration names; ``create`` and ``plan``
    stand in for :func:`create_performance_model` and :func:`plan_memory` where what they make is
    used again. Raises what :func:`plan_memory` and the performance models raise, with the pool's
    name where there are several, and :class:`ConfigError` where one performance model is given for
    several pools.
    """
    pools = config.cluster.named_pools
    if len(pools) == 1:
        return (
            _resolve(config, pools[0], model, performance_model, create=create, plan_memory=plan),
        )
    if performance_model is not None:
        raise ConfigError(
            f"performance_model= prices one kind of engine, but the cluster has {len(pools)} "
            "pools: name a model for each in cluster.pools[].performance"
        )
    return tuple(_resolve_named(config, pool, model, create, plan) for pool in pools)


def _resolve_named(
    config: SimulatorConfig,
    pool: PoolConfig,
    model: ModelSpec,
    create: ModelFactory | None,
    plan: MemoryPlanner,
) -> ResolvedPool:
    try:
        resolved = _resolve(config, pool, model, None, create=create, plan_memory=plan)
    except (CapacityError, ConfigError) as error:
        raise type(error)(f"pool {pool.name}: {error}") from None
    warnings = tuple(f"pool {pool.name}: {warning}" for warning in resolved.warnings)
    return replace(resolved, warnings=warnings)


def _resolve(
    config: SimulatorConfig,
    pool: PoolConfig,
    model: ModelSpec,
    performance_model: BasePerformanceModel | None,
    *,
    create: ModelFactory | None,
    plan_memory: MemoryPlanner,
) -> ResolvedPool:
    engine, xpu = config.engine_of(pool), load_xpu(config.xpu_of(pool))
    grouped = steps_together(config, pool, model)
    size = pool.tensor_parallel_size
    plan = plan_memory(
        model,
        xpu,
        engine,
        size,
        engines=sharing_engines(pool, engine),
        pipeline_parallel_size=pool.pipeline_parallel_size,
    )
    if performance_model is None:
        stages = _price_stages(config, pool, model, xpu, plan, create=create)
        performance_model = stages[0]
    else:
        if pool.pipeline_parallel_size > 1:
            raise ConfigError(
                f"performance_model= prices whole steps, but "
                f"pipeline_parallel_size={pool.pipeline_parallel_size} divides them into stages: "
                "leave one out"
            )
        _require_same_subject(performance_model, model, xpu, pool, plan, grouped=grouped)
        stages = (performance_model,)
    settings = engine_settings(
        engine,
        max_model_len=plan.max_model_len,
        num_gpu_blocks=plan.num_gpu_blocks,
        attention_window=performance_model.attention_window,
        role=pool.role,
        link_bytes_per_s=config.link_bytes_per_s(pool),
        stage_links=stage_links(config, pool, model, xpu),
        # A pool is a group of its own.
        data_parallel_group=_place(config, pool) if grouped else None,
    )
    setup = PoolSetup(
        name=pool.name or "",
        role=pool.role,
        xpu_name=xpu.name,
        n_engines=pool.size,
        tensor_parallel_size=size,
        pipeline_parallel_size=pool.pipeline_parallel_size,
        capacity=_capacity(plan, engine),
        performance_model=performance_model.name,
        performance_description=performance_model.description,
        calibration_file=performance_model.calibration_file,
        calibration_sha256=performance_model.calibration_sha256,
        peak_flops=performance_model.peak_flops,
        peak_bandwidth=performance_model.peak_bandwidth,
        economics=economics_of(xpu, config.pricing),
    )
    return ResolvedPool(
        core=Pool(settings, [stage.cost_model() for stage in stages], pool.size),
        setup=setup,
        engine=engine,
        front_end=performance_model.front_end,
        warnings=(
            *_unused_xpus(pool),
            *(exchange_warnings(pool, xpu) if grouped else ()),
            *plan.warnings,
            *dict.fromkeys(warning for stage in stages for warning in stage.warnings),
        ),
    )


def _price_stages(
    config: SimulatorConfig,
    pool: PoolConfig,
    model: ModelSpec,
    xpu: XpuSpec,
    plan: MemoryPlan,
    *,
    create: ModelFactory | None,
) -> tuple[BasePerformanceModel, ...]:
    """Build the configured performance model, one for each stage of an engine's pipeline."""
    if create is None:
        # Importing the models takes a while, and a capacity error needs none.
        from llm_inference_simulator.performance_models import create_performance_model

        create = create_performance_model

    engine, grouped = config.engine_of(pool), steps_together(config, pool, model)
    stages = (
        (None,)
        if pool.pipeline_parallel_size == 1
        else pipeline_stages(model, pool.pipeline_parallel_size)
    )
    return tuple(
        create(
            config.performance_of(pool),
            model,
            xpu,
            pool.tensor_parallel_size,
            engine,
            max_model_len=plan.max_model_len,
            engines=sharing_engines(pool, engine),
            exchange=exchange_link(config, pool, xpu) if grouped else None,
            stage=stage,
        )
        for stage in stages
    )


def stage_links(
    config: SimulatorConfig, pool: PoolConfig, model: ModelSpec, xpu: XpuSpec
) -> tuple[tuple[int, int, int], ...]:
    """What carries hidden states and residual from stage to stage (docs/spec.md, 14.4).

    One (latency in ns, bytes a token, bytes a second) between each two stages. Every rank of a
    tensor-parallel group sends its share to its counterpart.
    """
    if pool.pipeline_parallel_size == 1:
        return ()
    from llm_inference_simulator.performance_models.composition import HANDED_ON_VECTORS
    from llm_inference_simulator.performance_models.hardware import group_bandwidth

    vectors = HANDED_ON_VECTORS * DTYPE_BYTES * model.hidden_size
    payload = -(-vectors // pool.tensor_parallel_size)
    between_nodes = config.stage_bytes_per_s(pool)
    links = []
    for crosses in pool.crosses_nodes:
        if crosses:
            assert between_nodes is not None
            latency_us, rate = config.cluster.inter_node_latency_us, between_nodes
        else:
            group = min(pool.xpus_per_engine, pool.n_xpus_per_node or pool.xpus_per_engine)
            latency_us = xpu.link_latency_us
            rate = group_bandwidth(xpu, group) * xpu.link_efficiency
        links.append((round(latency_us * 1000), payload, max(1, round(rate))))
    return tuple(links)


def _place(config: SimulatorConfig, pool: PoolConfig) -> int:
    return [own.name for own in config.cluster.named_pools].index(pool.name)


def _unused_xpus(pool: PoolConfig) -> tuple[str, ...]:
    """Name accelerators of a pool that belong to no engine."""
    size = pool.xpus_per_engine
    unused = 0 if pool.n_xpus is None else pool.n_xpus - pool.size * size
    if not unused:
        return ()
    return (
        f"{unused} of {pool.n_xpus} accelerators are not used: {pool.size} engine(s) of "
        f"{pool.parallel_layout} take {pool.size * size}; change n_engines, n_xpus or "
        "tensor_parallel_size",
    )


def _require_same_subject(
    performance_model: BasePerformanceModel,
    model: ModelSpec,
    xpu: XpuSpec,
    pool: PoolConfig,
    plan: MemoryPlan,
    *,
    grouped: bool,
) -> None:
    """Refuse a roofline of something else than the configuration describes."""
    from llm_inference_simulator.performance_models import RooflinePerformanceModel

    if not isinstance(performance_model, RooflinePerformanceModel):
        return
    priced: dict[str, tuple[str | int, str | int]] = {
        "model": (performance_model.model.name, model.name),
        "xpu": (performance_model.xpu.name, xpu.name),
        "tensor_parallel_size": (
            performance_model.tensor_parallel_size,
            pool.tensor_parallel_size,
        ),
        "engines": (performance_model.composition.engines, pool.size if grouped else 1),
    }
    for field, (theirs, ours) in priced.items():
        if theirs != ours:
            raise ConfigError(
                f"performance_model prices {field}={theirs}, but the configuration has "
                f"{field}={ours}: make them agree"
            )
    performance_model.require_length(plan.max_model_len)


def _capacity(plan: MemoryPlan, engine: EngineConfig) -> Capacity:
    return Capacity(
        num_gpu_blocks=plan.num_gpu_blocks,
        block_size=engine.block_size,
        max_model_len=plan.max_model_len,
        weight_bytes_per_rank=plan.weight_bytes_per_rank,
        activation_bytes=plan.activation_bytes,
        runtime_bytes=plan.runtime_bytes,
        kv_cache_bytes=plan.kv_cache_bytes,
        kv_bytes_per_token=plan.kv_bytes_per_token,
        kv_bytes_per_token_per_rank=plan.kv_bytes_per_token_per_rank,
        usable_bytes=plan.usable_bytes,
        total_bytes=plan.total_bytes,
    )
