"""What ``--timeline-window`` and ``--timeline-requests`` select."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.metrics import NS_PER_S
from llm_inference_simulator.report.timeline import TimelineScope
from llm_inference_simulator.sections import LONGEST_S

_RANGE = re.compile(r"(\d{1,10})(?:-(\d{1,10}))?")
_SLOWEST = re.compile(r"slowest:(\d{1,10})")


def timeline_scope(flags: Mapping[str, Any]) -> TimelineScope:
    """Read the flags; raises :class:`ConfigError` for what selects nothing, or without a file."""
    window, requests = (flags.get(f"command.timeline_{name}") for name in ("window", "requests"))
    if "command.timeline" not in flags:
        for name, value in (("window", window), ("requests", requests)):
            if value is not None:
                raise ConfigError(
                    f"--timeline-{name} narrows a timeline: give --timeline FILE.json too"
                )
    scope = _requests(requests) if requests is not None else TimelineScope()
    if window is None:
        return scope
    return TimelineScope(window_ns=_window(window), requests=scope.requests, slowest=scope.slowest)


def _window(seconds: Sequence[float]) -> tuple[int, int]:
    first, last = seconds
    if not 0 <= first < last <= LONGEST_S:
        raise ConfigError(
            f"--timeline-window {first:g} {last:g}: the second number must be above the first, "
            "both between 0 and 1e9 seconds"
        )
    return round(first * NS_PER_S), round(last * NS_PER_S)


def _requests(text: str) -> TimelineScope:
    slowest = _SLOWEST.fullmatch(text)
    if slowest and int(slowest[1]) > 0:
        return TimelineScope(slowest=int(slowest[1]))
    ranges = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise ConfigError(
                f"--timeline-requests {text!r}: {part!r} is no number or range of requests: give "
                "them as in 3,10-20, or slowest:50"
            )
        ranges.append((first, last))
    return TimelineScope(requests=tuple(ranges))
