"""What every trace reader returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llm_inference_simulator.workload.columns import MAX_TIME_NS, Int64Array
from llm_inference_simulator.workload.traces.source import TraceSource


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
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_tokens)


def recorded_trace(
    source: TraceSource,
    times_ns: Int64Array | None,
    prompt_tokens: Int64Array,
    output_tokens: Int64Array,
    warnings: list[str],
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
    # Python's integers: the difference of two legal times may pass 64 bits.
    span = int(times_ns[-1]) - int(times_ns[0])
    if span > MAX_TIME_NS:
        raise source.error(f"its times span {span / 1e9:.3g} s, more than the clock holds")
    return Trace(
        arrival_ns=times_ns - times_ns[0],
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        span_ns=span,
        warnings=tuple(warnings),
    )
