"""Run one simulation: capacity verdict, workload, event loop, result."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llm_inference_simulator.aggregated_cluster import build_simulation, engine_settings
from llm_inference_simulator.calibration import FrontEndLatency, resolve_front_end
from llm_inference_simulator.capacity import plan_memory
from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.decisions import DecisionLog
from llm_inference_simulator.energy import economics_of
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.metrics import NS_PER_S, Columns
from llm_inference_simulator.results import Capacity, Setup, SimulationResult
from llm_inference_simulator.workload import build_workload

if TYPE_CHECKING:
    from llm_inference_simulator._core import CostModel, Progress, Simulation
    from llm_inference_simulator.capacity import MemoryPlan
    from llm_inference_simulator.catalog import ModelSpec, XpuSpec
    from llm_inference_simulator.performance_models import BasePerformanceModel
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
    progress: bool | ProgressCallback = False,
    record_steps: bool = False,
    record_decisions: bool = False,
) -> SimulationResult:
    """Simulate ``config`` and return its result.

    ``workload`` replaces the one that the configuration describes, ``performance_model`` the one
    that it names. ``progress=True`` shows a bar on a terminal; a callable gets the core's
    ``Progress`` about twenty times a second. ``record_steps`` keeps one row per engine step,
    ``record_decisions`` every decision of every scheduler (slow: requests are walked one by one).

    Raises :class:`CapacityError` where the model does not fit, before anything runs; the other
    errors of :mod:`llm_inference_simulator.errors`; and :class:`SimulationInterrupted` on Ctrl-C.
    """
    run = _prepare(config, workload, performance_model)
    simulation = build_simulation(
        config,
        run.plan,
        run.cost_model,
        run.workload,
        run.front_end,
        attention_window=run.attention_window,
        record_steps=record_steps,
        record_decisions=record_decisions,
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


@dataclass(frozen=True, slots=True)
class _Run:
    """What is settled before the first event."""

    setup: Setup
    plan: MemoryPlan
    workload: Workload
    cost_model: CostModel
    front_end: FrontEndLatency
    attention_window: tuple[str, int] | None


def _prepare(
    config: SimulatorConfig,
    workload: Workload | None,
    performance_model: BasePerformanceModel | None,
) -> _Run:
    """Capacity, prices and requests of a run, or the error that refuses it."""
    model, xpu = load_model(config.model), load_xpu(config.xpu)
    plan = plan_memory(model, xpu, config.engine, config.cluster.tensor_parallel_size)
    config_is_complete = workload is None and performance_model is None
    request_rate = _request_rate(config, workload)
    if performance_model is None:
        performance_model = _named_performance_model(config, model, xpu, plan)
    else:
        _require_same_subject(performance_model, config, model, xpu, plan)
    if workload is None:
        workload = build_workload(config.workload, config.seed)
    _require_counted_requests(workload, config.measurement.warm_up)
    setup = _setup(
        config=config,
        model=model,
        xpu=xpu,
        plan=plan,
        workload=workload,
        performance_model=performance_model,
        request_rate=request_rate,
        config_is_complete=config_is_complete,
    )
    return _Run(
        setup,
        plan,
        workload,
        performance_model.cost_model(),
        resolve_front_end(config.front_end, performance_model.front_end),
        performance_model.attention_window,
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

    config, plan = run.setup.config, run.plan
    return DecisionLog(
        simulation=simulation,
        workload=run.workload,
        settings=engine_settings(
            config.engine, max_model_len=plan.max_model_len, num_gpu_blocks=plan.num_gpu_blocks
        ),
        watermark=config.engine.watermark,
        n_engines=config.cluster.n_engines,
        version=__version__,
    )


def _latest_ns(columns: Columns) -> int:
    """Time of the last thing that happened to a request (0 where nothing did)."""
    happened = ("admitted_ns", "first_token_ns", "finished_ns")
    return max(0, *(int(columns[name].max()) for name in happened))


def _named_performance_model(
    config: SimulatorConfig, model: ModelSpec, xpu: XpuSpec, plan: MemoryPlan
) -> BasePerformanceModel:
    from llm_inference_simulator.performance_models import create_performance_model

    return create_performance_model(
        config.performance,
        model,
        xpu,
        config.cluster.tensor_parallel_size,
        config.engine,
        max_model_len=plan.max_model_len,
    )


def _require_same_subject(
    performance_model: BasePerformanceModel,
    config: SimulatorConfig,
    model: ModelSpec,
    xpu: XpuSpec,
    plan: MemoryPlan,
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
            config.cluster.tensor_parallel_size,
        ),
    }
    for field, (theirs, ours) in priced.items():
        if theirs != ours:
            raise ConfigError(
                f"performance_model prices {field}={theirs}, but the configuration has "
                f"{field}={ours}: make them agree"
            )
    performance_model.require_length(plan.max_model_len)


def _request_rate(config: SimulatorConfig, workload: Workload | None) -> float | None:
    """Infinity where generated requests all arrive at once, as vLLM reports it."""
    rate = config.workload.request_rate
    elsewhere = config.workload.trace is not None or config.workload.rate_stages is not None
    at_once = rate is None and workload is None and not elsewhere
    return math.inf if at_once else rate


def _require_counted_requests(workload: Workload, warm_up_s: float) -> None:
    """Refuse a load that ends before the warm-up does: nothing would be counted."""
    if not len(workload.arrival_ns):
        raise WorkloadError("the workload holds no requests: raise num_prompts, duration or rate")
    last_s = int(workload.arrival_ns[-1]) / NS_PER_S
    # In a closed loop requests are sent later than their columns say.
    if workload.max_concurrency is None and last_s < warm_up_s:
        raise WorkloadError(
            f"warm_up={warm_up_s:g} s excludes every request: the last arrives at {last_s:.3f} s; "
            "shorten the warm-up or lengthen the load (--duration, --num-prompts)"
        )


def _setup(
    *,
    config: SimulatorConfig,
    model: ModelSpec,
    xpu: XpuSpec,
    plan: MemoryPlan,
    workload: Workload,
    performance_model: BasePerformanceModel,
    request_rate: float | None,
    config_is_complete: bool,
) -> Setup:
    from llm_inference_simulator._core import __version__

    return Setup(
        config=config,
        version=__version__,
        model_name=model.name,
        parameter_count=model.parameter_count,
        xpu_name=xpu.name,
        capacity=Capacity(
            num_gpu_blocks=plan.num_gpu_blocks,
            block_size=config.engine.block_size,
            max_model_len=plan.max_model_len,
            weight_bytes_per_rank=plan.weight_bytes_per_rank,
            activation_bytes=plan.activation_bytes,
            runtime_bytes=plan.runtime_bytes,
            kv_cache_bytes=plan.kv_cache_bytes,
            kv_bytes_per_token=plan.kv_bytes_per_token,
            kv_bytes_per_token_per_rank=plan.kv_bytes_per_token_per_rank,
            usable_bytes=plan.usable_bytes,
            total_bytes=plan.total_bytes,
        ),
        workload_description=workload.description,
        max_concurrency=workload.max_concurrency,
        performance_model=performance_model.name,
        performance_description=performance_model.description,
        request_rate=request_rate,
        calibration_file=performance_model.calibration_file,
        calibration_sha256=performance_model.calibration_sha256,
        peak_flops=performance_model.peak_flops,
        peak_bandwidth=performance_model.peak_bandwidth,
        economics=economics_of(xpu, config.pricing),
        config_is_complete=config_is_complete,
        warnings=(
            *unused_xpus_warning(config),
            *plan.warnings,
            *workload.warnings,
            *performance_model.warnings,
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
        f"tensor_parallel_size={cluster.tensor_parallel_size} take {cluster.n_xpus_used}; change "
        "--data-parallel-size or --tensor-parallel-size",
    )


@contextlib.contextmanager
def _reporter(
    progress: bool | ProgressCallback, n_requests: int
) -> Iterator[ProgressCallback | None]:
    """Turn the ``progress`` argument into a callback."""
    if progress is True:
        from llm_inference_simulator.progress_bar import progress_bar

        with progress_bar(n_requests) as show:
            yield show
    else:
        yield progress or None
