"""From the workload section of a configuration to request columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.arrivals import (
    Pieces,
    arrival_pieces,
    joined,
    scheduled_pieces,
    staged_pieces,
)
from llm_inference_simulator.workload.columns import (
    MAX_REQUESTS,
    MAX_TIME_NS,
    MAX_TOKENS,
    Int64Array,
    Workload,
    describe_span,
)
from llm_inference_simulator.workload.lengths import (
    INPUT_SIGMA,
    OUTPUT_SIGMA,
    empirical_lengths,
    log_normal_drawer,
    uniform_lengths,
)
from llm_inference_simulator.workload.sessions import (
    Sessions,
    counted_sessions,
    draw_sessions,
    first_requests,
)
from llm_inference_simulator.workload.sharing import (
    repeated_prompts,
    share_generated,
    share_sessions,
    share_traced,
)
from llm_inference_simulator.workload.streams import Stream, stream
from llm_inference_simulator.workload_config import RequestsConfig

if TYPE_CHECKING:
    from llm_inference_simulator.workload.traces import Trace, TraceLimits
    from llm_inference_simulator.workload.traces.trace import Marks

    LoadTrace = Callable[[Path, str, TraceLimits], Trace]
    """As :func:`~llm_inference_simulator.workload.traces.load_trace`."""

DEFAULT_NUM_PROMPTS = 1000
"""As in ``vllm bench serve``; holds where neither a duration nor a trace limits the workload."""
LENGTH_POOL_ROWS = 100_000
"""Requests sampled from a ServeGen folder where only its lengths are wanted."""


def build_requests(config: RequestsConfig, seed: int, load: LoadTrace | None = None) -> Workload:
    """Make the requests of one kind; equal arguments give equal requests.

    - no trace: arrivals from ``request_rate``, ``rate_stages`` or ``rate_schedule`` (all at time 0
      without one), lengths fixed, ranged, log-normal or, with ``lengths_from``, pairs of a trace
      drawn with replacement; with ``session_turns`` sessions arrive, and turns follow answers;
    - ``trace``: its times and lengths; with ``request_rate`` its lengths, in order, at generated
      times; a trace without times arrives at once.

    ``load`` stands in for ``traces.load_trace``, where traces have been read already. Raises
    :class:`WorkloadError`; what was dropped, cut or estimated is in the ``warnings``.
    """
    make = _generated if config.trace is None else _from_trace
    rows = make(config, seed, load)
    if len(rows.arrival_ns) == 0:
        raise WorkloadError(nothing_arrives(config))
    warnings = (*rows.warnings, *without_effect(config))
    prompt_tokens = with_prefix(rows.prompt_tokens, config.random_prefix_len)
    if rows.sessions is not None:
        said = prompt_tokens + rows.output_tokens
        sharing = share_sessions(config, seed, rows.sessions, said)
    elif config.trace is None:
        sharing = share_generated(config, seed, prompt_tokens, rows.repeated)
    else:
        sharing = share_traced(config, rows.marks, rows.prompt_tokens, rows.output_tokens)
    return Workload(
        arrival_ns=rows.arrival_ns,
        prompt_tokens=prompt_tokens,
        output_tokens=rows.output_tokens,
        segments=sharing.segments,
        priority=sharing.priority,
        after=sharing.after,
        think_ns=sharing.think_ns,
        duration_ns=rows.duration_ns,
        description=f"{rows.source}: {describe_span(len(rows.arrival_ns), rows.duration_ns)}",
        warnings=(*warnings, *sharing.warnings),
    )


def without_effect(config: RequestsConfig) -> tuple[str, ...]:
    """Warn of a burstiness of arrivals that are not drawn."""
    if config.burstiness == 1.0 or config.rate_stages is not None or _has_finite_rate(config):
        return ()
    return (
        f"burstiness={config.burstiness} has no effect: arrivals are not drawn from a finite "
        "request_rate",
    )


def nothing_arrives(config: RequestsConfig) -> str:
    """Say why a workload is empty."""
    if config.rate_stages is not None:
        return "rate_stages end before the first request arrives: lengthen them or raise a rate"
    if config.rate_schedule is not None:
        return (
            f"rate_schedule: no request arrives in {config.arrival_seconds:g} s: raise a rate or "
            "lengthen duration"
        )
    return (
        f"duration={config.duration} s ends before the first request arrives: lengthen it or "
        "raise request_rate"
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    arrival_ns: Int64Array
    prompt_tokens: Int64Array
    output_tokens: Int64Array
    duration_ns: int
    source: str
    marks: Marks | None = None
    sessions: Sessions | None = None
    """Of generated sessions; None: every request is one of its own."""
    repeated: Int64Array | None = None
    """Which of the distinct prompts each request has; None where every prompt is new."""
    warnings: tuple[str, ...] = ()


def _generated(config: RequestsConfig, seed: int, load: LoadTrace | None) -> _Rows:
    sessions = None
    if config.session_turns is None:
        arrivals, duration_ns = _arrivals(config, seed, config.num_prompts)
    else:
        arrivals, duration_ns, sessions = _session_arrivals(config, seed)
    n = len(arrivals)
    warnings: tuple[str, ...] = ()
    repeated = repeated_prompts(config, seed, n)
    if config.lengths_from is not None:
        pool = length_pool(config, seed, load)
        warnings = pool.warnings
        pairs = stream(seed, Stream.LENGTH_PAIRS)
        prompts, outputs = empirical_lengths(pairs, n, pool.prompt_tokens, pool.output_tokens)
        source = f"lengths drawn from {config.lengths_from}"
    else:
        if repeated is None:
            prompts = prompt_drawer(config, seed)(n)
        else:
            prompts = prompt_drawer(config, seed)(int(repeated.max()) + 1)[repeated]
        outputs = output_drawer(config, seed)(n)
        source = describe_lengths(config)
    if sessions is not None:
        if config.tool_result_len is not None:
            prompts = np.where(sessions.is_tool_result, config.tool_result_len, prompts)
        prompts = sessions.conversations(prompts, outputs)
        source = f"{sessions.count:,} sessions, each turn {source}"
    return _Rows(
        arrival_ns=arrivals,
        prompt_tokens=prompts,
        output_tokens=outputs,
        duration_ns=duration_ns,
        source=source,
        sessions=sessions,
        repeated=repeated,
        warnings=warnings,
    )


def length_pool(config: RequestsConfig, seed: int, load: LoadTrace | None = None) -> Trace:
    """The trace whose pairs of lengths are drawn."""
    assert config.lengths_from is not None
    limits = {"seed": seed, "limit_rows": LENGTH_POOL_ROWS}
    return _read_trace(config.lengths_from, config, limits, load)


def _read_trace(
    name: str, config: RequestsConfig, limits: Mapping[str, Any], load: LoadTrace | None
) -> Trace:
    # Imported here: most requests are generated.
    from llm_inference_simulator.workload.traces import TraceLimits, load_trace, resolve

    return (load or load_trace)(resolve(name), config.trace_format, TraceLimits(**limits))


def _session_arrivals(config: RequestsConfig, seed: int) -> tuple[Int64Array, int, Sessions]:
    """(arrival_ns, duration_ns, sessions): a session's requests all arrive with it at the earliest.

    Rates count requests, so sessions arrive more rarely.
    """
    of_sessions = config.with_load_times(1 / config.requests_per_session)
    if config.arrival_seconds is None:
        n = DEFAULT_NUM_PROMPTS if config.num_prompts is None else config.num_prompts
        sessions = counted_sessions(config, seed, n)
        starts, duration_ns = _arrivals(of_sessions, seed, sessions.count)
    else:
        starts, duration_ns = _arrivals(of_sessions, seed, None)
        sessions = draw_sessions(config, seed, len(starts))
        if config.num_prompts is not None and config.num_prompts <= len(sessions):
            sessions = first_requests(sessions, config.num_prompts)
            duration_ns = int(starts[sessions.count - 1])
    return starts[sessions.number], duration_ns, sessions


def _has_finite_rate(config: RequestsConfig) -> bool:
    return config.request_rate is not None and math.isfinite(config.request_rate)


def _arrivals(config: RequestsConfig, seed: int, n: int | None) -> tuple[Int64Array, int]:
    return joined(arrivals_of(config, seed, n))


def arrivals_of(
    config: RequestsConfig,
    seed: int,
    n: int | None,
    *,
    most: int = MAX_REQUESTS,
    piece: int = MAX_REQUESTS,
) -> Pieces:
    """Arrivals that ``config`` describes, ``n`` of them or as many as it asks for, in pieces."""
    rng = stream(seed, Stream.ARRIVALS)
    if config.rate_stages is not None:
        return staged_pieces(
            rng, config.rate_stages, burstiness=config.burstiness, num_prompts=n, most=most
        )
    if config.rate_schedule is not None:
        assert config.arrival_seconds is not None
        return scheduled_pieces(
            rng,
            stream(seed, Stream.THINNING),
            config.rate_schedule,
            config.arrival_seconds,
            num_prompts=n,
            most=most,
        )
    if n is None and config.duration is None:
        n = DEFAULT_NUM_PROMPTS
    return arrival_pieces(
        rng,
        rate=config.request_rate,
        burstiness=config.burstiness,
        num_prompts=n,
        duration_s=config.duration if _has_finite_rate(config) else None,
        most=most,
        piece=piece,
    )


Drawer = Callable[[int], Int64Array]
"""Draws the next so many lengths."""


def prompt_drawer(config: RequestsConfig, seed: int) -> Drawer:
    """What draws the prompt lengths of generated requests, without their prefix."""
    rng = stream(seed, Stream.INPUT_LENGTHS)
    if config.avg_input_length is not None:
        return log_normal_drawer(
            rng,
            config.avg_input_length,
            config.max_input_length,
            INPUT_SIGMA,
            field="avg_input_length",
        )
    mean, ratio = config.random_input_len, config.random_range_ratio
    if math.floor(mean * (1 - ratio)) + config.random_prefix_len < 1:
        raise WorkloadError(
            f"random_input_len={mean} with random_range_ratio={ratio} allows empty prompts: raise "
            "the first, lower the second or add random_prefix_len"
        )
    return lambda n: uniform_lengths(rng, n, mean, ratio, least=0, field="random_input_len")


def output_drawer(config: RequestsConfig, seed: int) -> Drawer:
    """What draws the output lengths of generated requests."""
    rng = stream(seed, Stream.OUTPUT_LENGTHS)
    if config.avg_output_length is not None:
        return log_normal_drawer(
            rng,
            config.avg_output_length,
            config.max_output_length,
            OUTPUT_SIGMA,
            field="avg_output_length",
        )
    mean, ratio = config.random_output_len, config.random_range_ratio
    return lambda n: uniform_lengths(rng, n, mean, ratio, least=1, field="random_output_len")


def describe_lengths(config: RequestsConfig) -> str:
    """Word the lengths of generated requests."""
    return f"{_length_words(config, 'input')} in, {_length_words(config, 'output')} out"


def _length_words(config: RequestsConfig, kind: str) -> str:
    average = getattr(config, f"avg_{kind}_length")
    if average is not None:
        longest = getattr(config, f"max_{kind}_length")
        return f"log-normal {average:g}" + ("" if longest is None else f" (at most {longest})")
    length = getattr(config, f"random_{kind}_len")
    prefix = config.random_prefix_len if kind == "input" else 0
    ratio = config.random_range_ratio
    return (f"{prefix}+" if prefix else "") + f"{length}" + (f"±{ratio:.0%}" if ratio else "")


def _from_trace(config: RequestsConfig, seed: int, load: LoadTrace | None) -> _Rows:
    assert config.trace is not None
    own_times = config.request_rate is None
    if not own_times and config.trace_speedup != 1.0:
        raise WorkloadError(
            f"trace_speedup={config.trace_speedup} has no effect with request_rate="
            f"{config.request_rate}, which replaces the trace's times: leave one out"
        )
    limit_ns = _sped_limit_ns(config) if own_times else None
    limits = {"seed": seed, "limit_ns": limit_ns, "limit_rows": config.num_prompts}
    trace = _read_trace(config.trace, config, limits, load)
    rows = _replayed(config, trace) if own_times else _retimed(config, seed, trace)
    return _clipped(config, rows)


def _sped_limit_ns(config: RequestsConfig) -> int | None:
    """Return the configured duration in the trace's own time."""
    if config.duration is None:
        return None
    return math.ceil(min(config.duration * config.trace_speedup * 1e9, float(MAX_TIME_NS)))


