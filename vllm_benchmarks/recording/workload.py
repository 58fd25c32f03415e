"""The requests to record: a file in Mooncake's format, read for an engine that must take all.

Unlike the simulator's reader of traces this one refuses, by row, what vLLM would refuse or could
never schedule, keeps times as they are, and says that it does not use sessions.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.files import read_text

LARGEST_LENGTH = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Row:
    """A request of the workload; ``number`` is its line."""

    number: int
    time_ms: float
    prompt: int
    output: int
    priority: int
    hash_ids: tuple[int, ...]


def read_workload(path: Path, settings: dict[str, Any], trace_block_size: int) -> list[Row]:
    """Read the rows in the order in which they join; :class:`WorkloadError` names a bad row."""
    rows: list[Row] = []
    unused: dict[str, None] = {}
    for number, line in enumerate(read_text(path, "workload", WorkloadError).split("\n"), 1):
        if not line.strip():
            continue
        where = f"workload {path} row {number}"
        row, others = _parse_row(where, number, line)
        _check_row(where, row, settings, trace_block_size)
        rows.append(row)
        unused.update(dict.fromkeys(others))
    if not rows:
        raise WorkloadError(f"workload {path} holds no requests: give one JSON object a line")
    if unused:
        print(f"note: keys not used: {', '.join(unused)}", file=sys.stderr)
    return sorted(rows, key=lambda row: row.time_ms)


def _parse_row(where: str, number: int, line: str) -> tuple[Row, list[str]]:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise WorkloadError(f"{where} is not a JSON object: write one request a line") from None
    if not isinstance(entry, dict):
        raise WorkloadError(f"{where} is not a JSON object: write one request a line")
    time_ms = entry.pop("timestamp", None)
    if type(time_ms) not in (int, float) or not 0 <= time_ms < math.inf:
        raise WorkloadError(f"{where}: timestamp={time_ms!r} must be milliseconds, 0 or more")
    row = Row(
        number,
        time_ms,
        _integer(where, entry, "input_length", 1),
        _integer(where, entry, "output_length", 1),
        _integer(where, entry, "priority", -LARGEST_LENGTH, default=0),
        _hash_ids(where, entry),
    )
    return row, list(entry)


def _integer(
    where: str, entry: dict[str, Any], name: str, least: int, *, default: int | None = None
) -> int:
    if name not in entry and default is None:
        raise WorkloadError(f"{where}: {name} is missing: add it")
    value = entry.pop(name, default)
    if type(value) is not int or not least <= value <= LARGEST_LENGTH:
        raise WorkloadError(
            f"{where}: {name}={value!r} must be a whole number from {least} to {LARGEST_LENGTH}"
        )
    return value


def _hash_ids(where: str, entry: dict[str, Any]) -> tuple[int, ...]:
    ids = entry.pop("hash_ids", None) or []
    if not isinstance(ids, list):
        raise WorkloadError(f"{where}: hash_ids={ids!r} must be a list of whole numbers")
    bad = [found for found in ids if type(found) is not int]
    if bad:
        raise WorkloadError(f"{where}: hash_ids holds {bad[0]!r}: it must hold whole numbers")
    return tuple(ids)


def _check_row(where: str, row: Row, settings: dict[str, Any], trace_block_size: int) -> None:
    """Refuse what vLLM would refuse or could never schedule."""
    longest = settings["max_model_len"]
    if row.prompt >= longest:
        raise WorkloadError(
            f"{where}: input_length={row.prompt} leaves no room for output within "
            f"max_model_len={longest}: shorten it or raise --max-model-len"
        )
    total = row.prompt + min(row.output, longest - row.prompt) - 1
    needed = -(-total // settings["block_size"])
    if needed > settings["num_gpu_blocks"] - 1:
        raise WorkloadError(
            f"{where}: input_length={row.prompt} and output_length={row.output} need {needed} "
            f"blocks, the cache has {settings['num_gpu_blocks'] - 1} usable ones: raise "
            f"--num-gpu-blocks to at least {needed + 1}"
        )
    blocks = -(-row.prompt // trace_block_size)
    if len(row.hash_ids) > blocks:
        raise WorkloadError(
            f"{where}: hash_ids holds {len(row.hash_ids)} ids, but input_length={row.prompt} has "
            f"{blocks} blocks of {trace_block_size}: correct the row or --trace-block-size"
        )
