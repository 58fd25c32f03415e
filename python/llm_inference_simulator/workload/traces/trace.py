"""What every trace reader returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from llm_inference_simulator.workload.columns import MAX_TIME_NS, Int64Array
from llm_inference_simulator.workload.traces.source import TraceSource


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marks:
    """What a trace says of its requests besides times and lengths, one entry a request."""

    hash_ids: list[list[int]]
    """Numbers of the blocks of each prompt; empty where the trace has none."""
    session: Int64Array
    """Number of the request's session, -1 if none."""
    priority: Int64Array
    think_ns: Int64Array
    """From the answer to the request before in the session; 0 where the trace does not say."""

    @classmethod
    def build(
        cls,
        hash_ids: list[list[int]],
        sessions: list[str | None],
        priorities: list[int],
        thinks_ns: list[int],
    ) -> Self | None:
        """Number the sessions; None where no request has any mark."""
        if not any(hash_ids) and not any(priorities) and all(name is None for name in sessions):
            return None
        numbers: dict[str, int] = {}
        session = [
            -1 if name is None else numbers.setdefault(name, len(numbers)) for name in sessions
        ]
        return cls(
            hash_ids=hash_ids,
            session=np.array(session, dtype=np.int64),
            priority=np.array(priorities, dtype=np.int64),
            think_ns=np.array(thinks_ns, dtype=np.int64),
        )

    def take(self, order: Int64Array) -> Self:
        """Marks of the requests ``order``, in that order."""
        return type(self)(
            hash_ids=[self.hash_ids[index] for index in order],
            session=self.session[order],
            priority=self.priority[order],
            think_ns=self.think_ns[order],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """Requests of a trace, in order of arrival; the columns are int64 and equally long."""

    arrival_ns: Int64Array | None
    """Sorted, counted from the start of the trace, which is the first request where requests were
    recorded one by one; None: the trace has no times."""
    prompt_tokens: Int64Array
    output_tokens: Int64Array
    span_ns: int
    """From the first arrival to the last for recorded requests; 0 without times."""
    marks: Marks | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_tokens)


RecordedRows = tuple[Int64Array | None, Int64Array, Int64Array, list[str]]
"""(times in ns, prompt tokens, output tokens, warnings) as they stand in a file; no times: None."""


def recorded_trace(
    source: TraceSource,
    times_ns: Int64Array | None,
    prompt_tokens: Int64Array,
    output_tokens: Int64Array,
    warnings: list[str],
    *,
    marks: Marks | None = None,
) -> Trace:
    """Sort recorded requests by time and count their times from the first.

    Rows that were out of order are sorted (equal times keep the order of the file) with a warning.
    """
    if len(prompt_tokens) == 0:
        raise source.error("no request is left: " + ("; ".join(warnings) or "it has no rows"))
    if times_ns is None:
        return Trace(
            arrival_ns=None,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            span_ns=0,
            marks=marks,
            warnings=tuple(warnings),
        )
    falls = int(np.count_nonzero(times_ns[1:] < times_ns[:-1]))
    if falls:
        warnings = [
            *warnings,
            f"{falls:,} rows are earlier than the row before: the requests were sorted by time",
        ]
        order = np.argsort(times_ns, kind="stable")
        times_ns = times_ns[order]
        prompt_tokens, output_tokens = prompt_tokens[order], output_tokens[order]
        marks = marks and marks.take(order)
    # Python's integers: the difference of two legal times may pass 64 bits.
    span = int(times_ns[-1]) - int(times_ns[0])
    if span > MAX_TIME_NS:
        raise source.error(f"its times span {span / 1e9:.3g} s, more than the clock holds")
    return Trace(
        arrival_ns=times_ns - times_ns[0],
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        span_ns=span,
        marks=marks,
        warnings=tuple(warnings),
    )
