"""Resolves the pools of a configuration: accelerators, memory, prices, settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_inference_simulator.aggregated_cluster import Pool, engine_settings
from llm_inference_simulator.capacity import plan_memory
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.energy import economics_of
from llm_inference_simulator.errors import CapacityError, ConfigError
from llm_inference_simulator.results import Capacity, PoolSetup

if TYPE_CHECKING:
    from llm_inference_simulator.calibration import FrontEndLatency
    from llm_inference_simulator.capacity import MemoryPlan
    from llm_inference_simulator.catalog import ModelSpec, XpuSpec
    from llm_inference_simulator.config import EngineConfig, PoolConfig, SimulatorConfig
    from llm_inference_simulator.performance_models import BasePerformanceModel


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
    config: SimulatorConfig, model: ModelSpec, performance_model: BasePerformanceModel | None
) -> tuple[ResolvedPool, ...]:
    """Plan the memory and the prices of each pool.

    ``performance_model`` replaces the one that the configuration names. Raises what
    :func:`plan_memory` and the performance models raise, with the pool's name where there are
    several, and :class:`ConfigError` where one performance model is given for several pools.
    """
    pools = config.cluster.named_pools
    if len(pools) == 1:
        return (_resolve(config, pools[0], model, performance_model),)
    if performance_model is not None:
        raise ConfigError(
            f"performance_model= prices one kind of engine, but the cluster has {len(pools)} "
            "pools: name a model for each in cluster.pools[].performance"
        )
    return tuple(_resolve_named(config, pool, model) for pool in pools)


def _resolve_named(config: SimulatorConfig, pool: PoolConfig, model: ModelSpec) -> ResolvedPool:
    try:
        resolved = _resolve(config, pool, model, None)
    except (CapacityError, ConfigError) as error:
        raise type(error)(f"pool {pool.name}: {error}") from None
    warnings = tuple(f"pool {pool.name}: {warning}" for warning in resolved.warnings)
    return replace(resolved, warnings=warnings)


def _resolve(
    config: SimulatorConfig,
    pool: PoolConfig,
    model: ModelSpec,
    performance_model: BasePerformanceModel | None,
) -> ResolvedPool:
    engine, xpu = config.engine_of(pool), load_xpu(config.xpu_of(pool))
    size = pool.tensor_parallel_size
    plan = plan_memory(model, xpu, engine, size)
    if performance_model is None:
        # Importing the models takes a while, and a capacity error needs none.
        from llm_inference_simulator.performance_models import create_performance_model

        performance_model = create_performance_model(
            config.performance_of(pool),
            model,
            xpu,
            size,
            engine,
            max_model_len=plan.max_model_len,
            # With expert parallelism all data-parallel engines of a pool share the experts.
            engines=pool.size,
        )
    else:
        _require_same_subject(performance_model, model, xpu, size, plan)
    settings = engine_settings(
        engine,
        max_model_len=plan.max_model_len,
        num_gpu_blocks=plan.num_gpu_blocks,
        attention_window=performance_model.attention_window,
        role=pool.role,
        link_bytes_per_s=config.link_bytes_per_s(pool),
    )
    setup = PoolSetup(
        name=pool.name or "",
        role=pool.role,
        xpu_name=xpu.name,
        n_engines=pool.size,
        tensor_parallel_size=size,
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
        core=Pool(settings, performance_model.cost_model(), pool.size),
        setup=setup,
        engine=engine,
        front_end=performance_model.front_end,
        warnings=(*_unused_xpus(pool), *plan.warnings, *performance_model.warnings),
    )


def _unused_xpus(pool: PoolConfig) -> tuple[str, ...]:
    """Name accelerators of a pool that belong to no engine."""
    size = pool.tensor_parallel_size
    unused = 0 if pool.n_xpus is None else pool.n_xpus - pool.size * size
    if not unused:
        return ()
    return (
        f"{unused} of {pool.n_xpus} accelerators are not used: {pool.size} engine(s) of "
        f"tensor_parallel_size={size} take {pool.size * size}; change n_engines, n_xpus or "
        "tensor_parallel_size",
    )


def _require_same_subject(
    performance_model: BasePerformanceModel,
    model: ModelSpec,
    xpu: XpuSpec,
    tensor_parallel_size: int,
    plan: MemoryPlan,
) -> None:
    """Refuse a roofline of something else than the configuration describes."""
    from llm_inference_simulator.performance_models import RooflinePerformanceModel

    if not isinstance(performance_model, RooflinePerformanceModel):
        return
    priced: dict[str, tuple[str | int, str | int]] = {
        "model": (performance_model.model.name, model.name),
        "xpu": (performance_model.xpu.name, xpu.name),
        "tensor_parallel_size": (performance_model.tensor_parallel_size, tensor_parallel_size),
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
