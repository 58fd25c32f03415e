"""An aggregated cluster: pools of engines behind one router, each doing prefill and decode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from llm_inference_simulator.cluster import (
    AutoscalingSettings,
    EngineSettings,
    FleetSettings,
    TransferSettings,
)
from llm_inference_simulator.config import EngineConfig, FleetConfig, SimulatorConfig
from llm_inference_simulator.errors import ConfigError

if TYPE_CHECKING:
    from llm_inference_simulator._core import (
        CostModel,
        RouterEngines,
        RouterRequest,
        Simulation,
    )
    from llm_inference_simulator.calibration import FrontEndLatency
    from llm_inference_simulator.workload import Workload

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def engine_settings(
    engine: EngineConfig,
    *,
    max_model_len: int,
    num_gpu_blocks: int,
    attention_window: tuple[str, int] | None = None,
    role: Literal["aggregated", "prefill", "decode"] = "aggregated",
    link_bytes_per_s: int = 0,
    stage_links: tuple[tuple[int, int, int], ...] = (),
    data_parallel_group: int | None = None,
) -> EngineSettings:
    """Resolve an engine's configuration to the numbers that the core takes.

    Raises :class:`ConfigError` where the resolved ``max_model_len`` contradicts another setting.
    """
    engine.require_whole_prompts(max_model_len)
    return EngineSettings(
        max_num_seqs=min(engine.max_num_seqs, engine.max_batch_size or engine.max_num_seqs),
        max_num_batched_tokens=engine.max_num_batched_tokens,
        max_model_len=max_model_len,
        block_size=engine.block_size,
        num_gpu_blocks=num_gpu_blocks,
        enable_chunked_prefill=engine.enable_chunked_prefill,
        long_prefill_token_threshold=engine.long_prefill_token_threshold,
        long_prefill_token_threshold_adaptive=engine.long_prefill_token_threshold_adaptive,
        enable_prefix_caching=engine.enable_prefix_caching,
        scheduling_policy=engine.scheduling_policy,
        scheduler_reserve_full_isl=engine.scheduler_reserve_full_isl,
        watermark_blocks=int(engine.watermark * num_gpu_blocks),
        async_scheduling=engine.async_scheduling,
        step_overhead_ns=round(engine.scheduling_overhead_ms * NS_PER_MS),
        batching_strategy=engine.batching_strategy,
        batch_window_ns=round(engine.batch_window_ms * NS_PER_MS),
        attention_window=attention_window,
        role=role,
        link_bytes_per_s=link_bytes_per_s,
        pipeline_parallel_size=1 + len(stage_links),
        stage_links=stage_links,
        data_parallel_group=data_parallel_group,
    )


RouterCallable: TypeAlias = "Callable[[RouterRequest, RouterEngines], int]"
"""Gives the place of an engine for a request; called once per request (and once per hand-over)."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Equal engines as the core takes them."""

    settings: EngineSettings
    cost_models: Sequence[CostModel]
    """One for each stage of an engine's pipeline."""
    n_engines: int


def fleet_settings(fleet: FleetConfig) -> FleetSettings | None:
    """Resolve how a cluster changes; None where it does not."""
    if fleet == FleetConfig.default():
        return None
    planned: list[tuple[int, int, str]] = []
    for event in fleet.events:
        at_ns = round(event.at_s * NS_PER_S)
        planned.append((at_ns, event.engine, event.change))
        if event.back_after_s is not None:
            planned.append((at_ns + round(event.back_after_s * NS_PER_S), event.engine, "up"))
    scaling, timeout_s = fleet.autoscaling, fleet.request_timeout_s
    return FleetSettings(
        planned=tuple(sorted(planned, key=lambda change: change[0])),
        max_retries=fleet.max_retries,
        timeout_ns=None if timeout_s is None else round(timeout_s * NS_PER_S),
        max_queue=fleet.max_queue,
        autoscaling=None
        if scaling is None
        else AutoscalingSettings(
            min_engines=scaling.min_engines,
            interval_ns=round(scaling.interval_s * NS_PER_S),
            start_above=scaling.start_above,
            drain_below=scaling.drain_below,
            startup_ns=round(scaling.startup_s * NS_PER_S),
        ),
    )


def build_simulation(
    config: SimulatorConfig,
    pools: Sequence[Pool],
    workload: Workload,
    front_end: FrontEndLatency,
    *,
    record_steps: bool,
    record_decisions: bool,
    transfer: TransferSettings | None = None,
    router: RouterCallable | None = None,
    common_prefix_tokens: int = 0,
    threads: int = 1,
) -> Simulation:
    """Hand the cluster of ``config`` and its workload to the core.

    ``router`` replaces the policy that the configuration names. Of a streamed run ``workload`` is
    empty, and all requests that will be fed begin with the same ``common_prefix_tokens``.

    Raises :class:`ConfigError` where pools cannot share prefixes.
    """
    from llm_inference_simulator._core import Simulation

    block_offsets = block_ids = None
    common_blocks = 0
    sizes = {pool.settings.block_size for pool in pools if pool.settings.enable_prefix_caching}
    if (workload.segments is not None or common_prefix_tokens) and sizes:
        if len(sizes) > 1:
            differing = " and ".join(map(str, sorted(sizes)))
            raise ConfigError(
                f"cluster.pools have block_size={differing} with prefix caching, but shared "
                "prefixes are found by blocks of one size: give the pools the same"
            )
        size = sizes.pop()
        common_blocks = common_prefix_tokens // size
        if workload.segments is not None:
            block_offsets, block_ids = workload.segments.blocks(size)
    streams = config.measurement.streaming
    return Simulation(
        pools=[(pool.settings, pool.cost_models, pool.n_engines) for pool in pools],
        router=config.cluster.router if router is None else router,
        # The core's seeds have 64 bits.
        router_seed=config.seed % 2**64,
        router_view_delay_ns=round(config.cluster.router_view_delay_ms * NS_PER_MS),
        router_imbalance=config.cluster.router_imbalance,
        arrival_ns=workload.arrival_ns,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        max_concurrency=workload.max_concurrency,
        priority=workload.priority,
        after=workload.after,
        think_ns=workload.think_ns,
        block_offsets=block_offsets,
        block_ids=block_ids,
        transfer=transfer,
        fleet=fleet_settings(config.fleet),
        request_latency_ns=front_end.request_latency_ns,
        response_latency_ns=front_end.response_latency_ns,
        record_steps=record_steps,
        record_decisions=record_decisions,
        streaming=round(config.measurement.warm_up * NS_PER_S) if streams else None,
        common_blocks=common_blocks,
        threads=threads,
    )
