"""ServeGen's client pools: rates and length distributions by time window, from which we sample.

A folder holds, for each client N, ``chunk-N-trace.csv`` (no header: start in seconds, rate in
requests per second, coefficient of variation, ``Gamma`` or ``Weibull`` or nothing for an idle
window, shape, scale) and ``chunk-N-dataset.json`` (window start -> ``input_tokens`` and
``output_tokens``, each a Python-style dictionary of length -> probability, written as a string).

For each window of a client we draw n + 1 gaps of its pattern and stretch them to fill the window,
as ServeGen's generator does; n is the rate times the length of the window, rounded at random so
that its mean is exact. Prompt and output lengths are drawn independently.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.columns import MAX_REQUESTS, Int64Array
from llm_inference_simulator.workload.streams import Stream, stream
from llm_inference_simulator.workload.traces.csv_table import CsvTable
from llm_inference_simulator.workload.traces.numbers import NS_PER_SECOND
from llm_inference_simulator.workload.traces.servegen_lengths import LengthPool
from llm_inference_simulator.workload.traces.source import TraceSource, read_source
from llm_inference_simulator.workload.traces.trace import Trace

PATTERNS = ("Gamma", "Weibull")
HEADER = ("start_s", "rate", "cv", "pattern", "shape", "scale")
SINGLE_WINDOW_S = 600
"""Length of a window whose successor isn't there to tell: the step of the published data."""

