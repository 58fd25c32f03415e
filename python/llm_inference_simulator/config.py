"""The whole configuration of a simulation: validated, frozen, complete enough to run again.

Engine settings carry vLLM's names. Every section refuses unknown keys with the nearest valid one,
and every message names the field, the value and what is allowed.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.sections import (
    LARGEST_COUNT,
    LONGEST_S,
    MOST_ENGINES,
    Count,
    Engines,
    Fraction,
    GoodputMetric,
    Milliseconds,
    NonNegativeReal,
    Percentile,
    PositiveReal,
    Ratio,
    Seconds,
    Section,
    Seed,
    StageCount,
    WholeNumber,
)
from llm_inference_simulator.workload_config import WorkloadConfig

RouterName = Literal[
    "round_robin",
    "random",
    "least_outstanding",
    "least_outstanding_tokens",
    "power_of_two",
    "session_affinity",
    "prefix_aware",
]


def _parallel_layout(tensor_parallel_size: int, pipeline_parallel_size: int) -> str:
    layout = f"tensor_parallel_size={tensor_parallel_size}"
    if pipeline_parallel_size > 1:
        layout += f" and pipeline_parallel_size={pipeline_parallel_size}"
    return layout


class EngineConfig(Section):
    """One engine's settings, in vLLM's names."""

    dtype: Literal["auto", "bfloat16", "float16"] = "auto"
    quantization: Literal["fp8", "int8", "int4"] | None = None
    """Weight format; None: what the model's own config.json says."""
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8"] = "auto"
    max_num_seqs: Count = 256
    max_num_batched_tokens: Count = 8192
    max_model_len: Count | None = None
    """Longest prompt + output; None: the model's context, or what the KV cache holds if less."""
    gpu_memory_utilization: Fraction = 0.9
    block_size: Count = 16
    num_gpu_blocks_override: Annotated[int, Field(ge=2, le=LARGEST_COUNT)] | None = None
    """KV blocks instead of the computed number; one of them is vLLM's null block."""
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: WholeNumber = 0
    long_prefill_token_threshold_adaptive: bool = False
    """Raise the threshold to max_num_batched_tokens / requests in the engine, where more."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    scheduler_reserve_full_isl: bool = True
    """Admit a request only when its whole prompt fits, not only the first chunk."""
    watermark: Ratio = 0.0
    """Share of the KV blocks that admission leaves free while others run."""
    async_scheduling: bool = True
    """Decide the next step while the current one runs; off, host work adds to every step."""
    enable_expert_parallel: bool = False
    """Whether routed experts are spread whole over the accelerators instead of sliced."""
    generation_config: Literal["auto", "vllm"] = "auto"
    """Whether requests have the sampling parameters that the model's generation_config.json asks
    for (vLLM's default), or vLLM's neutral ones: repetition penalties make steps longer."""
    scheduling_overhead_ms: Milliseconds = 0.0
    """Host time before a step can start; ``async_scheduling`` hides it behind the step before."""
    batching_strategy: Literal["continuous", "static", "windowed"] = "continuous"
    max_batch_size: Count | None = None
    """Upper bound on requests that run together, beside ``max_num_seqs``."""
    batch_window_ms: Milliseconds = 100.0
    """How long ``windowed`` batching waits for a full batch after the first request."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_model_len is not None:
            problem = self._whole_prompts_problem(self.max_model_len)
            if problem is not None:
                raise ValueError(problem)
        return self

    def require_whole_prompts(self, max_model_len: int) -> None:
        """Without chunked prefill a prompt must fit a step; :class:`ConfigError` if it may not."""
        problem = self._whole_prompts_problem(max_model_len)
        if problem is not None:
            raise ConfigError(problem)

    def _whole_prompts_problem(self, max_model_len: int) -> str | None:
        if self.enable_chunked_prefill or self.max_num_batched_tokens >= max_model_len:
            return None
        return (
            f"max_num_batched_tokens={self.max_num_batched_tokens} is below max_model_len="
            f"{max_model_len} while enable_chunked_prefill is off: a prompt must fit a step; give "
            f"--max-num-batched-tokens {max_model_len}, or --max-model-len "
            f"{self.max_num_batched_tokens}, or enable chunked prefill"
        )


class FrontEndConfig(Section):
    """What lies between clients and engines."""

    request_latency_ms: Milliseconds | None = None
    """From a client's sending to the engine's queue: HTTP, tokenising; None: what the calibration
    measured, else 0."""
    response_latency_ms: Milliseconds | None = None
    """From the end of a step to the client: detokenising, HTTP; None as above."""


class PerformanceModelConfig(Section):
    """What prices a step."""

    performance_model: Literal["roofline", "vllm_roofline", "op_table"] | None = None
    """None: what ``calibration_data`` is made for; without it ``op_table`` where kernel tables of
    the accelerator come along, else ``roofline``."""
    calibration_data: str | None = None
    """Calibration file, or the name of a shipped one; None: the accelerator's shipped one, for
    models that need it."""
    all_reduce: Literal["auto", "ring", "tree"] = "auto"
    """How a tensor-parallel group sums; auto: whichever is faster for the payload."""
    expert_distribution: Literal["balanced", "power_law_1.01", "power_law_1.2"] = "power_law_1.2"
    """How tokens spread over experts in the kernel tables of ``op_table``."""
    expert_load_imbalance: Annotated[float, Field(ge=1, le=1000, allow_inf_nan=False)] = 1.0
    """Tokens that the busiest accelerator's experts serve over the mean, where experts are spread
    over accelerators; kernel tables include it."""

    @model_validator(mode="after")
    def _calibration_matches(self) -> Self:
        if self.performance_model == "roofline" and self.calibration_data:
            raise ValueError(
                f"calibration_data={self.calibration_data!r} is not used by "
                "performance_model=roofline: use vllm_roofline or op_table, or leave it out"
            )
        return self


class PoolConfig(Section):
    """Equal engines of a cluster; what is left out is the whole configuration's."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """Names the pool in results; None: pool0, pool1, … by its place."""
    role: Literal["aggregated", "prefill", "decode"] = "aggregated"
    """Prefill engines compute prompts and first tokens, decode engines what follows."""
    xpu: str | None = None
    """Catalogue name, or path of a YAML file; None: the configuration's ``xpu``."""
    n_engines: Engines | None = None
    """None: as many as ``n_xpus`` allow, or 1."""
    n_xpus: Count | None = None
    """Accelerators of the pool; None: exactly what its engines need."""
    tensor_parallel_size: Count = 1
    pipeline_parallel_size: StageCount = 1
    """Stages that an engine's layers are divided into, on accelerators of their own."""
    n_xpus_per_node: Count | None = None
    """Accelerators in a node, where an engine's stages lie on several; None: on one."""
    inter_node_bandwidth_gb_s: PositiveReal | None = None
    """Of an accelerator to another node, in GB/s; None: ``cluster.inter_node_bandwidth_gb_s``."""
    engine: EngineConfig | None = None
    """Engine settings; those not set here are the configuration's ``engine``."""
    performance: PerformanceModelConfig | None = None
    """What prices its steps; None: the configuration's ``performance``."""
    transfer_bandwidth_gb_s: PositiveReal | None = None
    """Of an engine's link to those of the other role; None: ``transfer.bandwidth_gb_s``."""

    @model_validator(mode="after")
    def _engines_fit(self) -> Self:
        per_node = self.n_xpus_per_node
        if per_node is not None and self.tensor_parallel_size > per_node:
            raise ValueError(
                f"tensor_parallel_size={self.tensor_parallel_size} exceeds "
                f"n_xpus_per_node={per_node}: a tensor-parallel group must lie inside a node; "
                "lower it or use larger nodes"
            )
        if self.n_xpus is None:
            return self
        possible = self.n_xpus // self.xpus_per_engine
        if possible < (self.n_engines or 1):
            wanted = f"n_engines={self.n_engines}" if self.n_engines else "an engine"
            raise ValueError(
                f"n_xpus={self.n_xpus} do not hold {wanted} of {self.parallel_layout}: at most "
                f"{possible} fit; raise n_xpus or lower the others"
            )
        return self

    @property
    def xpus_per_engine(self) -> int:
        """Accelerators of all stages."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def parallel_layout(self) -> str:
        """How an engine is divided, in the words of the configuration."""
        return _parallel_layout(self.tensor_parallel_size, self.pipeline_parallel_size)

    @property
    def crosses_nodes(self) -> tuple[bool, ...]:
        """Of each stage but the first: whether the one before it lies on another node."""
        stages = range(1, self.pipeline_parallel_size)
        if self.n_xpus_per_node is None:
            return tuple(False for _ in stages)
        per_node = self.n_xpus_per_node // self.tensor_parallel_size
        return tuple(stage % per_node == 0 for stage in stages)

    @property
    def size(self) -> int:
        """Number of engines."""
        if self.n_engines is not None:
            return self.n_engines
        return 1 if self.n_xpus is None else self.n_xpus // self.xpus_per_engine


class ClusterConfig(Section):
    """Nodes, accelerators and how they are divided into engines."""

    n_nodes: Count = 1
    n_xpus_per_node: Count | None = None
    """Accelerators in a node; None: exactly what the parallel layout needs."""
    tensor_parallel_size: Count = 1
    pipeline_parallel_size: StageCount = 1
    """Stages that an engine's layers are divided into, on accelerators of their own."""
    inter_node_bandwidth_gb_s: PositiveReal | None = None
    """Of an accelerator to another node, in GB/s; stages on several nodes need it."""
    inter_node_latency_us: NonNegativeReal = 10.0
    """Of a batch between stages on different nodes, besides its bytes."""
    data_parallel_size: Engines | None = None
    """Number of engines; None: as many as the accelerators allow, or 1."""
    router: RouterName = "round_robin"
    """How requests get their engine (docs/spec.md, 2.8)."""
    router_view_delay_ms: Milliseconds = 0.0
    """prefix_aware: how old the router's knowledge of the engines' caches is."""
    router_imbalance: WholeNumber = 32
    """prefix_aware: outstanding requests above the idlest engine's at which a cache is given up."""
    pools: tuple[PoolConfig, ...] = ()
    """Groups of equal engines; none: one group that the fields above describe."""

    @model_validator(mode="after")
    def _pools_fit(self) -> Self:
        if not self.pools:
            return self
        for field in (
            "n_nodes",
            "n_xpus_per_node",
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "data_parallel_size",
        ):
            if getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(
                    f"{field}={getattr(self, field)} describes a cluster without pools, but pools "
                    "are given: set each pool's own n_engines and tensor_parallel_size"
                )
        names = [pool.name for pool in self.named_pools]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"pools: two are named {twice!r}: give each a name of its own")
        roles = {pool.role for pool in self.pools}
        if roles not in ({"aggregated"}, {"prefill", "decode"}):
            raise ValueError(
                f"pools have the role {' and '.join(sorted(roles))}: give all aggregated engines, "
                "or prefill engines and decode engines"
            )
        if self.n_engines > MOST_ENGINES:
            raise ValueError(
                f"pools make {self.n_engines} engines: at most {MOST_ENGINES} are simulated"
            )
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        tp, per_node = self.tensor_parallel_size, self.n_xpus_per_node
        if per_node is None:
            if self.n_nodes > 1:
                raise ValueError(
                    f"n_nodes={self.n_nodes} needs n_xpus_per_node: give the accelerators in a node"
                )
            return self
        if tp > per_node:
            raise ValueError(
                f"tensor_parallel_size={tp} exceeds n_xpus_per_node={per_node}: a tensor-parallel "
                "group must lie inside a node; lower it or use larger nodes"
            )
        possible, layout = self._most_engines, _parallel_layout(tp, self.pipeline_parallel_size)
        if not possible:
            raise ValueError(
                f"{layout} needs {tp * self.pipeline_parallel_size} accelerators, whole "
                f"tensor-parallel groups in a node: {self.n_nodes} node(s) of "
                f"n_xpus_per_node={per_node} do not hold an engine; lower the sizes or raise "
                "n_nodes"
            )
        if self.data_parallel_size is not None and self.data_parallel_size > possible:
            raise ValueError(
                f"data_parallel_size={self.data_parallel_size} engines of "
                f"{layout} do not fit {self.n_nodes} node(s) of {per_node} "
                f"accelerators: at most {possible} do"
            )
        if self.n_engines > MOST_ENGINES:
            raise ValueError(
                f"n_nodes={self.n_nodes} of n_xpus_per_node={per_node} make {self.n_engines} "
                f"engines of {layout}: at most {MOST_ENGINES} are simulated"
            )
        return self

    @property
    def n_engines(self) -> int:
        """Number of engines that the layout makes."""
        if self.pools:
            return sum(pool.size for pool in self.pools)
        if self.data_parallel_size is not None:
            return self.data_parallel_size
        if self.n_xpus_per_node is None:
            return 1
        return self._most_engines

    @property
    def _most_engines(self) -> int:
        """Engines that the nodes hold: several in a node, or one on several whole nodes."""
        groups = (self.n_xpus_per_node or 0) // self.tensor_parallel_size
        if groups >= self.pipeline_parallel_size:
            return groups // self.pipeline_parallel_size * self.n_nodes
        return self.n_nodes // -(-self.pipeline_parallel_size // groups) if groups else 0

    @property
    def n_xpus_used(self) -> int:
        """Accelerators that belong to an engine."""
        return sum(pool.size * pool.xpus_per_engine for pool in self.named_pools)

    @property
    def is_disaggregated(self) -> bool:
        """Whether prefill and decode have engines of their own."""
        return any(pool.role != "aggregated" for pool in self.pools)

    @property
    def named_pools(self) -> tuple[PoolConfig, ...]:
        """Every pool with a name and a number of engines; one where none are given."""
        if not self.pools:
            # The same bounds hold for the cluster's own fields, which have been checked.
            only = PoolConfig.model_construct(
                name="engines",
                n_engines=self.n_engines,
                tensor_parallel_size=self.tensor_parallel_size,
                pipeline_parallel_size=self.pipeline_parallel_size,
                n_xpus_per_node=self.n_xpus_per_node,
            )
            return (only,)
        return tuple(
            pool if pool.name is not None else pool.model_copy(update={"name": f"pool{index}"})
            for index, pool in enumerate(self.pools)
        )


