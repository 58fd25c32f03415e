"""What the core needs to know of a serving engine, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """One engine as the core sees it: vLLM's names, everything resolved to numbers.

    ``num_gpu_blocks`` counts vLLM's null block; ``batch_window_ns`` matters to ``windowed`` only.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int
    num_gpu_blocks: int
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    enable_prefix_caching: bool = False
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    scheduler_reserve_full_isl: bool = True
    watermark_blocks: int = 0
    async_scheduling: bool = False
    step_overhead_ns: int = 0
    batching_strategy: Literal["continuous", "static", "windowed"] = "continuous"
    batch_window_ns: int = 0
    attention_window: tuple[str, int] | None = None
    """("sliding" or "chunked", tokens) that layers with a window see: for step costs alone."""
    role: Literal["aggregated", "prefill", "decode"] = "aggregated"
    link_bytes_per_s: int = 0
    """What its link to engines of the other role carries."""
    pipeline_parallel_size: int = 1
    """Stages of its pipeline, each with a cost model of its own (docs/spec.md, section 14)."""
    stage_links: tuple[tuple[int, int, int], ...] = ()
    """(latency in ns, bytes a token, bytes a second) of what lies between each two stages."""
    data_parallel_group: int | None = None
    """Engines with the same number, which follow one another, step together (docs/spec.md,
    section 15); None: it steps alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """How keys and values go from prefill to decode engines (docs/spec.md, section 12)."""

    kv_bytes_per_token: int
    fabric_bytes_per_s: int | None = None
    """Of all transfers together; None: only the engines' links bound them."""
    latency_ns: int = 0
    layers: int = 0
    """Layers that are sent one after the other while a prompt is computed; 0: all after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSettings:
    """Starts and drains engines by the length of the queues (docs/spec.md, 13.6)."""

    min_engines: int
    interval_ns: int
    start_above: int
    """Waiting requests per engine beyond which another one starts."""
    drain_below: int
    """Waiting requests per engine below which one drains."""
    startup_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """How a cluster changes, and what requests put up with (docs/spec.md, section 13)."""

    planned: tuple[tuple[int, int, str], ...] = ()
    """(time in ns, engine, "fail", "drain" or "up"), in order of time."""
    max_retries: int = 0
    timeout_ns: int | None = None
    max_queue: int | None = None
    autoscaling: AutoscalingSettings | None = None
