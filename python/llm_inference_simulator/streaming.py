"""Run a simulation of any length: requests go in and rows come out while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator import metrics
from llm_inference_simulator.histograms import Histogram
from llm_inference_simulator.metrics import Columns
from llm_inference_simulator.running_metrics import RunningMetrics
from llm_inference_simulator.workload.pieces import RequestPiece, RequestStream

if TYPE_CHECKING:
    from llm_inference_simulator._core import Progress, Simulation

BLOCK_ROWS = 65_536
"""Rows that are added up and written together; the last block is smaller."""

RowSink = Callable[[Columns], None]
"""Takes a block of request columns, latencies included, in order of arrival."""


class StreamedRun:
    """A streamed simulation as the event loop sees it: each slice feeds it and empties it."""

    def __init__(
        self,
        simulation: Simulation,
        stream: RequestStream,
        running: RunningMetrics,
        sink: RowSink | None,
        check_last: Callable[[int], None],
    ) -> None:
        self.simulation = simulation
        self.stream = stream
        self.running = running
        self._sink = sink
        self._check_last = check_last
        self._pieces = stream.pieces()
        self._next = deque([next(self._pieces)])
        self._feed()

    def run_slice(self, max_events: int) -> Progress:
        """Process at most ``max_events`` events; hand on the rows that are final."""
        progress = self.simulation.run_slice(max_events)
        if progress.needs_requests:
            self._feed()
        while self.simulation.ended_rows() >= BLOCK_ROWS:
            self._take()
        if progress.done:
            self._take()
        return progress

    def close(self) -> None:
        """End here: what is unanswered stays so."""
        self.simulation.close_stream()
        while self.simulation.ended_rows():
            self._take()

    def gaps(self) -> Histogram:
        """Gaps between tokens of the counted requests."""
        return Histogram.of_sums(*self.simulation.gap_histogram())

    def _feed(self) -> None:
        piece = self._next.popleft()
        # Only the piece behind tells whether this one is the last.
        self._next.extend(_first_of(self._pieces))
        is_last = not self._next
        if is_last:
            self._check_last(self.stream.last_arrival_ns)
        self.simulation.feed(
            piece.arrival_ns, piece.prompt_tokens, piece.output_tokens, last=is_last
        )

    def _take(self) -> None:
        columns: dict[str, NDArray[Any]] = self.simulation.take_rows(BLOCK_ROWS)
        requested: NDArray[np.int64] = columns.pop("requested_output_tokens")
        if not len(requested):
            return
        columns |= metrics.derive_latencies(columns)
        self.running.add(columns, requested)
        if self._sink is not None:
            self._sink(columns)


def _first_of(pieces: Iterator[RequestPiece]) -> list[RequestPiece]:
    for piece in pieces:
        return [piece]
    return []
