"""Medians and percentiles, to numpy's last bit.

``np.median`` and ``np.percentile`` import masked arrays to find out whether they were given one,
which is a tenth of the time that a small run takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

AtRanks = Callable[[NDArray[np.int64]], NDArray[Any]]
"""Numbers by rank; 0 is the smallest."""


def median(values: ArrayLike) -> NDArray[np.float64]:
    """``np.median`` along the last axis, of at least one number, none of them NaN."""
    numbers: NDArray[Any] = np.asarray(values)
    low, high = (numbers.shape[-1] - 1) // 2, numbers.shape[-1] // 2
    middle = np.partition(numbers, (low, high), axis=-1)[..., low : high + 1]
    found: NDArray[np.float64] = np.mean(middle, axis=-1)
    return found


def percentiles(values: NDArray[Any], wanted: Sequence[float]) -> list[float]:
    """``np.percentile`` of a row of at least one number, none of them NaN."""

    def at_ranks(ranks: NDArray[np.int64]) -> NDArray[Any]:
        ordered: NDArray[Any] = np.partition(values, ranks)
        return ordered[ranks]

    return percentiles_at_ranks(len(values), at_ranks, wanted)


def percentiles_at_ranks(count: int, at_ranks: AtRanks, wanted: Sequence[float]) -> list[float]:
    """``np.percentile`` of ``count`` numbers that ``at_ranks`` finds.

    The interpolation is numpy's own, in the same order of operations, so the results are equal
    bit for bit.
    """
    position = (count - 1) * (np.asarray(wanted, dtype=np.float64) / 100)
    below = np.floor(position)
    above = np.minimum(below + 1, count - 1)
    found = at_ranks(np.concatenate([below, above]).astype(np.int64))
    low, high = found[: len(below)], found[len(below) :]
    share, gap = position - below, high - low
    interpolated = np.where(share >= 0.5, high - gap * (1 - share), low + gap * share)
    return [float(value) for value in interpolated]
