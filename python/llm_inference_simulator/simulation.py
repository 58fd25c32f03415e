"""Run one simulation: capacity verdict, workload, event loop, result."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from llm_inference_simulator.aggregated_cluster import RouterCallable, build_simulation
from llm_inference_simulator.calibration import FrontEndLatency, resolve_front_end
from llm_inference_simulator.config import FleetConfig, SimulatorConfig
from llm_inference_simulator.disaggregated_cluster import transfer_settings
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.metrics import NS_PER_S, Columns
from llm_inference_simulator.pools import ResolvedPool
from llm_inference_simulator.results import Setup, SimulationResult
from llm_inference_simulator.shared_inputs import SharedInputs

if TYPE_CHECKING:
    from llm_inference_simulator._core import Progress, Simulation
    from llm_inference_simulator.catalog import ModelSpec
    from llm_inference_simulator.cluster import TransferSettings
    from llm_inference_simulator.decisions import DecisionLog
    from llm_inference_simulator.performance_models import BasePerformanceModel
    from llm_inference_simulator.streaming import RowSink
    from llm_inference_simulator.workload import Workload

SLICE_SECONDS = 0.05
"""Aim for one slice: short enough for Ctrl-C and a progress bar, long enough to cost nothing."""

FIRST_SLICE_EVENTS = 64
"""The first slice is short because a cost model written in Python may take milliseconds a step."""

MOST_SLICE_EVENTS = 4_000_000

ProgressCallback = Callable[["Progress"], None]


class SimulationInterrupted(KeyboardInterrupt):
    """Ctrl-C during the event loop.

    ``answered`` of ``requests`` had an answer. ``result`` holds what had finished, incomplete;
    it is put together when it is asked for, since that takes a moment for millions of requests.
    """

    def __init__(
        self, answered: int, requests: int, collect: Callable[[], SimulationResult]
    ) -> None:
        super().__init__("simulation interrupted")
        self.answered = answered
        self.requests = requests
        self._collect = collect

    @functools.cached_property
    def result(self) -> SimulationResult:
        """The incomplete result."""
        return self._collect()


class Sliceable(Protocol):
    """What the event loop needs of a simulation."""

    def run_slice(self, max_events: int) -> Progress:
        """Process at most ``max_events`` events."""


def simulate(
    config: SimulatorConfig,
    *,
    workload: Workload | None = None,
    performance_model: BasePerformanceModel | None = None,
    router: RouterCallable | None = None,
    progress: bool | ProgressCallback = False,
    record_steps: bool = False,
    record_decisions: bool = False,
    provenance: Mapping[str, Any] | None = None,
    inputs: SharedInputs | None = None,
    row_sink: RowSink | None = None,
    threads: int | None = None,
) -> SimulationResult:
    """Simulate ``config`` and return its result.

    ``workload`` replaces the one that the configuration describes, ``performance_model`` the one
    that it names, ``router`` the routing policy: it gets each request (``_core.RouterRequest``) and
    the engines' loads (``_core.RouterEngines``) and returns the place of an engine, from 0 on; in a
    disaggregated cluster of a prefill engine on arrival and of a decode engine at the hand-over.
    ``progress=True`` shows a bar on a terminal; a callable gets the core's ``Progress`` about 20
    times a second. ``record_steps`` keeps one row per engine step, ``record_decisions`` every
    decision of every scheduler (slow: requests are walked one by one). ``provenance`` goes into the
    result's as it is: where the configuration came from. ``inputs`` keeps what other simulations
    need too (:func:`~llm_inference_simulator.simulate_many` passes it). ``row_sink`` gets the rows
    of a run with ``measurement.streaming`` in blocks while it goes on, since its result has none.
    ``threads`` is how many the engines may run on where none of them matters to another (None: as
    many as there are processors); results do not depend on it.

    Raises :class:`CapacityError` where the model does not fit, before anything runs; the other
    errors of :mod:`llm_inference_simulator.errors`; and :class:`SimulationInterrupted` on Ctrl-C.
    """
    if record_decisions:
        _require_recordable(config)
    prepare = functools.partial(
        _prepare,
        config,
        performance_model=performance_model,
        inputs=inputs or SharedInputs(),
        is_complete=router is None,
        provenance=provenance or {},
    )
    threads = check_threads(threads)
    if config.measurement.streaming:
        _require_streamable(workload, record=record_steps or record_decisions)
        return _simulate_streamed(config, prepare, router, progress, row_sink, threads=threads)
    if row_sink is not None:
        raise ConfigError("row_sink takes the rows of streamed runs: set measurement.streaming")
    run = prepare(workload)
    if record_decisions and any(
        pool.core.settings.data_parallel_group is not None for pool in run.pools
    ):
        raise ConfigError(
            "--decisions-output: recorded decisions know no engines that step together; leave it "
            "or enable_expert_parallel out"
        )
    simulation = build_simulation(
        config,
        [pool.core for pool in run.pools],
        run.workload,
        run.front_end,
        record_steps=record_steps,
        record_decisions=record_decisions,
        transfer=run.transfer,
        router=router,
        threads=threads,
    )
    collect = functools.partial(
        _collect,
        run,
        simulation,
        record_steps=record_steps,
        record_decisions=record_decisions,
    )
    try:
        with _reporter(progress, len(run.workload.arrival_ns)) as report:
            run_to_end(simulation, report)
    except KeyboardInterrupt:
        answered = simulation.run_slice(0).answered
        raise SimulationInterrupted(
            answered, len(run.workload.arrival_ns), lambda: collect(complete=False)
        ) from None
    return collect(complete=True)


def _require_recordable(config: SimulatorConfig) -> None:
    """Refuse what the rows of decisions cannot tell."""
    reason = None
    if config.cluster.is_disaggregated:
        reason = "no transfers of keys and values; leave it out of a disaggregated run"
    elif config.fleet != FleetConfig.default():
        reason = (
            "no requests that leave early; leave it or fleet (--max-queue, --request-timeout, "
            "--max-retries) out"
        )
    elif any(pool.pipeline_parallel_size > 1 for pool in config.cluster.named_pools):
        reason = "no stages of a pipeline; leave it or pipeline_parallel_size (-pp) out"
    if reason is not None:
        raise ConfigError(f"--decisions-output: recorded decisions know {reason}")


def check_threads(threads: int | None) -> int:
    """Threads of the core; None: one for each processor that this process may use."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if threads < 1:
        raise ConfigError(f"threads={threads}: give at least 1, or leave it out")
    return threads


