"""A workload: one row a request, in columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.identity import Segments

MAX_TOKENS = 2**31 - 1
"""Longest prompt or output; longer than any context, short enough that sums stay exact."""
MAX_TIME_NS = 2**62
"""Latest arrival, about 146 years; leaves the clock as much again to finish."""
MAX_REQUESTS = 100_000_000
"""Most requests that are held as columns (2.4 GB)."""

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Requests in the order of their arrival (docs/spec.md, section 2).

    The three columns are one-dimensional, int64, equally long, read-only, and without negative
    values; ``arrival_ns`` never decreases, and requests of one nanosecond keep their order. A
    prompt or output of zero tokens is legal here: the engine rejects such a request, as vLLM does.
    """

    arrival_ns: Int64Array
    prompt_tokens: Int64Array
    output_tokens: Int64Array
    max_concurrency: int | None = None
    """Closed loop: most requests unanswered at once; None: open loop."""
    segments: Segments | None = None
    """Which requests begin with the same tokens; None: none do."""
    priority: Int64Array | None = None
    """Order of the priority policy, lower first; None: all alike."""
    after: Int64Array | None = None
    """The earlier request whose answer the client needs before it sends this one, -1 if none;
    None: no request waits for another."""
    think_ns: Int64Array | None = None
    """From that answer until this request is sent; its own arrival is a lower bound. None: 0."""
    class_index: Int64Array | None = None
    """The place of each request's class in the configuration; None: there are no classes."""
    duration_ns: int
    """Length of the arrival period: what was configured, or the span of the trace."""
    description: str
    """One line for the summary."""
    warnings: tuple[str, ...] = ()
    """What a user must know before trusting results of this workload."""

    def __post_init__(self) -> None:
        columns = (self.arrival_ns, self.prompt_tokens, self.output_tokens)
        optional = (self.priority, self.after, self.think_ns, self.class_index)
        for column in (*columns, *optional):
            if column is not None:
                column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @classmethod
    def from_columns(
        cls,
        arrival_ns: Any,
        prompt_tokens: Any,
        output_tokens: Any,
        *,
        max_concurrency: int | None = None,
        duration_ns: int | None = None,
        description: str | None = None,
    ) -> Self:
        """Check and copy columns of your own.

        Each is a one-dimensional sequence of whole numbers, ``arrival_ns`` sorted. ``duration_ns``
        defaults to the last arrival. Raises :class:`WorkloadError` naming column and row.
        """
        arrivals = _column("arrival_ns", arrival_ns, MAX_TIME_NS)
        prompts = _column("prompt_tokens", prompt_tokens, MAX_TOKENS)
        outputs = _column("output_tokens", output_tokens, MAX_TOKENS)
        n = len(arrivals)
        for name, column in (("prompt_tokens", prompts), ("output_tokens", outputs)):
            if len(column) != n:
                raise WorkloadError(
                    f"{name} has {len(column)} rows, arrival_ns has {n}: give one value a request"
                )
        if n == 0:
            raise WorkloadError("the workload has no requests: give at least one")
        _check_sorted(arrivals)
        if max_concurrency is not None:
            _check_whole("max_concurrency", max_concurrency, 1)
        last = int(arrivals[-1])
        if duration_ns is None:
            duration_ns = last
        elif _check_whole("duration_ns", duration_ns, 0) < last:
            raise WorkloadError(
                f"duration_ns={duration_ns} is before the last arrival, {last}: raise it or leave "
                "it out"
            )
        return cls(
            arrival_ns=arrivals,
            prompt_tokens=prompts,
            output_tokens=outputs,
            max_concurrency=max_concurrency,
            duration_ns=duration_ns,
            description=description or f"own columns: {describe_span(n, duration_ns)}",
        )


def describe_span(n: int, duration_ns: int) -> str:
    """Word "19,366 requests over 3,502 s"; short spans keep three digits."""
    if duration_ns == 0:
        return f"{n:,} request{'s' if n != 1 else ''} at once"
    seconds = duration_ns / 1e9
    span = f"{seconds:,.0f}" if seconds >= 1000 else f"{seconds:.3g}"
    return f"{n:,} request{'s' if n != 1 else ''} over {span} s"


def _column(name: str, values: Any, largest: int) -> Int64Array:
    """Copy ``values`` to int64, refusing whatever would change on the way."""
    try:
        array = np.asarray(values)
    except ValueError:
        raise WorkloadError(
            f"{name} is ragged: give a one-dimensional array of whole numbers"
        ) from None
    if array.ndim != 1:
        raise WorkloadError(
            f"{name} has shape {array.shape}: give a one-dimensional array of whole numbers"
        )
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind == "f":
        bad = np.flatnonzero(~np.isfinite(array) | (array != np.floor(array)))
        if bad.size:
            raise _bad_value(name, int(bad[0]), array[bad[0]], "give whole numbers")
    elif array.dtype.kind not in "iu":
        raise WorkloadError(
            f"{name} has dtype {array.dtype}: give a one-dimensional array of whole numbers"
        )
    bad = np.flatnonzero(array < 0)
    if bad.size:
        raise _bad_value(name, int(bad[0]), array[bad[0]], "it must not be negative")
    bad = np.flatnonzero(array > largest)
    if bad.size:
        raise _bad_value(name, int(bad[0]), array[bad[0]], f"the largest allowed is {largest}")
    return array.astype(np.int64, copy=True)


def _bad_value(name: str, row: int, value: Any, remedy: str) -> WorkloadError:
    return WorkloadError(f"{name}, row {row} (counted from 0) is {value}: {remedy}")


def _check_sorted(arrivals: Int64Array) -> None:
    falls = np.flatnonzero(arrivals[1:] < arrivals[:-1])
    if falls.size:
        row = int(falls[0]) + 1
        raise _bad_value(
            "arrival_ns",
            row,
            arrivals[row],
            f"it lies before row {row - 1} ({arrivals[row - 1]}); sort the requests by arrival",
        )


def _check_whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise WorkloadError(f"{name}={value!r}: give a whole number of at least {least}")
    return int(value)
