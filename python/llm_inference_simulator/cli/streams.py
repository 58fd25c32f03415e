"""Standard output that may be closed, full or gone early, or not know a letter."""

from __future__ import annotations

import contextlib
import io
import os
import sys


def open_missing_streams() -> None:
    """Run quietly where standard output or error was closed (``>&-``): Python then has none."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115


def tolerate_unknown_letters() -> None:
    """Print ``?`` for what the terminal's encoding lacks, instead of failing after a run."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def drop_stdout() -> None:
    """Let nothing more go to a reader that has left (``| head``), not at exit either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
