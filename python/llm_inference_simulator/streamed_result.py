"""What a streamed run gives: the result JSON from sums and histograms, and no rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.histograms import RELATIVE_ERROR, Histogram
from llm_inference_simulator.metrics import NS_PER_S, Window
from llm_inference_simulator.results import Setup, SimulationResult
from llm_inference_simulator.running_metrics import RunningMetrics

if TYPE_CHECKING:
    from llm_inference_simulator._core import EngineStats


class _NoRows(dict[str, Any]):
    """Stands for request columns that were not kept."""

    def __missing__(self, name: str) -> NoReturn:
        raise ConfigError(
            f"{name} of each request was not kept: the run was streamed; give "
            "requests_output (--requests-output FILE.parquet), or leave streaming out"
        )

    def items(self) -> NoReturn:
        """Refuse, as do the others: a table of nothing would pass for a result."""
        self.__missing__("the columns")

    def keys(self) -> NoReturn:
        """Refuse."""
        self.__missing__("the columns")

    def values(self) -> NoReturn:
        """Refuse."""
        self.__missing__("the columns")

    def __iter__(self) -> Iterator[str]:
        self.__missing__("the columns")


class StreamedResult(SimulationResult):
    """The outcome of a run with ``measurement.streaming``: ``requests`` holds no rows.

    Means, deviations and counts are those of all requests; percentiles come from histograms
    (:mod:`histograms`).
    """

    percentile_method = (
        f"from histograms of 512 buckets an octave, relative error at most {RELATIVE_ERROR:.2%}"
    )

    def __init__(
        self,
        *,
        setup: Setup,
        running: RunningMetrics,
        gaps: Histogram,
        engines: Sequence[EngineStats],
        trace_hash: int,
        complete: bool = True,
    ) -> None:
        # The rows of the base class are never there, so its constructor has nothing to do.
        self.setup = setup
        self.requests = _NoRows()
        self.steps = None
        self.decisions = None
        self.engines = tuple(engines)
        self.trace_hash = trace_hash
        self.now_ns = running.latest_ns
        self.complete = complete
        self._running = running
        self._gaps = gaps

    @cached_property
    def window(self) -> Window:
        """Which requests are counted, over which time; without the rows' marks."""
        return self._running.window()

    def _diagnoses(self) -> list[str | None]:
        return self._running.diagnoses(self.setup.max_concurrency)

    @cached_property
    def _body(self) -> dict[str, Any]:
        return self._running.body(self._gaps, self.config.measurement.metric_percentiles)

    @property
    def _n_requests(self) -> int:
        return self._running.n_requests

    @property
    def _completed_tokens(self) -> tuple[int, int]:
        return self._running.all_input_tokens, self._running.all_output_tokens

    @cached_property
    def _span_s(self) -> float:
        first = self._running.first_arrival_ns
        return 0.0 if first is None else (self.now_ns - first) / NS_PER_S

    def itls(self) -> NoReturn:
        """Refuse: gaps of single requests are not kept."""
        self.requests["itls"]
        raise AssertionError

    def detailed(self) -> NoReturn:
        """Refuse: arrays of requests are not kept."""
        self.itls()
