"""Replay decision traces of the real vLLM scheduler against the simulator's.

    python -m vllm_benchmarks.replay_decisions FILE...

Prints how many lines of each trace were equal and, where one was not, the first difference with the
state around it. Exit code 0 only if all are equal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llm_inference_simulator._core import SchedulerReplay
from llm_inference_simulator.errors import ConfigError, SimulatorError, WorkloadError
from vllm_benchmarks.decision_traces import (
    ARRIVAL_UNITS_PER_SECOND,
    DecisionTrace,
    Line,
    read_trace,
)

LINES_OF_CONTEXT = 6


@dataclass(frozen=True, slots=True)
class Difference:
    """The first line that differs."""

    line: int
    recorded: dict[str, Any]
    ours: dict[str, Any]
    before: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a replay agreed."""

    compared: int
    """Lines of decisions in the trace."""
    equal: int
    """Lines that were equal before the first difference."""
    difference: Difference | None


class Replayer:
    """Our scheduler, fed from a trace and answering in its words."""

    def __init__(self, trace: DecisionTrace) -> None:
        # Numbers break ties of priority and arrival, so they follow the ids.
        additions = sorted(trace.additions, key=lambda add: add["id"])
        self._requests = {add["id"]: index for index, add in enumerate(additions)}
        if len(self._requests) != len(additions):
            raise WorkloadError(f"decision trace {trace.path}: a request id is added twice")
        self._ids = list(self._requests)
        blocks = [add.get("blocks", []) for add in additions]
        offsets = np.cumsum([0, *(len(own) for own in blocks)], dtype=np.int64)
        contents = np.array([block for own in blocks for block in own], dtype=np.int64)
        self._scheduler = SchedulerReplay(trace.settings(), offsets, contents)

    def add(self, add: dict[str, Any]) -> None:
        """Add a request."""
        self._scheduler.add(
            self._requests[add["id"]],
            add["prompt"],
            add["max_tokens"],
            add["priority"],
            round(add["arrival"] * ARRIVAL_UNITS_PER_SECOND),
        )

    def schedule(self) -> dict[str, Any]:
        """Schedule once."""
        rows, preempted, free, waiting, running = self._scheduler.schedule()
        return {
            "schedule": [[self._ids[request], before, new] for request, before, new in rows],
            "preempted": sorted(self._ids[request] for request in preempted),
            "free": free,
            "waiting": waiting,
            "running": running,
        }

    def update(self) -> dict[str, Any]:
        """Process the output of the oldest step."""
        tokens, finished = self._scheduler.update()
        return {
            "update": {
                "tokens": [self._ids[request] for request in tokens],
                "finished": sorted(self._ids[request] for request in finished),
            }
        }


def compare(trace: DecisionTrace) -> Comparison:
    """Replay a trace up to its first difference.

    Raises :class:`WorkloadError` where the trace asks for what no scheduler can do.
    """
    try:
        replayer = Replayer(trace)
    except (ValueError, ConfigError) as error:
        raise WorkloadError(f"decision trace {trace.path} line 1: {error}") from None
    compared = sum(line.kind != "add" for line in trace.lines)
    before: deque[Line] = deque(maxlen=LINES_OF_CONTEXT)
    equal = 0
    for line in trace.lines:
        recorded = dict(line.content)
        try:
            if line.kind == "add":
                replayer.add(recorded["add"])
                before.append(line)
                continue
            ours = replayer.schedule() if line.kind == "schedule" else replayer.update()
        except ValueError as error:
            raise WorkloadError(
                f"decision trace {trace.path} line {line.number}: {error}"
            ) from None
        if not _same(recorded, ours):
            return Comparison(
                compared, equal, Difference(line.number, recorded, ours, tuple(before))
            )
        equal += 1
        before.append(line)
    return Comparison(compared, equal, None)


def _same(recorded: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Compare what was recorded: a trace may leave out the counts after ``schedule``."""
    if "update" in recorded:
        update = recorded["update"]
        recorded = {"update": {**update, "finished": sorted(update["finished"])}}
    return all(ours[key] == value for key, value in recorded.items())


def describe(difference: Difference) -> str:
    """Word a difference with the lines before it."""
    text = [f"  first difference at line {difference.line}"]
    text += [f"    {line.number}: {json.dumps(line.content)[:240]}" for line in difference.before]
    text.append(f"    recorded: {json.dumps(difference.recorded)}")
    text.append(f"    ours:     {json.dumps(difference.ours)}")
    return "\n".join(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m vllm_benchmarks.replay_decisions",
        description="Replay decision traces of the real vLLM scheduler against the simulator's.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="trace, plain or gzip")
    arguments = parser.parse_args(argv)
    different = 0
    lines = 0
    for path in arguments.files:
        try:
            comparison = compare(read_trace(path))
        except SimulatorError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        lines += comparison.equal
        verdict = "EQUAL" if comparison.difference is None else "DIFFERENT"
        print(f"{path}: {comparison.equal} of {comparison.compared} lines equal: {verdict}")
        if comparison.difference is not None:
            different += 1
            print(describe(comparison.difference))
    total = len(arguments.files)
    print(f"{total - different} of {total} traces equal, {lines} lines")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
