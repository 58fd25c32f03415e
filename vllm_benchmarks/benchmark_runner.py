"""Run a plan: point after point, onto disk, with the time left on the screen."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from llm_inference_simulator.errors import CalibrationError
from vllm_benchmarks.data_collector import DataCollector
from vllm_benchmarks.runners.server import describe, report_failures
from vllm_benchmarks.schema import BenchmarkPoint, PlannedPoint

_LINE_EVERY_S = 30.0
_MOST_FAILED_IN_A_ROW = 3
"""Points without any answer, after which the server counts as gone."""


class Runner(Protocol):
    """What measures a point."""

    def measure(self, point: PlannedPoint) -> BenchmarkPoint:
        """Measure it, all repeats."""


def run_plan(runner: Runner, plan: Sequence[PlannedPoint], collector: DataCollector) -> int:
    """Measure what is missing of a plan; returns how many points that were.

    Raises :class:`CalibrationError` where the server seems to be gone; what was measured is kept.
    """
    missing = collector.missing(list(plan))
    if len(missing) < len(plan):
        print(
            f"{collector.path}: {len(plan) - len(missing)} of {len(plan)} points are there "
            "already: resuming",
            file=sys.stderr,
        )
    unanswered = 0
    with _progress(missing) as advance:
        for point in missing:
            measured = runner.measure(point)
            collector.append(measured)
            report_failures(measured)
            unanswered = unanswered + 1 if _unanswered(measured) else 0
            if unanswered == _MOST_FAILED_IN_A_ROW:
                kinds = ", ".join(sorted(measured.failures))
                raise CalibrationError(
                    f"no request of {unanswered} points in a row was answered ({kinds}): the "
                    f"server seems to be gone. What was measured is kept in {collector.path}; "
                    "start the server and give the same command again"
                )
            advance(point)
    return len(missing)


def _unanswered(point: BenchmarkPoint) -> bool:
    """Whether nothing came back; a server that refuses (HTTP 4xx) is there."""
    refused = all(kind.startswith("http 4") for kind in point.failures)
    return bool(point.failures) and not point.has_data and not refused


@contextlib.contextmanager
def _progress(plan: Sequence[PlannedPoint]) -> Iterator[Callable[[PlannedPoint], None]]:
    """A bar with the time left on a terminal; elsewhere a line now and then."""
    from rich.console import Console

    console = Console(stderr=True)
    effort = sum(map(_effort, plan)) or 1
    if not console.is_terminal:
        yield _lines(effort, len(plan))
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(bar_width=None), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console) as bar:
        task = bar.add_task("measuring", total=effort, note="")

        def advance(point: PlannedPoint) -> None:
            bar.update(task, advance=_effort(point), note=describe(point))

        yield advance


def _lines(effort: float, points: int) -> Callable[[PlannedPoint], None]:
    began = said = time.monotonic()
    done, count = 0.0, 0

    def advance(point: PlannedPoint) -> None:
        nonlocal said, done, count
        done += _effort(point)
        count += 1
        now = time.monotonic()
        if now - said > _LINE_EVERY_S:
            said = now
            left = (now - began) * (effort - done) / done
            print(f"{count} of {points} points, about {left:.0f} s left", file=sys.stderr)

    return advance


def _effort(point: PlannedPoint) -> float:
    """Share of the plan's time: a constant for its steps, and its tokens."""
    return 200.0 + point.batch_size * (point.prompt_tokens + point.context_tokens)
