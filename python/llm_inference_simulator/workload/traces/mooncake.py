"""Mooncake traces, one JSON object a line, the project's own format for traces too::

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}

``timestamp`` is in milliseconds. ``hash_ids`` (one a block of the prompt) may be left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.traces import json_values
from llm_inference_simulator.workload.traces.numbers import NS_PER_MILLISECOND, time_ns
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import Trace, recorded_trace

_READ = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
_LARGEST_HASH_ID = 2**63 - 1


def read(source: TraceSource) -> Trace:
    """Read a Mooncake trace; raises :class:`WorkloadError` naming file and row."""
    times, prompts, outputs = [], [], []
    hashed = 0
    ignored: dict[str, None] = {}
    for row, line in enumerate(source.text.split("\n"), start=1):
        if not line.strip():
            continue
        entry = json_values.parse(source, line, row, exact=True)
        if not isinstance(entry, dict):
            raise source.error("it must be a JSON object", row=row)
        times.append(_timestamp(source, entry, row))
        prompts.append(json_values.token_count(source, entry, "input_length", row))
        outputs.append(json_values.token_count(source, entry, "output_length", row))
        if "hash_ids" in entry:
            _check_hash_ids(source, entry["hash_ids"], row)
            hashed += 1
        if len(entry) > 3:
            ignored.update(dict.fromkeys(key for key in entry if key not in _READ))
    warnings = []
    if hashed:
        warnings.append(
            "hash_ids are not used: prefix sharing between requests is not simulated, so every "
            "prompt is computed in full"
        )
    if ignored:
        names = ", ".join(map(json_values.show, list(ignored)[:10]))
        warnings.append(f"{len(ignored)} keys are not used: {names}")
    return recorded_trace(
        source,
        np.array(times, dtype=np.int64),
        np.array(prompts, dtype=np.int64),
        np.array(outputs, dtype=np.int64),
        warnings,
    )


def _timestamp(source: TraceSource, entry: dict[str, Any], row: int) -> int:
    value = entry.get("timestamp")
    if type(value) is int and 0 <= value < 2**40:
        return value * NS_PER_MILLISECOND
    if "timestamp" not in entry:
        raise source.error("key 'timestamp' is missing", row=row)
    if isinstance(value, bool | str) or value is None:
        raise source.error(f"timestamp={json_values.show(value)} is not a number", row=row)

    def error(_: int, problem: str) -> WorkloadError:
        return source.error(problem, row=row)

    return time_ns(str(value), NS_PER_MILLISECOND, "timestamp", row, error)


def _check_hash_ids(source: TraceSource, ids: Any, row: int) -> None:
    if not isinstance(ids, list):
        raise source.error(f"hash_ids={json_values.show(ids)} is not a list", row=row)
    if not ids:
        return
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= _LARGEST_HASH_ID:
        return
    bad = next(i for i in ids if type(i) is not int or not 0 <= i <= _LARGEST_HASH_ID)
    raise source.error(
        f"hash_ids holds {json_values.show(bad)}, which "
        f"{json_values.complaint(bad, _LARGEST_HASH_ID)}",
        row=row,
    )
