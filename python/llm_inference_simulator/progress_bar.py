"""A progress bar on standard error, on a terminal only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_inference_simulator._core import Progress

NS_PER_S = 1_000_000_000


@contextlib.contextmanager
def task_bar(total: int | None, verb: str) -> Iterator[Callable[[float, str], None] | None]:
    """Show how much of ``total`` is done; None: nobody knows.

    Yields the callback that takes what is done and a note, or None where standard error is no
    terminal.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(verb),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Bar(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task(verb, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


@contextlib.contextmanager
def progress_bar(n_requests: int | None) -> Iterator[Callable[[Progress], None] | None]:
    """Show the share of requests answered, the simulated time and requests per second.

    Yields the callback that moves the bar, or None where standard error is no terminal.
    """
    started = time.perf_counter()
    with task_bar(n_requests, "simulating") as move:
        if move is None:
            yield None
            return

        def show(progress: Progress) -> None:
            rate = progress.answered / max(time.perf_counter() - started, 1e-9)
            note = f"{progress.now_ns / NS_PER_S:,.1f} s simulated, {rate:,.0f} requests/s"
            move(progress.answered, note)

        yield show


@contextlib.contextmanager
def configurations_bar(count: int) -> Iterator[Callable[[int, int], None] | None]:
    """Show how many of ``count`` configurations are done and how long the rest will take.

    Yields the callback for (done, all), or None where standard error is no terminal. What is done
    at the first call (of a sweep that goes on) does not count towards the speed.
    """
    started = time.perf_counter()
    with task_bar(count, "simulating") as move:
        if move is None:
            yield None
            return
        before: int | None = None

        def show(done: int, total: int) -> None:
            nonlocal before
            before = done - 1 if before is None else before
            elapsed = max(time.perf_counter() - started, 1e-9)
            left = (total - done) * elapsed / max(done - before, 1)
            move(done, f"{done:,} of {total:,} configurations, {time_left(left)} left")

        yield show


def time_left(seconds: float) -> str:
    """Seconds as "7 s", "3 min 5 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
