"""Mooncake traces, one JSON object a line, the project's own format for traces too::

    {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 2353]}

``timestamp`` is in milliseconds. May be left out: ``hash_ids`` (one for each block of the prompt;
equal ids mean equal tokens up to the end of the block), ``session_id`` (a request is sent when the
one before it in its session is answered, and continues it), ``think_time`` (milliseconds from that
answer until this request is sent) and ``priority`` (lower comes first). Without ``think_time`` a
turn is sent at its timestamp or with the answer, whichever is later: the time between two recorded
timestamps holds the answer's own time and cannot be taken apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.traces import json_values
from llm_inference_simulator.workload.traces.numbers import NS_PER_MILLISECOND, time_ns
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import Marks, Trace, recorded_trace

_READ = frozenset(
    {
        "timestamp",
        "input_length",
        "output_length",
        "hash_ids",
        "session_id",
        "think_time",
        "priority",
    }
)
_LARGEST_HASH_ID = 2**63 - 1


def read(source: TraceSource) -> Trace:
    """Read a Mooncake trace; raises :class:`WorkloadError` naming file and row."""
    times, prompts, outputs = [], [], []
    hash_ids: list[list[int]] = []
    sessions: list[str | None] = []
    priorities: list[int] = []
    thinks: list[int] = []
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
        hash_ids.append(_hash_ids(source, entry.get("hash_ids", []), row))
        sessions.append(_session(source, entry, row))
        priorities.append(_priority(source, entry, row))
        thinks.append(_think(source, entry, row))
        if len(entry) > 3:
            ignored.update(dict.fromkeys(key for key in entry if key not in _READ))
    warnings = []
    if ignored:
        names = ", ".join(map(json_values.show, list(ignored)[:10]))
        warnings.append(f"{len(ignored)} keys are not used: {names}")
    return recorded_trace(
        source,
        np.array(times, dtype=np.int64),
        np.array(prompts, dtype=np.int64),
        np.array(outputs, dtype=np.int64),
        warnings,
        marks=Marks.build(hash_ids, sessions, priorities, thinks),
    )


def _timestamp(source: TraceSource, entry: dict[str, Any], row: int) -> int:
    if "timestamp" not in entry:
        raise source.error("key 'timestamp' is missing", row=row)
    return _milliseconds(source, entry["timestamp"], "timestamp", row)


def _think(source: TraceSource, entry: dict[str, Any], row: int) -> int:
    if "think_time" not in entry:
        return 0
    if "session_id" not in entry:
        raise source.error(
            "think_time is from the answer before in a session, but there is no session_id", row=row
        )
    return _milliseconds(source, entry["think_time"], "think_time", row)


def _milliseconds(source: TraceSource, value: Any, name: str, row: int) -> int:
    if type(value) is int and 0 <= value < 2**40:
        return value * NS_PER_MILLISECOND
    if isinstance(value, bool | str) or value is None:
        raise source.error(f"{name}={json_values.show(value)} is not a number", row=row)

    def error(_: int, problem: str) -> WorkloadError:
        return source.error(problem, row=row)

    return time_ns(str(value), NS_PER_MILLISECOND, name, row, error)


def _session(source: TraceSource, entry: dict[str, Any], row: int) -> str | None:
    value = entry.get("session_id")
    if value is None and "session_id" not in entry:
        return None
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise source.error(f"session_id={json_values.show(value)} is not a text or number", row=row)


def _priority(source: TraceSource, entry: dict[str, Any], row: int) -> int:
    value = entry.get("priority", 0)
    if type(value) is int and abs(value) < 2**31:
        return value
    raise source.error(f"priority={json_values.show(value)} is not a whole number", row=row)


def _hash_ids(source: TraceSource, ids: Any, row: int) -> list[int]:
    if not isinstance(ids, list):
        raise source.error(f"hash_ids={json_values.show(ids)} is not a list", row=row)
    if not ids:
        return []
    if set(map(type, ids)) == {int} and min(ids) >= 0 and max(ids) <= _LARGEST_HASH_ID:
        return ids
    bad = next(i for i in ids if type(i) is not int or not 0 <= i <= _LARGEST_HASH_ID)
    raise source.error(
        f"hash_ids holds {json_values.show(bad)}, which "
        f"{json_values.complaint(bad, _LARGEST_HASH_ID)}",
        row=row,
    )
