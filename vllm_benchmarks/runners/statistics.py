"""Median, spread and outliers of repeated measurements."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

_OUTLIER_RANGES = 5.0


class Repeated(NamedTuple):
    """What repeated measurements say."""

    median: float
    spread: float
    """Interquartile range over the median."""
    outliers: int


def repeated(values: Sequence[float]) -> Repeated | None:
    """Summarise measurements; None where there are none."""
    if not values:
        return None
    median = statistics.median(values)
    if len(values) < 2 or median == 0:
        return Repeated(median, 0.0, 0)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    far = _OUTLIER_RANGES * max(high - low, 0.01 * median)
    return Repeated(
        median, (high - low) / median, sum(abs(value - median) > far for value in values)
    )


def load_average() -> float | None:
    """Processes that want the machine's cores, over the last minute."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
