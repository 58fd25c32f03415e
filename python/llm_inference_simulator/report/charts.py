"""Charts as plain data: what is drawn, not how. ``assets/page.js`` draws them with ECharts.

A chart knows no colours: series name a role (``results`` in their order, or what a share of time
is bound by), and the page has a colour for each, in light and in dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["line", "area", "bar", "points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis. ``scale`` "log" takes positive values only; ``categories`` makes it one of names.

    ``format`` says how numbers are written: "number", "percent" (of shares) or "milliseconds".
    """

    title: str = ""
    scale: Literal["linear", "log"] = "linear"
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] | None = None
    format: Literal["number", "percent", "milliseconds"] = "number"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the page."""
        data: dict[str, Any] = {"title": self.title, "format": self.format}
        if self.categories is not None:
            return data | {"categories": list(self.categories)}
        if self.scale == "log" and self.low and self.high:
            low, high = self.low, self.high
            return data | {
                "log": True,
                "low": math.log10(low),
                "high": math.log10(high),
                "ticks": [math.log10(tick) for tick in log_ticks(low, high)],
            }
        return data | {"low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Values of one name: a y for each x (line, area, points), or one for each category (bar)."""

    name: str
    x: Sequence[float] = ()
    y: Sequence[float | None]
    """None: not known, a gap in the line."""
    kind: Kind = "line"
    color: str | int = 0
    """Place in the page's palette, or the name of one of its roles."""
    stack: str | None = None
    """Series with the same word are put on top of one another."""
    step: bool = False
    """Draw a value until the next one instead of sloping to it."""
    dashed: bool = False
    hidden: bool = False
    """Carries other series of its stack and is not seen."""
    labels: Sequence[str] = ()
    """A line for each point in the tooltip of ``points``."""

    def to_dict(self, x_axis: Axis) -> dict[str, Any]:
        """Plain data for the page; x of a logarithmic axis as logarithms."""
        data: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "color": self.color,
            "stack": self.stack,
            "step": self.step,
            "dashed": self.dashed,
            "hidden": self.hidden,
        }
        if self.labels:
            data["labels"] = list(self.labels)
        if self.kind == "bar":
            return data | {"values": list(self.y)}
        x = self.x
        if x_axis.scale == "log":
            x = [round(math.log10(value), 6) for value in x]
        return data | {"values": [list(point) for point in zip(x, self.y, strict=True)]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with its title, the sentence below it, and its axes.

    ``identity`` is unique on a page. ``flip`` lays bars on their side.
    """

    identity: str
    title: str
    caption: str = ""
    x: Axis
    y: Axis
    series: Sequence[Series]
    height: int = 280
    """Pixels."""
    wide: bool = False
    """Takes the whole width of the page."""
    flip: bool = False
    tooltip: Literal["axis", "item"] = "axis"
    marks: Sequence[tuple[float, str]] = field(default_factory=tuple)
    """(x, text) of vertical lines, as an objective."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the page."""
        log = self.x.scale == "log"
        return {
            "id": self.identity,
            "title": self.title,
            "x": self.x.to_dict(),
            "y": self.y.to_dict(),
            "series": [series.to_dict(self.x) for series in self.series],
            "flip": self.flip,
            "tooltip": self.tooltip,
            "marks": [
                {"at": math.log10(at) if log else at, "text": text} for at, text in self.marks
            ],
        }


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high``: 1, 2 and 5 of each decade.

    A span of less than a factor of six gets equal steps, one of many decades powers of ten.
    """
    if high / low < 6:
        return _linear_ticks(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1.0, 2.0, 5.0) if high / low < 3e3 else (1.0,)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return [tick for tick in ticks if low <= tick <= high]


def _linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    rough = (high - low) / wanted
    if rough <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(place * step, 12) for place in range(first, last + 1)] or [low]
