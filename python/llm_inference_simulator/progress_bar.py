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
def progress_bar(n_requests: int) -> Iterator[Callable[[Progress], None] | None]:
    """Show the share of requests answered, the simulated time and requests per second.

    Yields the callback that moves the bar, or None where standard error is no terminal.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("simulating"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
    )
    started = time.perf_counter()
    with Bar(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task("simulating", total=n_requests, note="")

        def show(progress: Progress) -> None:
            rate = progress.answered / max(time.perf_counter() - started, 1e-9)
            note = f"{progress.now_ns / NS_PER_S:,.1f} s simulated, {rate:,.0f} requests/s"
            bar.update(task, completed=progress.answered, note=note)

        yield show