def _require_streamable(workload: Workload | None, *, record: bool) -> None:
    if workload is not None:
        raise ConfigError(
            "workload= holds all requests already: leave measurement.streaming (--streaming) out"
        )
    if record:
        raise ConfigError(
            "--steps-output and --decisions-output keep every step, --streaming "
            "(measurement.streaming) none: leave one of them out"
        )


def _simulate_streamed(
    config: SimulatorConfig,
    prepare: Callable[[Workload], _Run],
    router: RouterCallable | None,
    progress: bool | ProgressCallback,
    sink: RowSink | None,
    *,
    threads: int,
) -> SimulationResult:
    # Imported here: runs in one piece start faster without.
    from llm_inference_simulator.running_metrics import RunningMetrics
    from llm_inference_simulator.streamed_result import StreamedResult
    from llm_inference_simulator.streaming import StreamedRun
    from llm_inference_simulator.workload.pieces import RequestStream, empty_workload

    stream = RequestStream(config.workload, config.seed)
    run = prepare(empty_workload(config.workload))
    running = RunningMetrics(
        warm_up_ns=round(config.measurement.warm_up * NS_PER_S),
        objectives_ms={str(name): limit for name, limit in config.measurement.goodput.items()},
        max_model_len=run.setup.max_model_len,
    )
    simulation = build_simulation(
        config,
        [pool.core for pool in run.pools],
        run.workload,
        run.front_end,
        record_steps=False,
        record_decisions=False,
        router=router,
        common_prefix_tokens=stream.common_prefix_tokens,
        threads=threads,
    )
    check_last = functools.partial(_require_counted, config)
    streamed = StreamedRun(simulation, stream, running, sink, check_last)

    def collect(*, complete: bool) -> SimulationResult:
        streamed.close()
        return StreamedResult(
            setup=replace(
                run.setup,
                workload_description=stream.description,
                warnings=(*run.setup.warnings, *stream.warnings),
            ),
            running=running,
            gaps=streamed.gaps(),
            engines=simulation.engine_stats(),
            trace_hash=simulation.trace_hash(),
            complete=complete,
        )

    try:
        with _reporter(progress, stream.expected) as report:
            run_to_end(streamed, report)
    except KeyboardInterrupt:
        answered = simulation.run_slice(0).answered
        raise SimulationInterrupted(
            answered, stream.expected or stream.count, lambda: collect(complete=False)
        ) from None
    return collect(complete=True)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is settled before the first event."""

    setup: Setup
    pools: tuple[ResolvedPool, ...]
    workload: Workload
    front_end: FrontEndLatency
    transfer: TransferSettings | None


def _prepare(
    config: SimulatorConfig,
    workload: Workload | None,
    *,
    performance_model: BasePerformanceModel | None,
    inputs: SharedInputs,
    is_complete: bool,
    provenance: Mapping[str, Any],
) -> _Run:
    """Capacity, prices and requests of a run, or the error that refuses it."""
    model = inputs.model(config.model)
    streams = config.measurement.streaming
    own_workload = workload is not None and not streams
    config_is_complete = is_complete and not own_workload and performance_model is None
    request_rate = _request_rate(config, own_workload=own_workload)
    pools = inputs.pools(config, performance_model)
    if workload is None:
        workload = inputs.workload(config.workload, config.seed)
    if not streams:
        _require_counted_requests(config, workload)
    # One front end serves all pools: that of the first calibration which knows one.
    front_end = resolve_front_end(
        config.front_end, next((pool.front_end for pool in pools if pool.front_end), None)
    )
    setup = _setup(
        config=config,
        model=model,
        parameter_count=inputs.parameter_count(config.model),
        pools=pools,
        workload=workload,
        front_end=front_end,
        request_rate=request_rate,
        config_is_complete=config_is_complete,
        provenance=provenance,
    )
    sizes = {pool.setup.name: pool.setup.capacity.kv_bytes_per_token for pool in pools}
    return _Run(
        setup,
        pools,
        workload,
        front_end,
        transfer_settings(config, model.num_layers, sizes),
    )


def _collect(
    run: _Run,
    simulation: Simulation,
    *,
    complete: bool,
    record_steps: bool,
    record_decisions: bool,
) -> SimulationResult:
    """Read a finished or interrupted simulation out."""
    columns = simulation.request_columns()
    if run.workload.class_index is not None:
        columns["class_index"] = run.workload.class_index
    return SimulationResult(
        setup=run.setup,
        columns=columns,
        requested_output_tokens=run.workload.output_tokens,
        engines=simulation.engine_stats(),
        tokens=simulation,
        trace_hash=simulation.trace_hash(),
        now_ns=_latest_ns(columns),
        complete=complete,
        steps=simulation.step_columns() if record_steps else None,
        decisions=_decision_log(run, simulation) if record_decisions else None,
        cost_models=[pool.core.cost_models for pool in run.pools],
    )


def run_to_end(simulation: Sliceable, report: ProgressCallback | None = None) -> None:
    """Advance in slices whose length follows the measured speed, reporting after each.

    Results do not depend on the slices. Between two slices Python handles signals.
    """
    max_events = FIRST_SLICE_EVENTS
    while True:
        started = time.perf_counter()
        progress = simulation.run_slice(max_events)
        elapsed = time.perf_counter() - started
        if report is not None:
            report(progress)
        if progress.done:
            return
        max_events = next_slice(max_events, elapsed)


def next_slice(max_events: int, elapsed_s: float) -> int:
    """Events for the next slice after one of ``max_events`` that took ``elapsed_s`` seconds.

    Grows at most eightfold at a time, so that one fast slice of idle events does not make the
    next one long; shrinks at once.
    """
    factor = min(8.0, SLICE_SECONDS / elapsed_s) if elapsed_s > 0 else 8.0
    return min(MOST_SLICE_EVENTS, max(1, int(max_events * factor)))


def _decision_log(run: _Run, simulation: Simulation) -> DecisionLog:
    from llm_inference_simulator._core import __version__
    from llm_inference_simulator.decisions import DecisionLog, DecisionPool

    return DecisionLog(
        simulation=simulation,
        workload=run.workload,
        pools=[
            DecisionPool(pool.core.settings, pool.engine.watermark, pool.core.n_engines)
            for pool in run.pools
        ],
        version=__version__,
    )


def _latest_ns(columns: Columns) -> int:
    """Time of the last thing that happened to a request (0 where nothing did)."""
    happened = ("admitted_ns", "first_token_ns", "finished_ns")
    return max(0, *(int(columns[name].max()) for name in happened))


def _request_rate(config: SimulatorConfig, *, own_workload: bool) -> float | None:
    """Infinity where generated requests all arrive at once, as vLLM reports it."""
    load = config.workload
    rate = load.request_rate
    elsewhere = (load.trace, load.rate_stages, load.rate_schedule) != (None, None, None)
    own = bool(load.classes) and load.classes[0].share is None
    at_once = rate is None and not own_workload and not elsewhere and not own
    return math.inf if at_once else rate


def _require_counted_requests(config: SimulatorConfig, workload: Workload) -> None:
    """Refuse a load that ends before the warm-up does: nothing would be counted."""
    if not len(workload.arrival_ns):
        raise WorkloadError("the workload holds no requests: raise num_prompts, duration or rate")
    # In a closed loop, and in sessions, requests are sent later than their columns say.
    if workload.max_concurrency is None and workload.after is None:
        _require_counted(config, int(workload.arrival_ns[-1]))


def _require_counted(config: SimulatorConfig, last_arrival_ns: int) -> None:
    """Refuse a load whose last request arrives within the warm-up."""
    last_s, warm_up_s = last_arrival_ns / NS_PER_S, config.measurement.warm_up
    if config.workload.max_concurrency is None and last_s < warm_up_s:
        raise WorkloadError(
            f"warm_up={warm_up_s:g} s excludes every request: the last arrives at {last_s:.3f} s; "
            "shorten the warm-up or lengthen the load (--duration, --num-prompts)"
        )


def _setup(
    *,
    config: SimulatorConfig,
    model: ModelSpec,
    parameter_count: int,
    pools: tuple[ResolvedPool, ...],
    workload: Workload,
    front_end: FrontEndLatency,
    request_rate: float | None,
    config_is_complete: bool,
    provenance: Mapping[str, Any],
) -> Setup:
    from llm_inference_simulator._core import __version__

    return Setup(
        config=config,
        version=__version__,
        model_name=model.name,
        parameter_count=parameter_count,
        pools=tuple(pool.setup for pool in pools),
        workload_description=workload.description,
        max_concurrency=workload.max_concurrency,
        request_rate=request_rate,
        response_latency_ns=front_end.response_latency_ns,
        config_is_complete=config_is_complete,
        provenance=provenance,
        warnings=(
            *unused_xpus_warning(config),
            *workload.warnings,
            *(warning for pool in pools for warning in pool.warnings),
        ),
    )


def unused_xpus_warning(config: SimulatorConfig) -> tuple[str, ...]:
    """Name accelerators that belong to no engine."""
    cluster = config.cluster
    if cluster.n_xpus_per_node is None:
        return ()
    total = cluster.n_xpus_per_node * cluster.n_nodes
    unused = total - cluster.n_xpus_used
    if not unused:
        return ()
    return (
        f"{unused} of {total} accelerators are not used: {cluster.n_engines} engine(s) of "
        f"{cluster.named_pools[0].parallel_layout} take {cluster.n_xpus_used}; change "
        "--data-parallel-size or --tensor-parallel-size",
    )


@contextlib.contextmanager
def _reporter(
    progress: bool | ProgressCallback, n_requests: int | None
) -> Iterator[ProgressCallback | None]:
    """Turn the ``progress`` argument into a callback."""
    if progress is True:
        from llm_inference_simulator.progress_bar import progress_bar

        with progress_bar(n_requests) as show:
            yield show
    else:
        yield progress or None
