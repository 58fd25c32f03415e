"""A run as a trace that Perfetto and chrome://tracing open (Trace Event Format, JSON).

Times are exact: microseconds with three decimals, which are the run's nanoseconds.

- A process per engine: its steps as slices (one track for each batch that a pipeline keeps in
  flight), and counters of waiting and running requests and of KV blocks in use.
- A process of requests: one track each, with a slice from arrival to answer and inside it one for
  each phase of :mod:`llm_inference_simulator.report.phases`.
- In disaggregated clusters a flow per request from the prefill engine's step that gave its first
  token to the decode engine's step that gave its second.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_path
from llm_inference_simulator.metrics import COMPLETED, FAILED, REJECTED, TIMED_OUT
from llm_inference_simulator.report.phases import request_phases
from llm_inference_simulator.report.steps import StepBreakdown

if TYPE_CHECKING:
    from llm_inference_simulator.results import SimulationResult

REQUESTS_PID = 1
"""Process of the requests; engine i is process i + 2."""

MANY_EVENTS = 2_000_000
"""From here on viewers take long to open a file."""

EVENTS_AT_ONCE = 20_000

STATUS = {
    COMPLETED: "completed",
    REJECTED: "rejected",
    FAILED: "failed",
    TIMED_OUT: "timed out",
}

Progress = Callable[[int, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineScope:
    """What of a run goes into its timeline; by default all.

    ``window_ns`` keeps steps and requests that overlap it, each whole; ``requests`` are rows, or
    ``slowest`` the number of completed requests with the longest end-to-end latency.
    """

    window_ns: tuple[int, int] | None = None
    requests: tuple[tuple[int, int], ...] | None = None
    """Ranges of rows, both ends included."""
    slowest: int | None = None

    def overlaps(self, start_ns: NDArray[Any], end_ns: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which of the intervals share a moment with the window."""
        if self.window_ns is None:
            return np.ones(len(start_ns), dtype=bool)
        first, last = self.window_ns
        inside: NDArray[np.bool_] = (start_ns <= last) & (end_ns >= first)
        return inside

    def rows(self, requests: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
        """Answered requests in scope, in the order of the workload.

        Raises :class:`ConfigError` for rows that the run does not have.
        """
        arrival, finished = requests["arrival_ns"], requests["finished_ns"]
        wanted = (finished >= 0) & self.overlaps(arrival, finished)
        if self.requests is not None:
            wanted &= self._listed(len(arrival))
        if self.slowest is not None:
            e2el = requests["e2el_ns"]
            longest = np.argsort(-e2el, kind="stable")[: self.slowest]
            chosen = np.zeros(len(arrival), dtype=bool)
            chosen[longest[e2el[longest] >= 0]] = True
            wanted &= chosen
        return np.flatnonzero(wanted)

    def _listed(self, n_requests: int) -> NDArray[np.bool_]:
        listed = np.zeros(n_requests, dtype=bool)
        for first, last in self.requests or ():
            if last >= n_requests:
                raise ConfigError(
                    f"--timeline-requests: the run has requests 0 to {n_requests - 1}, not {last}"
                )
            listed[first : last + 1] = True
        return listed


def check_timeline_path(path: Path, flag: str) -> None:
    """Refuse a name that viewers would not take for a trace."""
    if not path.name.casefold().endswith((".json", ".json.gz")):
        raise ConfigError(
            f"{flag} {path}: end the name in .json or .json.gz, which Perfetto and "
            "chrome://tracing open"
        )


def count_events(result: SimulationResult, scope: TimelineScope) -> int:
    """About how many events the timeline has."""
    steps = _recorded(result)
    n_steps = int(scope.overlaps(steps["start_ns"], steps["end_ns"]).sum())
    return 4 * n_steps + 8 * len(scope.rows(result.requests))


def write_timeline(
    result: SimulationResult,
    path: Path,
    scope: TimelineScope | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the timeline of ``result``, whose steps were recorded; return the number of events.

    ``progress`` is told how many events are written. Raises :class:`ConfigError` where steps were
    not recorded or a request does not exist.
    """
    check_timeline_path(path, "timeline")
    events = _events(result, scope or TimelineScope())
    header = {
        "displayTimeUnit": "ms",
        "otherData": {
            "model": result.setup.model_name,
            "version": result.setup.version,
            "trace_hash": f"{result.trace_hash:016x}",
        },
    }
    with atomic_path(path) as temporary, _opened(temporary) as file:
        file.write(json.dumps(header)[:-1] + ', "traceEvents": [\n')
        written = 0
        while part := list(itertools.islice(events, EVENTS_AT_ONCE)):
            file.write((",\n" if written else "") + ",\n".join(part))
            written += len(part)
            if progress is not None:
                progress(written, f"{written:,} events")
        file.write("\n]}\n")
    return written


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if path.suffix.casefold() != ".gz":
        with path.open("w", encoding="utf-8") as file:
            yield file
        return
    # Equal runs give equal files: no time and no name in the header.
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8") as text,
    ):
        yield text


def _recorded(result: SimulationResult) -> dict[str, NDArray[Any]]:
    if result.steps is None:
        raise ConfigError("a timeline needs the run's steps: run simulate(..., record_steps=True)")
    return result.steps


def _events(result: SimulationResult, scope: TimelineScope) -> Iterator[str]:
    steps = _recorded(result)
    rows = scope.rows(result.requests)
    inside = scope.overlaps(steps["start_ns"], steps["end_ns"])
    breakdown = StepBreakdown(result, steps)
    yield from _process(REQUESTS_PID, "requests")
    tracks = []
    for engine, pool in enumerate(result.setup.pool_of_engine):
        own = np.flatnonzero(steps["engine"] == engine)
        track = _EngineTrack(engine, pool.pipeline_parallel_size, own, steps)
        tracks.append(track)
        yield from _process(track.pid, f"engine {engine}: {pool.name}, {pool.xpu_name}")
        yield from track.names()
        bound = breakdown.bound if breakdown.knows(result.setup.pools.index(pool)) else None
        yield from track.slices(inside, bound)
        yield from track.counters(
            inside, blocks=pool.capacity.num_gpu_blocks - 1, empties=pool.role == "aggregated"
        )
    yield from _request_slices(result.requests, rows)
    if "transfer_end_ns" in result.requests:
        yield from _flows(result, rows, tracks, inside)


class _EngineTrack:
    """Steps of one engine: rows of the step columns, in order."""

    def __init__(
        self, engine: int, lanes: int, rows: NDArray[np.int64], steps: Mapping[str, NDArray[Any]]
    ) -> None:
        self.pid = engine + 2
        self._lanes = lanes
        self._rows = rows
        self._steps = steps
        self._end = steps["end_ns"][rows]

    def lane(self, place: int) -> int:
        """Thread of the engine's ``place``-th step.

        A pipeline of p stages has p batches in flight, and the p-th after a batch is decided when
        that one ends (docs/spec.md, 14.2): those of one thread don't overlap.
        """
        return place % self._lanes + 1

    def place_of_end(self, end_ns: int) -> int | None:
        """The step that ends then."""
        place = int(np.searchsorted(self._end, end_ns))
        return place if place < len(self._end) and self._end[place] == end_ns else None

    def row(self, place: int) -> int:
        """Row of the engine's ``place``-th step in the step columns."""
        return int(self._rows[place])

    def names(self) -> Iterator[str]:
        """Names of the engine's threads."""
        for lane in range(self._lanes):
            name = "steps" if self._lanes == 1 else f"steps in flight, {lane + 1}"
            yield _meta("thread_name", self.pid, lane + 1, name=name)

    def slices(
        self, inside: NDArray[np.bool_], bound: Callable[[int], str] | None
    ) -> Iterator[str]:
        """A slice a step, named by what it computes."""
        columns = [self._steps[name] for name in ("start_ns", "end_ns", *_STEP_ARGUMENTS)]
        for place, row in enumerate(self._rows.tolist()):
            if not inside[row]:
                continue
            start, end, *values = (int(column[row]) for column in columns)
            arguments: dict[str, Any] = dict(zip(_STEP_ARGUMENTS, values, strict=True))
            kind = _kind(arguments["prefill_tokens"], arguments["decode_seqs"])
            if bound is not None:
                arguments["bound"] = bound(row)
            yield (
                f'{{"ph":"X","name":"{kind}","cat":"step","pid":{self.pid},'
                f'"tid":{self.lane(place)},"ts":{_us(start)},"dur":{_us(end - start)},'
                f'"args":{json.dumps(arguments)}}}'
            )

    def counters(self, inside: NDArray[np.bool_], *, blocks: int, empties: bool) -> Iterator[str]:
        """Waiting, running and KV blocks in use, whenever they change.

        Without a step in flight nothing runs; ``empties``: nor does anything hold blocks.
        """
        last: dict[str, int] = {}

        def changed(at: int, **values: int) -> Iterator[str]:
            for name, value in values.items():
                if last.get(name) != value:
                    last[name] = value
                    title = _COUNTERS[name]
                    yield (
                        f'{{"ph":"C","name":"{title}","pid":{self.pid},"ts":{_us(at)},'
                        f'"args":{{"{name}":{value}}}}}'
                    )

        names = ("start_ns", "end_ns", "waiting", "running", "free_blocks")
        columns = [self._steps[name] for name in names]
        idle_from: int | None = None
        for row in self._rows.tolist():
            if not inside[row]:
                continue
            start, end, waiting, running, free = (int(column[row]) for column in columns)
            if idle_from is not None and start > idle_from:
                yield from changed(idle_from, running=0, **({"kv_blocks": 0} if empties else {}))
            yield from changed(start, waiting=waiting, running=running, kv_blocks=blocks - free)
            idle_from = end
        if idle_from is not None:
            yield from changed(idle_from, running=0, **({"kv_blocks": 0} if empties else {}))


_STEP_ARGUMENTS = (
    "prefill_tokens",
    "prefill_seqs",
    "decode_seqs",
    "decode_context_tokens",
    "running",
    "waiting",
    "preempted",
)
_COUNTERS = {
    "waiting": "waiting requests",
    "running": "running requests",
    "kv_blocks": "KV blocks in use",
}


def _kind(prefill_tokens: int, decode_seqs: int) -> str:
    if prefill_tokens and decode_seqs:
        return "prefill + decode"
    return "prefill" if prefill_tokens else "decode"


def _request_slices(requests: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> Iterator[str]:
    """Nested slices on a track for each request; phases without length are left out."""
    phases = request_phases(requests, rows)
    arrival, finished = (requests[name][rows].tolist() for name in ("arrival_ns", "finished_ns"))
    names = [name for name in _REQUEST_ARGUMENTS if name in requests]
    spans = {name: (start.tolist(), end.tolist()) for name, (start, end) in phases.items()}
    for place, row in enumerate(rows.tolist()):
        arguments: dict[str, Any] = {name: int(requests[name][row]) for name in names}
        arguments["status"] = STATUS.get(int(requests["status"][row]), "unfinished")
        yield _nested("b", row, f"request {row}", arrival[place], arguments)
        for name, (start, end) in spans.items():
            if end[place] > start[place]:
                yield _nested("b", row, name, start[place])
                yield _nested("e", row, name, end[place])
        yield _nested("e", row, f"request {row}", finished[place])


_REQUEST_ARGUMENTS = (
    "prompt_tokens",
    "output_tokens",
    "cached_tokens",
    "preemptions",
    "engine",
    "prefill_engine",
    "transfer_tokens",
    "retries",
)


def _nested(
    phase: str, row: int, name: str, at_ns: int, arguments: Mapping[str, Any] | None = None
) -> str:
    extra = f',"args":{json.dumps(arguments)}' if arguments else ""
    return (
        f'{{"ph":"{phase}","cat":"request","id2":{{"local":"{row:#x}"}},"name":"{name}",'
        f'"pid":{REQUESTS_PID},"tid":1,"ts":{_us(at_ns)}{extra}}}'
    )


def _flows(
    result: SimulationResult,
    rows: NDArray[np.int64],
    tracks: list[_EngineTrack],
    inside: NDArray[np.bool_],
) -> Iterator[str]:
    """Arrows between the steps of a handed-over request, where both are in the file."""
    requests, latency = result.requests, result.setup.response_latency_ns
    names = ("prefill_engine", "first_token_ns", "engine", "second_token_ns", "transfer_end_ns")
    for row in rows.tolist():
        sender, first, receiver, second, moved = (int(requests[name][row]) for name in names)
        if moved < 0 or second < 0:
            continue
        ends = []
        for engine, at in ((sender, first - latency), (receiver, second - latency)):
            place = tracks[engine].place_of_end(at)
            if place is not None and inside[tracks[engine].row(place)]:
                ends.append((tracks[engine], place, tracks[engine].row(place)))
        if len(ends) < 2:
            continue
        (source, from_place, from_row), (target, to_place, to_row) = ends
        # Inside the slices: an arrow binds to the slice that its moment lies in.
        leaves = int(result.steps["end_ns"][from_row]) - 1  # type: ignore[index]
        lands = int(result.steps["start_ns"][to_row])  # type: ignore[index]
        for phase, track, place, at in (
            ('"s"', source, from_place, leaves),
            ('"f","bp":"e"', target, to_place, lands),
        ):
            yield (
                f'{{"ph":{phase},"cat":"kv","name":"KV transfer","id":"{row:#x}",'
                f'"pid":{track.pid},"tid":{track.lane(place)},"ts":{_us(at)}}}'
            )


def _process(pid: int, name: str) -> Iterator[str]:
    """Name a process, and put it in the order of the numbers."""
    yield _meta("process_name", pid, 0, name=name)
    yield _meta("process_sort_index", pid, 0, sort_index=pid)


def _meta(kind: str, pid: int, tid: int, **arguments: str | int) -> str:
    return json.dumps({"ph": "M", "name": kind, "pid": pid, "tid": tid, "ts": 0, "args": arguments})


def _us(time_ns: int) -> str:
    """Microseconds, exactly."""
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"
