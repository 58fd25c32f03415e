"""Statistics of values that are not kept: exact means, percentiles from log-linear buckets.

An octave has 512 buckets of equal width, as in HdrHistogram. A percentile is read from the middle
of a bucket, which is off by at most 1/1024 of any value in it: :data:`RELATIVE_ERROR`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.metrics import Distribution

FRACTION_BITS = 9
RELATIVE_ERROR = 2.0 ** -(FRACTION_BITS + 1)
"""Bound of the relative error of a percentile, 0.098 %."""
N_BUCKETS = (64 << FRACTION_BITS) + 1
_SHIFT = 52 - FRACTION_BITS
_FIRST = 1023 << FRACTION_BITS


class Histogram:
    """Values from 0 on: how many lie in each bucket, their sum, spread and ends.

    Bucket 0 counts values below 1, bucket i from 1 on those from :func:`bucket_starts` on.
    """

    def __init__(self) -> None:
        self.buckets = np.zeros(N_BUCKETS, dtype=np.int64)
        self.count = 0
        self.least = math.inf
        self.most = -math.inf
        self._sum: int | float = 0
        self._squared_distances = 0.0

    @classmethod
    def of_sums(
        cls, buckets: NDArray[np.int64], total: int, squares: int, least: int, most: int
    ) -> Histogram:
        """The histogram of whole numbers with these exact sums."""
        own = cls()
        own.buckets, own.count, own._sum = buckets, int(buckets.sum()), total
        if own.count:
            own.least, own.most = least, most
            # The distances from the mean, in whole numbers: n Q - S^2, over n.
            own._squared_distances = (own.count * squares - total * total) / own.count
        return own

    def add(self, values: NDArray[Any]) -> None:
        """Count values, int64 or float64."""
        count = len(values)
        if not count:
            return
        self.buckets += np.bincount(buckets_of(values), minlength=N_BUCKETS)
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))
        total = exact_sum(values)
        # Sums of squared distances of two groups, by their means (Chan, Golub and LeVeque, 1983).
        own = float(np.square(values - total / count).sum())
        if self.count:
            apart = total / count - self._sum / self.count
            own += apart * apart * self.count * count / (self.count + count)
        self._squared_distances += own
        self.count += count
        self._sum += total

    def describe(self, percentiles: Sequence[float]) -> Distribution:
        """Mean and deviation from the sums, median and percentiles from the buckets."""
        if not self.count:
            return Distribution(None, None, None, tuple((p, None) for p in percentiles))
        found = [self.percentile(p) for p in (50.0, *percentiles)]
        return Distribution(
            self._sum / self.count,
            found[0],
            math.sqrt(max(0.0, self._squared_distances) / self.count),
            tuple(zip(percentiles, found[1:], strict=True)),
        )

    def percentile(self, percentile: float) -> float:
        """The linear percentile of the buckets' middles; the ends are exact."""
        position = (self.count - 1) * (percentile / 100)
        below = math.floor(position)
        low, high = self._at_rank(below), self._at_rank(min(below + 1, self.count - 1))
        return low + (high - low) * (position - below)

    def _at_rank(self, rank: int) -> float:
        if rank == 0:
            return self.least
        if rank == self.count - 1:
            return self.most
        bucket = int(np.searchsorted(np.cumsum(self.buckets), rank, side="right"))
        starts = bucket_starts(np.array([bucket, bucket + 1]))
        return min(max(float(starts.mean()), self.least), self.most) if bucket else self.least


def buckets_of(values: NDArray[Any]) -> NDArray[np.int64]:
    """The bucket of each value: the exponent of the double and the first bits of its mantissa."""
    bits = np.maximum(values, 0).astype(np.float64).view(np.int64)
    buckets: NDArray[np.int64] = np.maximum((bits >> _SHIFT) - (_FIRST - 1), 0)
    return buckets


def bucket_starts(buckets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The smallest value of each bucket from 1 on."""
    return ((buckets - 1 + _FIRST) << _SHIFT).view(np.float64)


def exact_sum(values: NDArray[Any]) -> int | float:
    """The sum: of integers without overflow, of doubles in pairs, as numpy's mean has it."""
    if values.dtype.kind == "f":
        return float(values.sum())
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if largest * len(values) < 2**63:
        return int(values.sum())
    whole: list[int] = values.tolist()
    return sum(whole)
