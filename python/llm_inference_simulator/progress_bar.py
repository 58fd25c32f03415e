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
def task_bar(total: int, verb: str) -> Iterator[Callable[[int, str], None] | None]:
    """Show how much of ``total`` is done.

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
def progress_bar(n_requests: int) -> Iterator[Callable[[Progress], None] | None]:
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