def _replayed(config: RequestsConfig, trace: Trace) -> _Rows:
    """Take the trace's own times: sped up, then cut to the duration, then to the count."""
    if trace.arrival_ns is None:
        return _at_once(config, trace)
    arrivals = sped_up(trace.arrival_ns, config.trace_speedup)
    duration_ns = int(sped_up(np.array([trace.span_ns]), config.trace_speedup)[0])
    warnings = list(trace.warnings)
    n, span_ns = len(arrivals), duration_ns
    asked_ns = None if config.duration is None else round(config.duration * 1e9)
    if asked_ns is not None and asked_ns < span_ns:
        n, duration_ns = int(np.searchsorted(arrivals, asked_ns, side="left")), asked_ns
    wanted = config.num_prompts
    if wanted is not None and wanted <= n:
        # Perhaps no more of the trace was read: whether it is as long as asked is not known.
        n, duration_ns = wanted, int(arrivals[wanted - 1])
    else:
        if asked_ns is not None and asked_ns > span_ns:
            warnings.append(
                f"duration={config.duration:g} s is longer than the trace, which lasts "
                f"{span_ns / 1e9:.6g} s"
            )
        if n == len(arrivals):
            warnings.extend(too_few(config, n))
    return _Rows(
        arrival_ns=arrivals[:n],
        prompt_tokens=trace.prompt_tokens[:n],
        output_tokens=trace.output_tokens[:n],
        duration_ns=duration_ns,
        source=str(config.trace),
        marks=_first(trace.marks, n),
        warnings=tuple(warnings),
    )


