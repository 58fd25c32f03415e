"""Results of ``vllm bench serve --save-result --save-detailed``: a measured run as a trace.

``start_times`` are readings of a clock without a meaningful zero; only their differences count.
Requests that failed in the measured run (no output) are kept in place, so that rows still line up
with the measurement; the engine rejects them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_inference_simulator.workload.columns import MAX_TIME_NS, MAX_TOKENS, Int64Array
from llm_inference_simulator.workload.traces import json_values
from llm_inference_simulator.workload.traces.numbers import NS_PER_SECOND
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import Trace, recorded_trace


def read(source: TraceSource) -> Trace:
    """Read a detailed result; of a file made with ``--append-result``, the last run."""
    result, warnings = _last_run(source)
    if not isinstance(result, dict):
        raise source.error("it must be a JSON object, as vllm bench serve writes it")
    for key in ("input_lens", "output_lens"):
        if not isinstance(result.get(key), list):
            raise source.error(
                f"list {key!r} is missing: run vllm bench serve with --save-result and "
                "--save-detailed"
            )
    prompts = _tokens(source, result, "input_lens")
    outputs = _tokens(source, result, "output_lens")
    _same_length(source, "output_lens", len(outputs), len(prompts))
    times = None
    if "start_times" in result:
        times = _times(source, result["start_times"])
        _same_length(source, "start_times", len(times), len(prompts))
    failed = outputs == 0
    if failed.any():
        warnings.append(
            f"{np.count_nonzero(failed):,} requests failed in the measured run (no output): they "
            "are rejected here too"
        )
    if times is not None:
        # A request that failed before it was sent has the reading 0, far from all others.
        unsent = failed & (times == 0) & (times.max(initial=0) > 0)
        if unsent.any():
            warnings.append(f"{np.count_nonzero(unsent):,} of them were never sent: left out")
            times, prompts, outputs = times[~unsent], prompts[~unsent], outputs[~unsent]
    return recorded_trace(source, times, prompts, outputs, warnings)


def _last_run(source: TraceSource) -> tuple[Any, list[str]]:
    """Parse the file as one JSON value, or as one object a line, of which the last counts."""
    lines = [
        (row, line) for row, line in enumerate(source.text.split("\n"), start=1) if line.strip()
    ]
    if len(lines) == 1 or not lines[0][1].rstrip().endswith("}"):
        return json_values.parse(source, source.text), []
    row, line = lines[-1]
    warning = f"the file holds {len(lines)} runs (--append-result): the last is used"
    return json_values.parse(source, line, row), [warning]


def _tokens(source: TraceSource, result: dict[str, Any], key: str) -> Int64Array:
    values = result[key]
    for row, value in enumerate(values, start=1):
        if type(value) is not int or not 0 <= value <= MAX_TOKENS:
            raise source.error(
                f"{key}={json_values.show(value)} {json_values.complaint(value, MAX_TOKENS)}",
                row=row,
            )
    return np.array(values, dtype=np.int64)


def _times(source: TraceSource, values: Any) -> Int64Array:
    if not isinstance(values, list):
        raise source.error("'start_times' is not a list")
    largest = MAX_TIME_NS // NS_PER_SECOND
    for row, value in enumerate(values, start=1):
        if type(value) not in (int, float) or not 0 <= value <= largest:
            raise source.error(
                f"start_times={json_values.show(value)} is no number of seconds (0 to {largest})",
                row=row,
            )
    # A double holds a reading of 10 days to a tenth of a nanosecond.
    return np.rint(np.array(values, dtype=np.float64) * NS_PER_SECOND).astype(np.int64)


def _same_length(source: TraceSource, name: str, found: int, expected: int) -> None:
    if found != expected:
        raise source.error(
            f"{name} has {found} values but input_lens has {expected}: the file is damaged"
        )