_NUMBER = re.compile(r"[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", re.ASCII)
_TRACE_FILE = re.compile(r"(.*-)trace\.csv(\.gz)?")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time in which a client sends at one rate."""

    start_ns: int
    length_ns: int
    rate: float
    pattern: str
    shape: float


@dataclass(slots=True)
class Client:
    """One client: its windows, its lengths and its own random stream."""

    windows: list[Window]
    lengths: LengthPool
    rng: np.random.Generator


@dataclass(slots=True)
class _Drawn:
    """Requests drawn so far, window by window."""

    arrivals: list[Int64Array] = field(default_factory=list)
    prompts: list[Int64Array] = field(default_factory=list)
    outputs: list[Int64Array] = field(default_factory=list)
    count: int = 0
    without_lengths: int = 0


def is_client_folder(path: Path) -> bool:
    """Say whether a folder holds ServeGen clients."""
    return path.is_dir() and bool(_trace_files(path))


def sample(
    path: Path, seed: int, *, limit_ns: int | None = None, limit_rows: int | None = None
) -> Trace:
    """Sample a folder of clients, or the one client of a trace file.

    Windows that start after ``limit_ns``, or once ``limit_rows`` requests are drawn, are left out.
    A client's requests depend on the seed and its place in the order of the files, nothing else.
    """
    files = _trace_files(path) if path.is_dir() else [path]
    if not files:
        raise WorkloadError(f"trace folder {path} holds no chunk-N-trace.csv: check the path")
    clients = [
        _read_client(file, stream(seed, Stream.TRACE_SAMPLING, i)) for i, file in enumerate(files)
    ]
    origin_ns = min(client.windows[0].start_ns for client in clients)
    if limit_rows is None:
        _check_size(path, clients, origin_ns, limit_ns)
    drawn, end_ns = _draw(clients, origin_ns, limit_ns, limit_rows)
    if drawn.count == 0:
        raise WorkloadError(f"trace {path}: no request was drawn: its rates are 0 in this period")
    warnings = []
    if drawn.without_lengths:
        warnings.append(
            f"{drawn.without_lengths:,} windows have rates but no length distribution yet and were "
            "left out"
        )
    arrivals = np.concatenate(drawn.arrivals)
    order = np.argsort(arrivals, kind="stable")
    return Trace(
        arrival_ns=arrivals[order],
        prompt_tokens=np.concatenate(drawn.prompts)[order],
        output_tokens=np.concatenate(drawn.outputs)[order],
        span_ns=end_ns,
        warnings=tuple(warnings),
    )


def _draw(
    clients: list[Client], origin_ns: int, limit_ns: int | None, limit_rows: int | None
) -> tuple[_Drawn, int]:
    """Draw window by window in the order of time; returns the requests and where they end."""
    by_start: dict[int, list[tuple[Client, Window]]] = defaultdict(list)
    for client in clients:
        for window in client.windows:
            by_start[window.start_ns - origin_ns].append((client, window))
    drawn, end_ns = _Drawn(), 0
    for start_ns in sorted(by_start):
        past_time = limit_ns is not None and start_ns >= limit_ns
        # Windows that reach beyond this start may hold rows that come later, so all of them
        # must lie before it for the count to be final.
        past_rows = limit_rows is not None and drawn.count >= limit_rows and start_ns >= end_ns
        if past_time or past_rows:
            break
        for client, window in by_start[start_ns]:
            _draw_window(client, window, start_ns, drawn)
            end_ns = max(end_ns, start_ns + window.length_ns)
    return drawn, end_ns


def _draw_window(client: Client, window: Window, start_ns: int, drawn: _Drawn) -> None:
    if window.rate == 0:
        return
    lengths = client.lengths.at(window.start_ns)
    if lengths is None:
        drawn.without_lengths += 1
        return
    n = int(window.rate * window.length_ns / NS_PER_SECOND + client.rng.random())
    if n == 0:
        return
    times = np.cumsum(_gaps(client.rng, window, n + 1))
    # The last gap ends with the window; a total of 0 needs gaps that all underflow.
    share = times[:-1] / times[-1] if times[-1] > 0 else np.zeros(n)
    offsets = np.rint(share * window.length_ns).astype(np.int64)
    drawn.arrivals.append(start_ns + np.minimum(offsets, window.length_ns - 1))
    drawn.prompts.append(lengths[0].draw(client.rng, n))
    drawn.outputs.append(lengths[1].draw(client.rng, n))
    drawn.count += n


def _gaps(rng: np.random.Generator, window: Window, n: int) -> NDArray[np.float64]:
    if window.pattern == "Gamma":
        return rng.standard_gamma(window.shape, n)
    return rng.weibull(window.shape, n)


def _check_size(path: Path, clients: list[Client], origin_ns: int, limit_ns: int | None) -> None:
    expected = sum(
        window.rate * window.length_ns / NS_PER_SECOND
        for client in clients
        for window in client.windows
        if limit_ns is None or window.start_ns - origin_ns < limit_ns
    )
    if expected > MAX_REQUESTS:
        raise WorkloadError(
            f"trace {path} makes about {expected:.3g} requests, more than {MAX_REQUESTS:,}: give "
            "duration or num_prompts"
        )


def _trace_files(folder: Path) -> list[Path]:
    numbered = []
    try:
        files = list(folder.iterdir())
    except OSError as cause:
        raise WorkloadError(f"trace folder {folder} cannot be read: {cause.strerror}") from None
    for file in files:
        match = re.fullmatch(r"chunk-([0-9]+)-trace\.csv(\.gz)?", file.name)
        if match:
            numbered.append((int(match[1]), file.name, file))
    return [file for _, _, file in sorted(numbered)]


def _read_client(file: Path, rng: np.random.Generator) -> Client:
    windows = _windows(read_source(file))
    return Client(windows=windows, lengths=LengthPool(read_source(_dataset_of(file))), rng=rng)


def _dataset_of(file: Path) -> Path:
    match = _TRACE_FILE.fullmatch(file.name)
    if match is None:
        raise WorkloadError(
            f"trace {file}: a ServeGen trace must be called …-trace.csv, so that its "
            "…-dataset.json can be found: rename it"
        )
    for suffix in ("", ".gz"):
        dataset = file.with_name(f"{match[1]}dataset.json{suffix}")
        if dataset.exists():
            return dataset
    raise WorkloadError(f"trace {file}: {match[1]}dataset.json is missing beside it")


def _windows(source: TraceSource) -> list[Window]:
    table = CsvTable(source, HEADER)
    starts = table.times("start_s", NS_PER_SECOND)
    falls = np.flatnonzero(starts[1:] <= starts[:-1])
    if falls.size:
        raise table.row_error(
            int(falls[0]) + 1, "start_s is not after that of the row before: sort the windows"
        )
    last_ns = int(starts[-1] - starts[-2]) if len(starts) > 1 else SINGLE_WINDOW_S * NS_PER_SECOND
    lengths = [*np.diff(starts).tolist(), last_ns]
    return [
        _window(table, row, start, length)
        for row, (start, length) in enumerate(zip(starts.tolist(), lengths, strict=True))
    ]


def _window(table: CsvTable, row: int, start_ns: int, length_ns: int) -> Window:
    pattern = table.texts("pattern")[row].strip()
    if not pattern:
        return Window(start_ns, length_ns, 0.0, "", 1.0)
    if pattern not in PATTERNS:
        raise table.row_error(
            row, f"pattern={pattern!r} is none of {', '.join(PATTERNS)} (or empty)"
        )
    rate, shape = _number(table, row, "rate"), _number(table, row, "shape")
    if shape <= 0:
        raise table.row_error(row, f"shape={shape} must be positive")
    if rate * length_ns > MAX_REQUESTS * NS_PER_SECOND:
        raise table.row_error(row, f"rate={rate} makes more than {MAX_REQUESTS:,} requests")
    return Window(start_ns, length_ns, rate, pattern, shape)


def _number(table: CsvTable, row: int, name: str) -> float:
    text = table.texts(name)[row].strip()
    if not _NUMBER.fullmatch(text):
        raise table.row_error(row, f"{name}={text!r} is not a number of 0 or more")
    return float(text)