def _at_once(config: RequestsConfig, trace: Trace) -> _Rows:
    if config.duration is not None or config.trace_speedup != 1.0:
        raise WorkloadError(
            f"trace {config.trace} has no arrival times, so duration and trace_speedup mean "
            "nothing: give request_rate, or leave them out"
        )
    n = min(config.num_prompts or len(trace), len(trace))
    note = f"the trace has no arrival times: all {n:,} requests arrive at time 0; give request_rate"
    return _Rows(
        arrival_ns=np.zeros(n, dtype=np.int64),
        prompt_tokens=trace.prompt_tokens[:n],
        output_tokens=trace.output_tokens[:n],
        duration_ns=0,
        source=str(config.trace),
        marks=_first(trace.marks, n),
        warnings=(*trace.warnings, *too_few(config, len(trace)), note),
    )


def _retimed(config: RequestsConfig, seed: int, trace: Trace) -> _Rows:
    """Take the trace's lengths in their order, at generated times."""
    if config.duration is not None and not _has_finite_rate(config):
        raise WorkloadError(
            f"duration={config.duration} has no effect with request_rate={config.request_rate}: "
            "all requests arrive at once; leave one out"
        )
    n = min(config.num_prompts or len(trace), len(trace))
    warnings = [*trace.warnings, *too_few(config, len(trace))]
    arrivals, duration_ns = _arrivals(config, seed, n)
    used_up = len(arrivals) == n == len(trace) != config.num_prompts
    if config.duration is not None and used_up:
        warnings.append(
            f"the trace's {n:,} requests are used up before duration={config.duration:g} s"
        )
    n = len(arrivals)
    return _Rows(
        arrival_ns=arrivals,
        prompt_tokens=trace.prompt_tokens[:n],
        output_tokens=trace.output_tokens[:n],
        duration_ns=duration_ns,
        source=f"{config.trace} at {config.request_rate:g} requests/s",
        marks=_first(trace.marks, n),
        warnings=tuple(warnings),
    )