class TransferConfig(Section):
    """How keys and values go from prefill to decode engines (docs/spec.md, section 12)."""

    bandwidth_gb_s: Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)] | None = None
    """Of each engine's link in GB/s, concurrent transfers together; disaggregation needs it."""
    latency_ms: Milliseconds = 0.0
    """From the reservation of blocks until bytes flow."""
    fabric_bandwidth_gb_s: Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)] | None = (
        None
    )
    """Of all transfers together in GB/s; None: only the engines' links bound them."""
    mode: Literal["after_prefill", "layerwise"] = "after_prefill"
    """layerwise: layers are sent while a prompt's last step computes the next ones."""


class EngineEvent(Section):
    """Something planned that happens to one engine (docs/spec.md, 13.1)."""

    at_s: Seconds
    """Seconds after the start."""
    engine: WholeNumber
    """Its index; pools follow one another."""
    change: Literal["fail", "drain", "up"]
    """fail: its cache, queue and running step are lost; drain: it finishes what it has."""
    back_after_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] | None = None
    """Seconds until it takes requests again, its cold start included; None: it stays away."""

    @model_validator(mode="after")
    def _back_from_where(self) -> Self:
        if self.change == "up" and self.back_after_s is not None:
            raise ValueError(
                f"back_after_s={self.back_after_s} of an engine that comes up: leave it out"
            )
        return self


