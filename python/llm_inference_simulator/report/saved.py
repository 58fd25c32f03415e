"""A result as the page reads it: the keys of the result JSON that are shown, and the digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import read_text
from llm_inference_simulator.metrics import LATENCY_METRICS, percentile_name
from llm_inference_simulator.results import SCHEMA_VERSION
from llm_inference_simulator.sections import Section

DIGEST_KEY = "report_digest"
"""Where a result JSON carries the :class:`Digest`."""
DIGEST_VERSION = 1

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(Section):
    """A part of a result: what is not shown is let pass."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, protected_namespaces=(), allow_inf_nan=False
    )


class Distribution(_Part):
    """One latency of all counted completed requests, in milliseconds."""

    quantiles: list[Number]
    """Shares of the requests, ascending from 0 to 1."""
    values_ms: list[Number]
    """The latency at each."""
    first_bin: int
    """Bin 0 begins at 1 ms; there are ``digest.BINS_PER_DECADE`` to a factor of ten."""
    counts: list[int]
    """Requests in each bin from ``first_bin`` on."""


class PoolOverTime(_Part):
    """A pool's state, one mean per bin of time."""

    name: str
    waiting: list[Number]
    running: list[Number]
    kv_share: list[Number | None]
    """Used share of the KV blocks; None: not known in this bin."""
    busy_share: list[Number]
    prefill_tokens_per_s: list[Number]
    decode_tokens_per_s: list[Number]


class OverTime(_Part):
    """The run in bins of equal length."""

    bin_s: Annotated[Number, Field(gt=0)]
    pools: list[PoolOverTime]


class Component(_Part):
    """A component's share of the busy time, while it is bound by one thing."""

    name: str
    bound: str
    share: Number


class PoolComponents(_Part):
    """What the busy time of a pool's engines consists of."""

    pool: str
    steps: int
    sampled_steps: int
    components: list[Component]
    provenance: dict[str, Number]
    """Share of the busy time by where its figure comes from: measured, analytic, …"""


class SlowRequest(_Part):
    """The phases of one of the slowest requests; they add up to its end-to-end latency."""

    request: int
    arrival_s: Number
    queued_ms: Number
    prefill_ms: Number
    handover_ms: Number
    transfer_ms: Number
    decode_ms: Number
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    preemptions: int
    engine: int


class Digest(_Part):
    """What the page's charts need of a run, small whatever the run's size."""

    version: Annotated[int, Field(ge=1, le=DIGEST_VERSION)]
    distributions: dict[str, Distribution]
    over_time: OverTime
    components: list[PoolComponents]
    slowest: list[SlowRequest]


class Capacity(_Part):
    """Memory of one accelerator and the KV cache of one engine."""

    num_gpu_blocks: int
    block_size: int
    kv_cache_tokens: int
    max_model_len: int
    weight_bytes_per_rank: int
    activation_bytes: int
    runtime_bytes: int
    kv_cache_bytes: int
    usable_bytes: int
    total_bytes: int


class Pool(_Part):
    """Equal engines."""

    name: str
    role: str
    xpu: str
    n_engines: int
    n_xpus: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    requests: int
    busy_share: Number | None
    capacity: Capacity
    performance_model: str
    performance_description: str
    calibration_file: str | None
    calibration_sha256: str | None


class Engine(_Part):
    """Totals of one engine."""

    engine: int
    pool: str
    requests: int
    steps: int
    preemptions: int
    busy_s: Number
    peak_kv_blocks: int
    prefix_cache_queries: int
    prefix_cache_hits: int


class Measurement(_Part):
    """What was counted."""

    window_start_s: Number
    window_end_s: Number
    drain_s: Number
    counted: int
    excluded_warm_up: int
    unfinished: int


class Utilisation(_Part):
    """Over the whole run."""

    span_s: Number
    engine_busy_share: Number | None
    mfu: Number | None
    memory_bandwidth_utilisation: Number | None


class EnergyAndCost(_Part):
    """What went into energy and cost."""

    xpus: int
    mean_power_w: Number | None
    price_per_hour_usd: Number | None
    price_tier: str | None
    price_source: str | None
    price_date: str | None
    notes: list[str]


