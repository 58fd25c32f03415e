"""Metrics of requests that pass by and are not kept: counts, sums, histograms.

Every figure is the one of :mod:`metrics` over all rows, but for percentiles
(:mod:`histograms`). Rows come in order of arrival, in blocks of any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator import diagnostics, metrics
from llm_inference_simulator.histograms import Histogram
from llm_inference_simulator.metrics import COMPLETED, NS_PER_S, UNFINISHED, Columns, Window
from llm_inference_simulator.queue_trend import QueueTrend

OF_REQUESTS = tuple(name for name in metrics.LATENCY_METRICS if name != "itl")
_HAPPENED = ("admitted_ns", "first_token_ns", "finished_ns")


class RunningMetrics:
    """What is left of the rows that were added."""

    def __init__(
        self, *, warm_up_ns: int, objectives_ms: Mapping[str, float], max_model_len: int
    ) -> None:
        self.n_requests = 0
        self.first_arrival_ns: int | None = None
        self.latest_ns = 0
        self.all_input_tokens = self.all_output_tokens = 0
        """Of all completed requests, warm-up included."""
        self._warm_up_ns = warm_up_ns
        self._objectives_ms = objectives_ms
        self._max_model_len = max_model_len
        self._latencies = {name: Histogram() for name in OF_REQUESTS}
        self._trend = QueueTrend()
        self._arrived = self._counted = self._unfinished = 0
        self._completed = self._failed = self._good = 0
        self._input_tokens = self._output_tokens = 0
        self._end_ns = self._arrivals_end_ns = warm_up_ns
        self._in_load = 0
        self._after_load = np.zeros(0, dtype=np.int64)
        """Completions behind the latest arrival so far."""
        self._all_completed = self._preempted = self._preemptions = self._cut = 0
        self._rejected = [0] * diagnostics.REASONS

    def add(self, columns: Columns, requested_output: NDArray[np.int64]) -> None:
        """Rows with the latencies of :func:`metrics.derive_latencies`."""
        self.n_requests += len(columns["arrival_ns"])
        arrival, finished = columns["arrival_ns"], columns["finished_ns"]
        arrived = arrival >= 0
        if arrived.any():
            first = int(arrival[arrived].min())
            known = self.first_arrival_ns
            self.first_arrival_ns = first if known is None else min(known, first)
        self.latest_ns = max(self.latest_ns, *(int(columns[n].max(initial=0)) for n in _HAPPENED))
        counted = arrived & (arrival >= self._warm_up_ns)
        done = columns["status"] == COMPLETED
        self._arrived += int(arrived.sum())
        self._count(columns, counted, done)
        self._move_window(arrival[counted], finished[counted & (columns["status"] != UNFINISHED)])
        self._count_load(finished[done])
        self.all_input_tokens += int(columns["prompt_tokens"][done].sum())
        self.all_output_tokens += int(columns["output_tokens"][done].sum())
        self._trend.add(columns)
        self._all_completed += int(done.sum())
        self._preempted += int((columns["preemptions"][done] > 0).sum())
        self._preemptions += int(columns["preemptions"].sum())
        self._cut += diagnostics.count_truncations(columns, requested_output)
        rejected = diagnostics.count_rejections(
            columns, requested_output, max_model_len=self._max_model_len
        )
        self._rejected = [a + b for a, b in zip(self._rejected, rejected, strict=True)]

    def _count(self, columns: Columns, counted: NDArray[np.bool_], done: NDArray[np.bool_]) -> None:
        completed = counted & done
        self._counted += int(counted.sum())
        self._unfinished += int((counted & (columns["status"] == UNFINISHED)).sum())
        self._completed += int(completed.sum())
        self._failed += int((counted & (columns["status"] > COMPLETED)).sum())
        self._input_tokens += int(columns["prompt_tokens"][completed].sum())
        self._output_tokens += int(columns["output_tokens"][completed].sum())
        for name, histogram in self._latencies.items():
            values = columns[f"{name}_ns"][completed]
            histogram.add(values[values >= 0])
        if self._objectives_ms:
            good = metrics.good_requests(columns, counted, self._objectives_ms)
            self._good += int(good.sum())

    def _move_window(self, arrival: NDArray[np.int64], finished: NDArray[np.int64]) -> None:
        self._arrivals_end_ns = int(arrival.max(initial=self._arrivals_end_ns))
        self._end_ns = int(finished.max(initial=self._end_ns))

    def _count_load(self, finished: NDArray[np.int64]) -> None:
        """Count completions until the last arrival, of which more may come."""
        waiting = np.concatenate([self._after_load, finished[finished > self._warm_up_ns]])
        within = waiting <= self._arrivals_end_ns
        self._in_load += int(within.sum())
        self._after_load = waiting[~within]

    def window(self) -> Window:
        """The window of :func:`metrics.measure_window`."""
        loaded_s = (self._arrivals_end_ns - self._warm_up_ns) / NS_PER_S
        return Window(
            start_ns=self._warm_up_ns,
            end_ns=self._end_ns,
            arrivals_end_ns=self._arrivals_end_ns,
            counted=np.zeros(0, dtype=np.bool_),
            n_counted=self._counted,
            arrived=self._arrived,
            excluded_warm_up=self._arrived - self._counted,
            unfinished=self._unfinished,
            completion_rate_while_loaded=metrics.ratio(self._in_load, loaded_s),
        )

    def body(self, gaps: Histogram, percentiles: Sequence[float]) -> dict[str, Any]:
        """The body of :func:`metrics.summarise`; ``gaps`` are those between tokens."""
        histograms = {**self._latencies, "itl": gaps}
        return metrics.summary_body(
            self.window(),
            completed=self._completed,
            failed=self._failed,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            n_good=self._good if self._objectives_ms else None,
            statistics={
                name: histograms[name].describe(percentiles) for name in metrics.LATENCY_METRICS
            },
        )

    def diagnoses(self, max_concurrency: int | None) -> list[str | None]:
        """What a reader must know, as :mod:`diagnostics` words it."""
        found = None if max_concurrency is not None else self._trend.saturation()
        longest = self._max_model_len
        return [
            diagnostics.word_saturation(found),
            diagnostics.word_preemptions(self._all_completed, self._preempted, self._preemptions),
            diagnostics.word_rejections(self._rejected, self.n_requests, max_model_len=longest),
            diagnostics.word_truncations(self._cut, longest),
        ]