def _first(marks: Marks | None, n: int) -> Marks | None:
    return None if marks is None else marks.take(np.arange(n, dtype=np.int64))


def too_few(config: RequestsConfig, available: int) -> tuple[str, ...]:
    """Warn where the trace has fewer requests than asked for."""
    wanted = config.num_prompts
    if wanted is None or wanted <= available:
        return ()
    return (
        f"num_prompts={wanted:,} exceeds the {available:,} requests of the trace: all are used",
    )


def sped_up(times_ns: Int64Array, speedup: float) -> Int64Array:
    """Times of a trace that runs ``speedup`` times as fast."""
    if speedup == 1.0:
        return times_ns
    scaled = times_ns / speedup
    if scaled[-1] > MAX_TIME_NS:
        raise WorkloadError(
            f"trace_speedup={speedup} stretches the trace to {scaled[-1] / 1e9:.3g} s, more than "
            "the clock holds: raise it"
        )
    return np.rint(scaled).astype(np.int64)


def _clipped(config: RequestsConfig, rows: _Rows) -> _Rows:
    """Cut a trace's lengths to the configured longest, and say how many were cut."""
    prompts, cut_prompts = _clip(rows.prompt_tokens, config.max_input_length, "input")
    outputs, cut_outputs = _clip(rows.output_tokens, config.max_output_length, "output")
    return replace(
        rows,
        prompt_tokens=prompts,
        output_tokens=outputs,
        warnings=(*rows.warnings, *cut_prompts, *cut_outputs),
    )


def _clip(values: Int64Array, longest: int | None, kind: str) -> tuple[Int64Array, tuple[str, ...]]:
    clipped, cut = clipped_lengths(values, longest)
    if cut == 0:
        return clipped, ()
    warning = f"{cut:,} {kind} lengths of the trace were cut to max_{kind}_length={longest}"
    return clipped, (warning,)


def clipped_lengths(values: Int64Array, longest: int | None) -> tuple[Int64Array, int]:
    """Lengths of a trace, at most ``longest``, and how many were longer."""
    if longest is None or longest >= MAX_TOKENS:
        return values, 0
    return np.minimum(values, longest), int(np.count_nonzero(values > longest))


def with_prefix(prompts: Int64Array, prefix: int) -> Int64Array:
    """Lengths of prompts behind a prefix."""
    if prefix == 0:
        return prompts
    if int(prompts.max()) + prefix > MAX_TOKENS:
        raise WorkloadError(f"random_prefix_len={prefix} makes prompts beyond {MAX_TOKENS} tokens")
    return prompts + prefix
