"""What a simulation gives: request columns, metrics, capacity, utilisation, and files of them."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator import diagnostics, metrics, tables
from llm_inference_simulator.class_results import summarise_classes
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.energy import AcceleratorEconomics, PoolUse, energy_and_cost
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_text
from llm_inference_simulator.metrics import (
    COMPLETED,
    FAILED,
    NS_PER_S,
    REJECTED,
    TIMED_OUT,
    Window,
)

if TYPE_CHECKING:
    from llm_inference_simulator._core import CostModel, EngineStats
    from llm_inference_simulator.decisions import DecisionLog

SCHEMA_VERSION = 1
"""Of the result JSON; raised when a key changes its meaning or goes."""


class TokenSource(Protocol):
    """Token times on demand, as the core's ``Simulation`` gives them."""

    def token_gaps(self, counted: NDArray[np.bool_]) -> metrics.Gaps:
        """Gaps between tokens of the requests where ``counted``."""

    def token_times(
        self, requests: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(times, offsets): those of the i-th request are times[offsets[i]:offsets[i+1]]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Memory and KV cache of one engine; bytes are per accelerator unless said otherwise."""

    num_gpu_blocks: int
    block_size: int
    max_model_len: int
    weight_bytes_per_rank: int
    activation_bytes: int
    runtime_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    """Of the whole model, whatever the tensor-parallel size."""
    kv_bytes_per_token_per_rank: int
    usable_bytes: int
    total_bytes: int

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens whose keys and values fit; vLLM keeps one block as its null block."""
        return (self.num_gpu_blocks - 1) * self.block_size


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSetup:
    """Equal engines, resolved: accelerators, capacity, prices."""

    name: str
    xpu_name: str
    role: str = "aggregated"
    """aggregated, prefill or decode."""
    n_engines: int
    tensor_parallel_size: int
    pipeline_parallel_size: int = 1
    capacity: Capacity
    performance_model: str
    performance_description: str
    calibration_file: str | None = None
    calibration_sha256: str | None = None
    peak_flops: float | None = None
    """Operations per second and accelerator; None where unknown."""
    peak_bandwidth: float | None = None
    """Bytes per second and accelerator; None where unknown."""
    economics: AcceleratorEconomics | None = None
    """Power and price of the accelerator; None: nothing is known of either."""

    @property
    def n_xpus(self) -> int:
        """Accelerators that belong to an engine."""
        return self.n_engines * self.xpus_per_engine

    @property
    def xpus_per_engine(self) -> int:
        """Accelerators of an engine, all stages together."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What ran, resolved from the configuration: names, pools, workload."""

    config: SimulatorConfig
    version: str
    model_name: str
    parameter_count: int
    pools: tuple[PoolSetup, ...]
    """In the order of the engines' indices."""
    workload_description: str
    max_concurrency: int | None
    request_rate: float | None = None
    """Requests per second, infinity where all arrive at once; None: times of a trace."""
    response_latency_ns: int = 0
    """From the end of a step to the client."""
    config_is_complete: bool = True
    """False where a workload or a performance model was passed beside the configuration."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the configuration came from, in the words of who made it."""
    warnings: tuple[str, ...] = ()
    """Findings of capacity, workload and performance model."""

    @property
    def capacity(self) -> Capacity:
        """Memory and KV cache of an engine of the first pool."""
        return self.pools[0].capacity

    @property
    def max_model_len(self) -> int:
        """Longest prompt + output that every engine takes."""
        return min(pool.capacity.max_model_len for pool in self.pools)

    @property
    def pool_of_engine(self) -> tuple[PoolSetup, ...]:
        """The pool of each engine."""
        return tuple(pool for pool in self.pools for _ in range(pool.n_engines))


class SimulationResult:
    """The outcome of :func:`~llm_inference_simulator.simulate`.

    ``requests`` is a dict of numpy columns, one entry per request in the order of the workload:
    those of docs/spec.md, section 11, and ``ttft_ns``, ``tpot_ns`` (float64), ``e2el_ns`` and
    ``queueing_ns``; -1 where undefined. ``steps`` is the same per engine step, or None where steps
    were not recorded. ``complete`` is False after an interruption. ``cost_models`` are what priced
    the steps: of each pool one for each stage of its pipeline.
    """

    def __init__(
        self,
        *,
        setup: Setup,
        columns: Mapping[str, NDArray[Any]],
        requested_output_tokens: NDArray[Any],
        engines: Sequence[EngineStats],
        tokens: TokenSource,
        trace_hash: int,
        now_ns: int,
        complete: bool = True,
        steps: Mapping[str, NDArray[Any]] | None = None,
        decisions: DecisionLog | None = None,
        cost_models: Sequence[Sequence[CostModel]] = (),
    ) -> None:
        self.setup = setup
        self.cost_models = tuple(tuple(stages) for stages in cost_models)
        self.requests: dict[str, NDArray[Any]] = {
            **columns,
            **metrics.derive_latencies(columns),
        }
        self.steps = None if steps is None else dict(steps)
        self.decisions = decisions
        self.engines = tuple(engines)
        self.trace_hash = trace_hash
        self.now_ns = now_ns
        self.complete = complete
        self._requested_output_tokens = requested_output_tokens
        self._tokens = tokens

    percentile_method = "exact"
    """How percentiles of latencies were found."""

    @property
    def config(self) -> SimulatorConfig:
        """The configuration that ran."""
        return self.setup.config

    @cached_property
    def window(self) -> Window:
        """Which requests are counted, over which time."""
        warm_up_ns = round(self.config.measurement.warm_up * NS_PER_S)
        return metrics.measure_window(self.requests, warm_up_ns, self.now_ns)

    @property
    def _completed(self) -> NDArray[np.bool_]:
        counted: NDArray[np.bool_] = self.window.counted & (self.requests["status"] == COMPLETED)
        return counted

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the numbers must know; empty for a healthy run."""
        findings = [self._interruption(), self._nothing_counted(), *self._diagnoses()]
        return (*self.setup.warnings, *(finding for finding in findings if finding))

    def _diagnoses(self) -> list[str | None]:
        """What the requests' rows show."""
        max_model_len = self.setup.max_model_len
        return [
            diagnostics.saturation_warning(self.requests, self.now_ns, self.setup.max_concurrency),
            diagnostics.preemption_warning(self.requests),
            diagnostics.rejection_warning(
                self.requests,
                self._requested_output_tokens,
                max_model_len=max_model_len,
                queue_tokens=self._queue_tokens,
            ),
            diagnostics.truncation_warning(
                self.requests, self._requested_output_tokens, max_model_len=max_model_len
            ),
        ]

    @property
    def _queue_tokens(self) -> int | None:
        """Tokens that every engine's cache holds, where queues are bounded."""
        if self.config.fleet.max_queue is None:
            return None
        return min(pool.capacity.kv_cache_tokens for pool in self.setup.pools)

    def _interruption(self) -> str | None:
        if self.complete:
            return None
        return (
            f"interrupted at simulated time {self.now_ns / NS_PER_S:.3f} s with "
            f"{self.window.unfinished} counted requests unanswered: the results are incomplete"
        )

    def _nothing_counted(self) -> str | None:
        if self.window.n_counted:
            return None
        return (
            f"no request is counted: none arrived after warm_up="
            f"{self.config.measurement.warm_up:g} s; shorten the warm-up or lengthen the load"
        )

    @cached_property
    def _body(self) -> dict[str, Any]:
        measurement = self.config.measurement
        return metrics.summarise(
            self.requests,
            self.window,
            self._tokens.token_gaps(self._completed),
            percentiles=measurement.metric_percentiles,
            objectives_ms={str(name): limit for name, limit in measurement.goodput.items()},
        )

    @cached_property
    def _classes(self) -> dict[str, Any]:
        """Metrics by class of requests; empty without classes."""
        if "class_index" not in self.requests:
            return {}
        return summarise_classes(
            self.config.workload.classes,
            self.requests,
            self.window,
            self._tokens.token_gaps,
            self.config.measurement,
        )

    def summary(self) -> dict[str, Any]:
        """The result JSON as a dict: vLLM's keys at the top level, None where undefined.

        Times in the keys' own units (``_ms``, ``_s``), rates per second, sizes in bytes.
        """
        workload = self.config.workload
        return {
            "schema_version": SCHEMA_VERSION,
            "complete": self.complete,
            "model_id": self.setup.model_name,
            "num_prompts": self._n_requests,
            "request_rate": self.setup.request_rate,
            "burstiness": workload.burstiness,
            "max_concurrency": self.setup.max_concurrency,
            **self._body,
            **self._classes,
            **self._kv_transfer,
            **self._failures,
            "measurement": self._measurement(),
            "capacity": _capacity_summary(self.setup.capacity),
            "pools": [self._pool(pool) for pool in self.setup.pools],
            "utilisation": self._utilisation(),
            **self._energy_and_cost(),
            "engines": [
                self._engine(index, pool.name)
                for index, pool in enumerate(self.setup.pool_of_engine)
            ],
            "warnings": list(self.warnings),
            "provenance": {
                "version": self.setup.version,
                "seed": self.config.seed,
                "model": self.setup.model_name,
                "xpu": self.setup.pools[0].xpu_name,
                "workload": self.setup.workload_description,
                "performance_model": self.setup.pools[0].performance_model,
                "performance_description": self.setup.pools[0].performance_description,
                "calibration_file": self.setup.pools[0].calibration_file,
                "calibration_sha256": self.setup.pools[0].calibration_sha256,
                "trace_hash": f"{self.trace_hash:016x}",
                "config_is_complete": self.setup.config_is_complete,
                **self.setup.provenance,
            },
            "config": self.config.to_dict(),
            "metric_definitions": dict(metrics.DEFINITIONS),
        }

    @cached_property
    def _kv_transfer(self) -> dict[str, Any]:
        """What went from prefill to decode engines; empty for aggregated clusters."""
        if "transfer_end_ns" not in self.requests:
            return {}
        summary = metrics.summarise_transfers(
            self.requests,
            self._completed,
            self.setup.capacity.kv_bytes_per_token,
            self.config.measurement.metric_percentiles,
        )
        return {"kv_transfer": summary}

    @property
    def _failures(self) -> dict[str, Any]:
        """How counted requests failed where engines come and go; else empty."""
        if "retries" not in self.requests:
            return {}
        status = self.requests["status"][self.window.counted]
        return {
            "failures": {
                "rejected": int((status == REJECTED).sum()),
                "lost_with_engine": int((status == FAILED).sum()),
                "timed_out": int((status == TIMED_OUT).sum()),
                "retries": int(self.requests["retries"][self.window.counted].sum()),
            }
        }

    def _measurement(self) -> dict[str, Any]:
        window = self.window
        return {
            "window_start_s": window.start_ns / NS_PER_S,
            "window_end_s": window.end_ns / NS_PER_S,
            "arrivals_end_s": window.arrivals_end_ns / NS_PER_S,
            "drain_s": window.drain_ns / NS_PER_S,
            "arrived": window.arrived,
            "counted": window.n_counted,
            "excluded_warm_up": window.excluded_warm_up,
            "unfinished": window.unfinished,
            "completion_rate_while_loaded": window.completion_rate_while_loaded,
            "percentiles": self.percentile_method,
        }

    def _pool(self, pool: PoolSetup) -> dict[str, Any]:
        engines = [
            engine
            for engine, own in zip(self.engines, self.setup.pool_of_engine, strict=True)
            if own is pool
        ]
        return {
            "name": pool.name,
            "role": pool.role,
            "xpu": pool.xpu_name,
            "n_engines": pool.n_engines,
            "n_xpus": pool.n_xpus,
            "tensor_parallel_size": pool.tensor_parallel_size,
            "pipeline_parallel_size": pool.pipeline_parallel_size,
            "requests": sum(engine.requests for engine in engines),
            "busy_share": self._busy_share(engines),
            "capacity": _capacity_summary(pool.capacity),
            "performance_model": pool.performance_model,
            "performance_description": pool.performance_description,
            "calibration_file": pool.calibration_file,
            "calibration_sha256": pool.calibration_sha256,
        }

    @property
    def _n_requests(self) -> int:
        return len(self.requests["arrival_ns"])

    @property
    def _completed_tokens(self) -> tuple[int, int]:
        """Prompt and output tokens of all completed requests, warm-up included."""
        completed = self.requests["status"] == COMPLETED
        prompts, outputs = self.requests["prompt_tokens"], self.requests["output_tokens"]
        return int(prompts[completed].sum()), int(outputs[completed].sum())

    @cached_property
    def _span_s(self) -> float:
        """Seconds from the first arrival to the end of the whole run, warm-up included."""
        arrival = self.requests["arrival_ns"]
        arrived = arrival[arrival >= 0]
        return (self.now_ns - int(arrived.min())) / NS_PER_S if len(arrived) else 0.0

    def _busy_share(self, engines: Sequence[EngineStats]) -> float | None:
        available = self._span_s * len(engines)
        busy = sum(engine.busy_ns for engine in engines) / NS_PER_S
        return busy / available if available else None

    def _utilisation(self) -> dict[str, Any]:
        """Shares over the whole run, warm-up included: what the engines did, not what counted."""
        pools = self.setup.pool_of_engine
        size = [pool.xpus_per_engine for pool in pools]
        return {
            "span_s": self._span_s,
            "engine_busy_share": self._busy_share(self.engines),
            "mfu": _share(
                [n * engine.operations for n, engine in zip(size, self.engines, strict=True)],
                [pool.peak_flops for pool in pools],
                [n * self._span_s for n in size],
            ),
            "memory_bandwidth_utilisation": _share(
                [n * engine.bytes for n, engine in zip(size, self.engines, strict=True)],
                [pool.peak_bandwidth for pool in pools],
                [n * self._span_s for n in size],
            ),
        }

    def _energy_and_cost(self) -> dict[str, Any]:
        """Over the whole run, warm-up included, as the utilisation."""
        input_tokens, output_tokens = self._completed_tokens
        engines = list(zip(self.setup.pool_of_engine, self.engines, strict=True))
        return energy_and_cost(
            [
                PoolUse(
                    accelerator=pool.economics or AcceleratorEconomics(xpu_name=pool.xpu_name),
                    engines=[engine for own, engine in engines if own is pool],
                    xpus_per_engine=pool.xpus_per_engine,
                    peak_flops=pool.peak_flops,
                    peak_bandwidth=pool.peak_bandwidth,
                )
                for pool in self.setup.pools
            ],
            span_s=self._span_s,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )

    def _engine(self, index: int, pool: str) -> dict[str, Any]:
        engine, total = self.engines[index], self.engines[index].total
        return {
            "engine": index,
            "pool": pool,
            "requests": engine.requests,
            "steps": engine.steps,
            "dummy_steps": engine.dummy_steps,
            "preemptions": engine.preemptions,
            "busy_s": engine.busy_ns / NS_PER_S,
            "peak_kv_blocks": engine.peak_blocks,
            "prefix_cache_queries": engine.prefix_queries,
            "prefix_cache_hits": engine.prefix_hits,
            "prefill_tokens": total.prefill_tokens,
            "decode_tokens": total.decode_seqs,
        }

    def itls(self) -> list[NDArray[np.int64]]:
        """Gaps between consecutive tokens (ns) of each counted request, in their order.

        Empty for requests that failed or have one output token.
        """
        times, offsets = self._tokens.token_times(np.flatnonzero(self.window.counted))
        return [np.diff(times[start:end]) for start, end in itertools.pairwise(offsets)]

    def detailed(self) -> dict[str, Any]:
        """vLLM's per-request arrays of the counted requests, in seconds and tokens.

        As in vLLM a failed request has output length 0, TTFT 0, no gaps and a text in ``errors``.
        """
        counted = self.window.counted
        status = self.requests["status"][counted]
        done = status == COMPLETED
        ttft = np.where(done, self.requests["ttft_ns"][counted], 0)
        errors = {
            COMPLETED: "",
            REJECTED: "rejected",
            FAILED: "lost with its engine",
            TIMED_OUT: "timed out",
        }
        return {
            "input_lens": self.requests["prompt_tokens"][counted].tolist(),
            "output_lens": np.where(done, self.requests["output_tokens"][counted], 0).tolist(),
            "ttfts": (ttft / NS_PER_S).tolist(),
            "itls": [(gaps / NS_PER_S).tolist() for gaps in self.itls()],
            "start_times": (self.requests["arrival_ns"][counted] / NS_PER_S).tolist(),
            "errors": [errors.get(int(code), "unfinished") for code in status],
        }

    def to_arrow(self) -> Any:
        """``requests`` as a ``pyarrow.Table``; :class:`ConfigError` without pyarrow."""
        return tables.to_arrow(self.requests)

    def to_pandas(self) -> Any:
        """``requests`` as a ``pandas.DataFrame``; :class:`ConfigError` without pandas."""
        return tables.to_pandas(self.requests)

    def to_polars(self) -> Any:
        """``requests`` as a ``polars.DataFrame``; :class:`ConfigError` without polars."""
        return tables.to_polars(self.requests)

    def write_json(
        self, path: str | Path, *, detailed: bool = False, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Write :meth:`summary` as strict JSON; ``detailed`` adds :meth:`detailed`.

        ``extra`` holds further keys that go in beside them.
        """
        data = self.summary() | (self.detailed() if detailed else {}) | dict(extra or {})
        with atomic_text(Path(path)) as file:
            json.dump(strict_json(data), file, indent=None if detailed else 2, allow_nan=False)
            file.write("\n")

    def write_requests(self, path: str | Path) -> None:
        """Write ``requests`` as .parquet or .csv, one row per request."""
        tables.write_table(self.requests, Path(path), "requests table")

    def write_decisions(self, path: str | Path) -> list[Path]:
        """Write every scheduling decision in the format of recorded vLLM decisions.

        Returns the files: one for each engine, x.engine0.jsonl, x.engine1.jsonl, … where there are
        several.
        """
        if self.decisions is None:
            raise ConfigError(
                "decisions were not recorded: run simulate(..., record_decisions=True)"
            )
        return self.decisions.write(Path(path))

    def write_steps(self, path: str | Path) -> None:
        """Write ``steps`` as .parquet or .csv, one row per engine step."""
        if self.steps is None:
            raise ConfigError("steps were not recorded: run simulate(..., record_steps=True)")
        tables.write_table(self.steps, Path(path), "steps table")


def strict_json(value: Any) -> Any:
    """Replace what JSON cannot say: infinity becomes "inf", as vLLM writes it; NaN is null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return value


def _share(
    amounts: Sequence[float], peaks_per_s: Sequence[float | None], seconds: Sequence[float]
) -> float | None:
    """Used share of the engines' peaks; None where a peak or the amounts are unknown."""
    known = [peak for peak in peaks_per_s if peak]
    if len(known) < len(peaks_per_s):
        return None
    possible = sum(peak * span for peak, span in zip(known, seconds, strict=True))
    return sum(amounts) / possible if possible and sum(amounts) else None


def _capacity_summary(capacity: Capacity) -> dict[str, Any]:
    return {
        "num_gpu_blocks": capacity.num_gpu_blocks,
        "block_size": capacity.block_size,
        "kv_cache_tokens": capacity.kv_cache_tokens,
        "max_model_len": capacity.max_model_len,
        "weight_bytes_per_rank": capacity.weight_bytes_per_rank,
        "activation_bytes": capacity.activation_bytes,
        "runtime_bytes": capacity.runtime_bytes,
        "kv_cache_bytes": capacity.kv_cache_bytes,
        "kv_bytes_per_token": capacity.kv_bytes_per_token,
        "kv_bytes_per_token_per_rank": capacity.kv_bytes_per_token_per_rank,
        "usable_bytes": capacity.usable_bytes,
        "total_bytes": capacity.total_bytes,
    }
