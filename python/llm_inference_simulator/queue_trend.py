"""Whether waiting requests pile up, found while the requests pass by."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.diagnostics import (
    FEWEST_REQUESTS,
    Saturation,
    left_queue,
    queue_grows,
)
from llm_inference_simulator.histograms import Histogram
from llm_inference_simulator.metrics import COMPLETED, NS_PER_S, Columns

MOST_BINS = 4096
"""Bins of equally many arrivals; when they are used up, each two become one."""


@dataclass(slots=True)
class QueueTrend:
    """The depth of the queue at every arrival, as :func:`diagnostics.find_saturation` defines it.

    Kept are means over bins of arrivals, so that a quarter is one to within 1/2048 of them.
    """

    _per_bin: int = 1
    _depths: list[float] = field(default_factory=list)
    """Sum by bin; the last one may be open."""
    _starts: list[tuple[int, int]] = field(default_factory=list)
    """By bin: (time, requests that had left the queue) at its first arrival."""
    _arrivals: int = 0
    _gone: int = 0
    """Requests that left the queue before the last arrival."""
    _leaving: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """When the others left it, sorted."""
    _last_ns: int = 0
    _gaps: Histogram = field(default_factory=Histogram)
    _outputs: Histogram = field(default_factory=Histogram)

    def add(self, columns: Columns) -> None:
        """Requests that have ended, in order of arrival."""
        arrived = columns["arrival_ns"] >= 0
        # In a closed loop a request may be sent before one that precedes it in its columns.
        times = np.sort(columns["arrival_ns"][arrived])
        if not len(times):
            return
        before = times[0] if not self._arrivals else min(self._last_ns, int(times[0]))
        self._gaps.add(np.diff(times, prepend=before))
        self._outputs.add(columns["output_tokens"][columns["status"] == COMPLETED])
        left = np.sort(np.concatenate([self._leaving, left_queue(columns, arrived)]))
        gone = self._gone + np.searchsorted(left, times, side="right")
        place = np.arange(self._arrivals, self._arrivals + len(times))
        self._fill(times, gone, np.maximum(place - gone, 0))
        passed = int(np.searchsorted(left, times[-1], side="right"))
        self._leaving, self._gone = left[passed:], self._gone + passed
        self._arrivals += len(times)
        self._last_ns = int(times[-1])

    def _fill(
        self, times: NDArray[np.int64], gone: NDArray[np.int64], depth: NDArray[np.int64]
    ) -> None:
        start = 0
        while start < len(times):
            filled = (self._arrivals + start) % self._per_bin
            if not filled:
                if len(self._depths) == MOST_BINS:
                    self._halve()
                    continue
                self._depths.append(0.0)
                self._starts.append((int(times[start]), int(gone[start])))
            end = min(len(times), start + self._per_bin - filled)
            self._depths[-1] += float(depth[start:end].sum())
            start = end

    def _halve(self) -> None:
        self._per_bin *= 2
        pairs = zip(self._depths[::2], self._depths[1::2], strict=True)
        self._depths = [sum(pair) for pair in pairs]
        self._starts = self._starts[::2]

    def saturation(self) -> Saturation | None:
        """What :func:`diagnostics.find_saturation` finds in all requests."""
        count = self._arrivals
        if count < FEWEST_REQUESTS or self._last_ns == self._starts[0][0]:
            return None
        bins = len(self._depths)
        quarter = bins // 4
        middle = sum(self._depths[quarter : 2 * quarter]) / (quarter * self._per_bin)
        in_last = count - (bins - quarter) * self._per_bin
        end = sum(self._depths[-quarter:]) / in_last
        variation = max(1.0, _squared_variation(self._gaps)) + _squared_variation(self._outputs)
        if not queue_grows(middle, end, variation, count):
            return None
        half_ns, gone_at_half = self._starts[bins // 2]
        seconds = (self._last_ns - half_ns) / NS_PER_S
        if seconds <= 0:
            return None
        offered = count - bins // 2 * self._per_bin
        sustained = self._gone - gone_at_half
        return Saturation(offered / seconds, sustained / seconds, middle, end)


def _squared_variation(values: Histogram) -> float:
    statistics = values.describe([])
    if not statistics.mean or statistics.std is None:
        return 0.0
    return (statistics.std / statistics.mean) ** 2
