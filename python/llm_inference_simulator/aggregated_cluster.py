"""An aggregated cluster: equal engines behind one router, each doing prefill and decode."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.config import EngineConfig, SimulatorConfig

if TYPE_CHECKING:
    from llm_inference_simulator._core import CostModel, Simulation
    from llm_inference_simulator.calibration import FrontEndLatency
    from llm_inference_simulator.capacity import MemoryPlan
    from llm_inference_simulator.workload import Workload

NS_PER_MS = 1_000_000


def engine_settings(
    engine: EngineConfig,
    *,
    max_model_len: int,
    num_gpu_blocks: int,
    attention_window: tuple[str, int] | None = None,
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
    )


def build_simulation(
    config: SimulatorConfig,
    plan: MemoryPlan,
    cost_model: CostModel,
    workload: Workload,
    front_end: FrontEndLatency,
    *,
    attention_window: tuple[str, int] | None,
    record_steps: bool,
    record_decisions: bool,
) -> Simulation:
    """Hand the cluster of ``config`` and its workload to the core."""
    from llm_inference_simulator._core import Simulation

    settings = engine_settings(
        config.engine,
        max_model_len=plan.max_model_len,
        num_gpu_blocks=plan.num_gpu_blocks,
        attention_window=attention_window,
    )
    block_offsets = block_ids = None
    if workload.segments is not None and config.engine.enable_prefix_caching:
        block_offsets, block_ids = workload.segments.blocks(config.engine.block_size)
    return Simulation(
        pools=[(settings, cost_model, config.cluster.n_engines)],
        router=config.cluster.router,
        arrival_ns=workload.arrival_ns,
        prompt_tokens=workload.prompt_tokens,
        output_tokens=workload.output_tokens,
        max_concurrency=workload.max_concurrency,
        priority=workload.priority,
        after=workload.after,
        block_offsets=block_offsets,
        block_ids=block_ids,
        request_latency_ns=round(front_end.request_latency_ms * NS_PER_MS),
        response_latency_ns=round(front_end.response_latency_ms * NS_PER_MS),
        record_steps=record_steps,
        record_decisions=record_decisions,
    )