class AutoscalingConfig(Section):
    """Starts and drains engines by the length of the queues (docs/spec.md, 13.6)."""

    min_engines: Engines
    """Engines that are up at first, and at least; the cluster's own number is the most. Of prefill
    and of decode engines each, where there are such."""
    interval_s: Annotated[float, Field(ge=1e-3, le=LONGEST_S, allow_inf_nan=False)] = 10.0
    start_above: WholeNumber = 4
    """Waiting requests per engine beyond which another one starts."""
    drain_below: WholeNumber = 1
    """Waiting requests per engine below which one drains."""
    startup_s: Seconds = 60.0
    """From the decision to start an engine until it takes requests."""


class FleetConfig(Section):
    """How a cluster changes, and what requests put up with (docs/spec.md, section 13)."""

    max_queue: WholeNumber | None = None
    """Waiting requests of an engine at which it rejects new ones."""
    request_timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] | None = (
        None
    )
    """Seconds after which an unanswered request is given up."""
    max_retries: WholeNumber = 0
    """How often a request that was lost with its engine is sent to another one."""
    events: tuple[EngineEvent, ...] = ()
    autoscaling: AutoscalingConfig | None = None


class MeasurementConfig(Section):
    """Which requests are counted, and what is computed from them."""

    warm_up: Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)] = 0.0
    """Seconds at the start whose arrivals are simulated but not counted."""
    metric_percentiles: tuple[Percentile, ...] = (50.0, 90.0, 99.0)
    goodput: dict[GoodputMetric, PositiveReal] = Field(default_factory=dict)
    """Objectives in milliseconds; a request is good when it meets all of them."""
    streaming: bool = False
    """Bounded memory for runs of any length: requests are made, counted and forgotten while the
    run goes on; percentiles come from histograms (docs/guides/large_runs.md)."""


