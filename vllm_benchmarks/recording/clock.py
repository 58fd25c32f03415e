"""The virtual clock: which requests join between which steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llm_inference_simulator.errors import ConfigError
from vllm_benchmarks.recording.decision_log import DecisionLog
from vllm_benchmarks.recording.workload import Row

STALLED_AFTER = 100
"""So many schedules in a row that select nothing, with nothing in flight, mean a dead end."""


class Engine(Protocol):
    """What the clock needs of a vLLM engine."""

    @property
    def busy(self) -> bool:
        """Whether a step could do something."""

    def add(self, index: int, row: Row) -> None:
        """Let a request join."""

    def step(self) -> None:
        """Do what vLLM's engine does between two looks at its input."""


def drive(engine: Engine, rows: Sequence[Row], log: DecisionLog, step_ms: float) -> None:
    """Let the rows join at their times and step until all have finished.

    A device without gaps ends a step every ``step_ms`` whether one or two are in flight, so the
    clock moves when an output is processed, or, idle, to the next arrival.
    """
    now_ms = 0.0
    joined = 0
    while joined < len(rows) or engine.busy:
        if not engine.busy:
            now_ms = max(now_ms, rows[joined].time_ms)
        while joined < len(rows) and rows[joined].time_ms <= now_ms:
            engine.add(joined, rows[joined])
            joined += 1
        executed = log.executed
        engine.step()
        now_ms += step_ms * (log.executed - executed)
        if log.idle_schedules > STALLED_AFTER:
            raise ConfigError(
                f"vLLM has scheduled nothing for {STALLED_AFTER} steps although requests wait: "
                "give the cache more blocks (--num-gpu-blocks) or lower --watermark"
            )