class Provenance(_Part):
    """Where the numbers come from."""

    version: str
    seed: int
    workload: str
    trace_hash: str
    config_is_complete: bool


class ClassOfRequests(_Part):
    """A class of requests with its own objectives."""

    name: str
    counted: int
    request_throughput: Number | None
    slo_attainment: Number | None
    latencies: dict[str, Number | None]


class SavedResult(_Part):
    """A result JSON; ``latencies`` has all of its ``{statistic}_{metric}_ms``."""

    schema_version: int
    complete: bool
    model_id: str
    completed: int
    failed: int
    total_input_tokens: int
    total_output_tokens: int
    request_throughput: Number | None
    output_throughput: Number | None
    total_token_throughput: Number | None
    request_goodput: Number | None
    slo_attainment: Number | None
    measurement: Measurement
    pools: Annotated[list[Pool], Field(min_length=1)]
    utilisation: Utilisation
    energy_joules: Number | None
    joules_per_output_token: Number | None
    cost_usd: Number | None
    per_million_output_tokens_usd: Number | None
    per_million_input_tokens_usd: Number | None
    energy_and_cost: EnergyAndCost
    engines: list[Engine]
    warnings: list[str]
    provenance: Provenance
    config: dict[str, Any]
    latencies: dict[str, Number | None]
    percentiles: list[str]
    classes: list[ClassOfRequests] = Field(default_factory=list)
    report_digest: Digest | None = None

    @property
    def tail(self) -> str:
        """The highest percentile that the result has, or the mean."""
        return max(self.percentiles, key=lambda name: float(name[1:]), default="mean")

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any], *, source: str) -> Self:
        """Read the plain data of a result JSON; raises :class:`ConfigError` naming ``source``."""
        found = summary.get("schema_version")
        if found != SCHEMA_VERSION:
            raise ConfigError(
                f"{source}: schema_version={found!r} is not {SCHEMA_VERSION}: give a result that "
                "run --output wrote with this version of the simulator"
            )
        percentiles = _percentile_names(summary)
        plain = {**summary, "percentiles": percentiles}
        plain["latencies"] = _latencies(summary, percentiles)
        classes = summary.get("classes")
        if isinstance(classes, list):
            plain["classes"] = [
                {**each, "latencies": _latencies(each, percentiles)}
                if isinstance(each, dict)
                else each
                for each in classes
            ]
        return cls.parse(plain, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDigest:
    """The digest of a result on a page."""

    place: int
    """Of the result among those of the page, which gives its colour."""
    name: str
    several: bool
    """Whether the page has other results, so that the name tells something."""
    digest: Digest


@dataclass(frozen=True, slots=True)
class NamedResult:
    """A result under its name on a page."""

    name: str
    result: SavedResult


def _latencies(summary: Mapping[str, Any], percentiles: list[str]) -> dict[str, Any]:
    """The ``{statistic}_{metric}_ms`` of a result, or of one of its classes."""
    names = ("mean", "median", "std", *percentiles)
    keys = (f"{name}_{metric}_ms" for metric in LATENCY_METRICS for name in names)
    return {key: summary.get(key) for key in keys}


def _percentile_names(summary: Mapping[str, Any]) -> list[str]:
    """The percentiles that the result was asked for, as in its keys."""
    config = summary.get("config")
    measurement = config.get("measurement") if isinstance(config, dict) else None
    given = measurement.get("metric_percentiles") if isinstance(measurement, dict) else None
    numbers = given if isinstance(given, list) else []
    return [percentile_name(p) for p in numbers if isinstance(p, int | float)]


def read_result(path: Path) -> SavedResult:
    """Read a result JSON; raises :class:`ConfigError` naming file, key and remedy."""
    text = read_text(path, "result")
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as cause:
        where = f" (line {cause.lineno})" if isinstance(cause, json.JSONDecodeError) else ""
        raise ConfigError(
            f"result {path} is not valid JSON{where}: give a file that run --output wrote"
        ) from None
    if not isinstance(data, dict):
        raise ConfigError(f"result {path} holds no mapping: give a file that run --output wrote")
    return SavedResult.from_summary(data, source=str(path))