class PricingConfig(Section):
    """What an accelerator costs by the hour."""

    price_tier: str | None = None
    """One of the accelerator entry's tiers; None: the first of energy.TIER_ORDER that it has."""
    price_per_hour_usd: NonNegativeReal | None = None
    """US dollars per accelerator and hour, instead of the entry's."""

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if self.price_tier is not None and self.price_per_hour_usd is not None:
            raise ValueError(
                f"price_tier={self.price_tier} and price_per_hour_usd={self.price_per_hour_usd} "
                "are both given: leave one out"
            )
        return self


class SimulatorConfig(Section):
    """Everything a simulation depends on besides the version of the simulator."""

    has_flags: ClassVar[bool] = True

    model: str
    """Catalogue name, or path of a Hugging Face config.json or of the folder that holds it."""
    xpu: str
    """Catalogue name, or path of a YAML file."""
    cluster: ClusterConfig = Field(default_factory=ClusterConfig.default)
    engine: EngineConfig = Field(default_factory=EngineConfig.default)
    transfer: TransferConfig = Field(default_factory=TransferConfig.default)
    fleet: FleetConfig = Field(default_factory=FleetConfig.default)
    front_end: FrontEndConfig = Field(default_factory=FrontEndConfig.default)
    performance: PerformanceModelConfig = Field(default_factory=PerformanceModelConfig.default)
    workload: WorkloadConfig = Field(default_factory=WorkloadConfig.default)
    measurement: MeasurementConfig = Field(default_factory=MeasurementConfig.default)
    pricing: PricingConfig = Field(default_factory=PricingConfig.default)
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_in_pools(cls, data: Any) -> Any:
        """Give each pool the engine settings that it does not set itself.

        Where every pool names its accelerator, the configuration needs none: take the first.
        """
        if not isinstance(data, Mapping) or not isinstance(data.get("cluster"), Mapping):
            return data
        cluster: Mapping[str, Any] = data["cluster"]
        pools = cluster.get("pools")
        if not isinstance(pools, tuple) or not all(isinstance(pool, Mapping) for pool in pools):
            return data
        engine, filled = data.get("engine", {}), []
        for pool in pools:
            own = pool.get("engine")
            merges = isinstance(own, Mapping) and isinstance(engine, Mapping)
            filled.append({**pool, "engine": {**engine, **own}} if merges else pool)
        xpus = [pool.get("xpu") for pool in pools]
        xpu = {"xpu": xpus[0]} if xpus and None not in xpus and "xpu" not in data else {}
        return {**data, **xpu, "cluster": {**cluster, "pools": tuple(filled)}}

    @model_validator(mode="after")
    def _pool_engines_are_valid(self) -> Self:
        for index, pool in enumerate(self.cluster.pools):
            try:
                self.engine_of(pool)
            except ConfigError as error:
                raise ValueError(f"cluster.pools.{index}.engine{error}") from None
        return self

    @model_validator(mode="after")
    def _transfers_are_possible(self) -> Self:
        pools = [pool for pool in self.cluster.named_pools if pool.role != "aggregated"]
        for pool in pools:
            strategy = self.engine_of(pool).batching_strategy
            if strategy != "continuous":
                raise ValueError(
                    f"batching_strategy={strategy!r} of pool {pool.name}: prefill and decode "
                    "engines batch continuously; leave it out"
                )
            if pool.transfer_bandwidth_gb_s is None and self.transfer.bandwidth_gb_s is None:
                raise ValueError(
                    f"transfer.bandwidth_gb_s is missing: pool {pool.name} needs the bandwidth of "
                    "its engines' links; give --transfer-bandwidth GB_PER_S"
                )
        if not pools and self.transfer != TransferConfig.default():
            raise ValueError(
                "transfer describes what goes from prefill to decode engines, but there are none: "
                "give --disaggregated, or pools with roles, or leave it out"
            )
        return self

    def engine_of(self, pool: PoolConfig) -> EngineConfig:
        """Engine settings of a pool: its own over the configuration's."""
        if pool.engine is None:
            return self.engine
        own = pool.engine.model_dump(exclude_unset=True)
        return EngineConfig.parse({**self.engine.model_dump(), **own}, source="")

    def performance_of(self, pool: PoolConfig) -> PerformanceModelConfig:
        """What prices the steps of a pool."""
        return self.performance if pool.performance is None else pool.performance

    def stage_bytes_per_s(self, pool: PoolConfig) -> float | None:
        """What an accelerator of a pool sends to another node; None where it is not given."""
        given = pool.inter_node_bandwidth_gb_s or self.cluster.inter_node_bandwidth_gb_s
        return None if given is None else given * 1e9

    @model_validator(mode="after")
    def _stages_are_joined(self) -> Self:
        for pool in self.cluster.named_pools:
            if any(pool.crosses_nodes) and self.stage_bytes_per_s(pool) is None:
                raise ValueError(
                    f"{pool.parallel_layout} does not fit a node of "
                    f"n_xpus_per_node={pool.n_xpus_per_node}, and the bandwidth between nodes is "
                    "not known: give --inter-node-bandwidth GB_PER_S"
                )
        return self

    @model_validator(mode="after")
    def _fleet_fits(self) -> Self:
        fleet, n_engines = self.fleet, self.cluster.n_engines
        for index, event in enumerate(fleet.events):
            if event.engine >= n_engines:
                raise ValueError(
                    f"fleet.events.{index}.engine={event.engine}: the cluster has engines 0 to "
                    f"{n_engines - 1}"
                )
        if fleet.autoscaling is None:
            return self
        pools = self.cluster.named_pools
        for role in dict.fromkeys(pool.role for pool in pools):
            size = sum(pool.size for pool in pools if pool.role == role)
            if fleet.autoscaling.min_engines > size:
                of_role = "" if role == "aggregated" else f"{role} "
                raise ValueError(
                    f"fleet.autoscaling.min_engines={fleet.autoscaling.min_engines} exceeds the "
                    f"cluster's {size} {of_role}engines: lower it or raise data_parallel_size"
                    " (n_engines of a pool)"
                )
        return self

    @model_validator(mode="after")
    def _streaming_fits(self) -> Self:
        if not self.measurement.streaming:
            return self
        if self.cluster.is_disaggregated:
            raise ValueError(
                "measurement.streaming=True, but the pools have roles: runs with transfers keep "
                "all requests; leave one out"
            )
        if self.fleet != FleetConfig.default():
            raise ValueError(
                "measurement.streaming=True, but fleet has requests leave early: such runs keep "
                "all requests; leave one out"
            )
        return self

    def link_bytes_per_s(self, pool: PoolConfig) -> int:
        """Bandwidth of each of a pool's engines to those of the other role; 0 without one."""
        own = pool.transfer_bandwidth_gb_s or self.transfer.bandwidth_gb_s or 0.0
        return 0 if pool.role == "aggregated" else max(1, round(own * 1e9))

    def xpu_of(self, pool: PoolConfig) -> str:
        """Accelerator of a pool."""
        return self.xpu if pool.xpu is None else pool.xpu

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        duration, warm_up = self.workload.arrival_seconds, self.measurement.warm_up
        if duration is not None and warm_up >= duration:
            period = "duration" if self.workload.rate_stages is None else "the sum of rate_stages"
            raise ValueError(
                f"warm_up={warm_up} s is not shorter than {period}={duration} s: nothing would be "
                "counted"
            )
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "configuration") -> Self:
        """Build from plain data as YAML or JSON gives it; raises :class:`ConfigError`."""
        return cls.parse(as_tuples(data), source=source)

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file; raises :class:`ConfigError` naming file, field and remedy."""
        from llm_inference_simulator.files import read_mapping

        return cls.from_dict(read_mapping(Path(path), "configuration file"), source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that :meth:`from_dict` turns into an equal configuration."""
        data = self.model_dump(mode="json", exclude_unset=False)
        for dumped, pool in zip(data["cluster"]["pools"], self.cluster.pools, strict=True):
            if pool.engine is not None:
                dumped["engine"] = self.engine_of(pool).model_dump(mode="json")
        return data


def as_tuples(data: Any) -> Any:
    """Make lists tuples and "inf" infinite: what YAML and JSON cannot say in strict mode."""
    if isinstance(data, Mapping):
        return {key: as_tuples(value) for key, value in data.items()}
    if isinstance(data, list):
        return tuple(as_tuples(value) for value in data)
    if isinstance(data, str) and data.casefold() in ("inf", "infinity", ".inf"):
        return math.inf
    return data
