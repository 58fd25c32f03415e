"""Latency and throughput metrics of request columns, in the definitions of ``vllm bench serve``.

All times are integer nanoseconds; -1 means "never happened" or "undefined". Statistics are taken
over nanoseconds and divided once, so that they do not depend on a unit.

Definitions (vLLM's ``calculate_metrics``):

- TTFT: first token - arrival. E2E: last token - arrival. Queueing: first scheduled - arrival.
- TPOT: (E2E - TTFT) / (output tokens - 1) per request; a request of one output token has none and
  is left out of the statistics, but counts as 0 against a goodput objective.
- ITL: the gaps between consecutive tokens of all requests in one pool.
- Standard deviations are those of a population (numpy's default); percentiles are linear.
- Only completed requests enter any statistic; the others are counted as failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator import order_statistics

Columns = Mapping[str, NDArray[Any]]

COMPLETED = 1
REJECTED = 2
FAILED = 3
TIMED_OUT = 4
UNFINISHED = 0

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

DEFINITIONS = {
    "ttft": "first token at the client - arrival at the client",
    "itl": "gap between consecutive tokens of a request; gaps of all requests in one pool",
    "tpot": "per request (e2el - ttft) / (output tokens - 1); undefined for one output token",
    "e2el": "last token at the client - arrival at the client",
    "throughput": "of completed counted requests, over the measured window (see measurement)",
    "request_goodput": "completed requests per second that meet every objective of --goodput, or "
    "of their class",
    "slo_attainment": "those as a share of the counted requests",
    "measurement": "counted: requests that arrive at or after the warm-up; the window runs from "
    "the warm-up (without one: time 0) to the last answer to a counted request; "
    "drain_s is its part after the last arrival",
    "utilisation": "busy time, operations and bytes of all engines over the whole run",
    "energy_joules": "accelerators alone, over the whole run: idle power without a step in flight; "
    "in steps linear from idle power to TDP with the larger of compute and bandwidth utilisation",
    "cost_usd": "hourly price x accelerators of the engines x the whole run",
    "per_million_output_tokens_usd": "the whole cost over the output tokens (likewise the input "
    "tokens) of the requests completed in the whole run: alternatives, not parts of a sum",
}
"""Go into every result, because benchmarks differ in them."""

LATENCY_METRICS = ("ttft", "tpot", "itl", "e2el")
"""Metrics that get a mean, a median, a standard deviation and percentiles, in vLLM's order."""


def derive_latencies(columns: Columns) -> dict[str, NDArray[Any]]:
    """Return ``ttft_ns``, ``tpot_ns``, ``e2el_ns`` and ``queueing_ns`` of request columns.

    int64, -1 where undefined; ``tpot_ns`` is float64 because it is a quotient.
    """
    arrival = columns["arrival_ns"]
    output = columns["output_tokens"]
    completed = columns["status"] == COMPLETED
    ttft = _since(arrival, columns["first_token_ns"], columns["first_token_ns"] >= 0)
    e2el = _since(arrival, columns["finished_ns"], completed)
    queueing = _since(arrival, columns["admitted_ns"], columns["admitted_ns"] >= 0)
    tpot = np.full(len(arrival), -1.0)
    several = completed & (output > 1)
    tpot[several] = (e2el[several] - ttft[several]) / (output[several] - 1)
    return {"ttft_ns": ttft, "tpot_ns": tpot, "e2el_ns": e2el, "queueing_ns": queueing}


def _since(
    start: NDArray[np.int64], end: NDArray[np.int64], defined: NDArray[np.bool_]
) -> NDArray[np.int64]:
    return np.where(defined, end - start, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What was counted, and over which time.

    A request is counted if it **arrives** at or after ``warm_up``, whenever it completes: picking
    by completion would favour short requests. The window runs from ``warm_up`` (0 without
    one) to the last answer to a counted request. Without a warm-up that is the benchmark duration
    of ``vllm bench serve``, whose clock starts before it waits for the first request's arrival.
    Throughput is what the counted requests got divided by this window. It therefore never credits
    work done for warm-up requests, and it includes the drain after the last arrival, in which the
    load has stopped; ``drain_ns`` says how long that
    was, and ``completion_rate_while_loaded`` is the rate without it: completions of all requests
    between the window's start and the last arrival, per second.
    """

    start_ns: int
    end_ns: int
    arrivals_end_ns: int
    counted: NDArray[np.bool_]
    """Which of the requests are counted; empty where rows are not kept."""
    n_counted: int
    arrived: int
    excluded_warm_up: int
    unfinished: int
    """Counted requests without an answer (in an interrupted run)."""
    completion_rate_while_loaded: float | None

    @property
    def duration_s(self) -> float:
        """Length of the window."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    @property
    def drain_ns(self) -> int:
        """Time between the last arrival and the window's end."""
        return max(0, self.end_ns - self.arrivals_end_ns)


def measure_window(columns: Columns, warm_up_ns: int, now_ns: int) -> Window:
    """Find the measured window; requests that had not arrived at ``now_ns`` are not counted."""
    arrival, finished = columns["arrival_ns"], columns["finished_ns"]
    arrived = (arrival >= 0) & (arrival <= now_ns)
    counted = arrived & (arrival >= warm_up_ns)
    answered = counted & (columns["status"] != UNFINISHED)
    if not counted.any():
        start = end = arrivals_end = warm_up_ns
    else:
        start = warm_up_ns
        end = int(finished[answered].max()) if answered.any() else start
        arrivals_end = int(arrival[counted].max())
    completed = columns["status"] == COMPLETED
    in_load = completed & (finished > start) & (finished <= arrivals_end)
    return Window(
        start_ns=start,
        end_ns=end,
        arrivals_end_ns=arrivals_end,
        counted=counted,
        n_counted=int(counted.sum()),
        arrived=int(arrived.sum()),
        excluded_warm_up=int((arrived & ~counted).sum()),
        unfinished=int((counted & (columns["status"] == UNFINISHED)).sum()),
        completion_rate_while_loaded=ratio(int(in_load.sum()), (arrivals_end - start) / NS_PER_S),
    )


@dataclass(frozen=True, slots=True)
class Distribution:
    """Statistics of one metric in its own unit; None where there are no values."""

    mean: float | None
    median: float | None
    std: float | None
    percentiles: tuple[tuple[float, float | None], ...]


def describe(values: NDArray[Any], percentiles: Sequence[float]) -> Distribution:
    """Mean, median, population standard deviation and linear percentiles of ``values``."""
    if not len(values):
        return Distribution(None, None, None, tuple((p, None) for p in percentiles))
    return Distribution(
        float(np.mean(values)),
        float(order_statistics.median(values)),
        float(np.std(values)),
        tuple(zip(percentiles, order_statistics.percentiles(values, percentiles), strict=True)),
    )


class Gaps(Protocol):
    """Pooled gaps between tokens, as the core's ``TokenGaps`` gives them."""

    @property
    def count(self) -> int:
        """Number of gaps."""

    def mean_and_deviation(self) -> tuple[float, float] | None:
        """(mean, population standard deviation) in ns; None without gaps."""

    def at_ranks(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Gaps (ns) by rank; 0 is the shortest."""


def describe_gaps(gaps: Gaps, percentiles: Sequence[float]) -> Distribution:
    """:func:`describe` of the pooled gaps, in nanoseconds."""
    moments = gaps.mean_and_deviation()
    if moments is None:
        return Distribution(None, None, None, tuple((p, None) for p in percentiles))
    median, *wanted = percentiles_of_gaps(gaps, [50.0, *percentiles])
    return Distribution(
        moments[0], median, moments[1], tuple(zip(percentiles, wanted, strict=True))
    )


def percentiles_of_gaps(gaps: Gaps, percentiles: Sequence[float]) -> list[float]:
    """``np.percentile`` of the gaps written out one by one, to the last bit."""
    return order_statistics.percentiles_at_ranks(gaps.count, gaps.at_ranks, percentiles)


def good_requests(
    columns: Columns, counted: NDArray[np.bool_], objectives_ms: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Which counted requests completed and meet every objective (milliseconds, inclusive)."""
    good: NDArray[np.bool_] = counted & (columns["status"] == COMPLETED)
    for metric, limit_ms in objectives_ms.items():
        # An undefined TPOT (-1) passes, as the 0 of vLLM does.
        good = good & (columns[f"{metric}_ns"] <= limit_ms * NS_PER_MS)
    return good


def goodput(n_good: int, window: Window) -> dict[str, float | None]:
    """Of ``n_good`` requests that meet their objectives."""
    return {
        "request_goodput": ratio(n_good, window.duration_s),
        "slo_attainment": ratio(n_good, window.n_counted),
    }


def summarise(
    columns: Columns,
    window: Window,
    gaps: Gaps,
    *,
    percentiles: Sequence[float],
    objectives_ms: Mapping[str, float],
) -> dict[str, Any]:
    """The body of a ``vllm bench serve`` result, plus ``slo_attainment``.

    ``columns`` include those of :func:`derive_latencies`; ``gaps`` are those of the completed
    counted requests. Undefined values are None.
    """
    completed = window.counted & (columns["status"] == COMPLETED)
    statistics = {}
    for metric in LATENCY_METRICS:
        if metric == "itl":
            statistics[metric] = describe_gaps(gaps, percentiles)
        else:
            values = columns[f"{metric}_ns"][completed]
            statistics[metric] = describe(values[values >= 0], percentiles)
    n_good = None
    if objectives_ms:
        n_good = int(good_requests(columns, window.counted, objectives_ms).sum())
    return summary_body(
        window,
        completed=int(completed.sum()),
        failed=int((window.counted & (columns["status"] > COMPLETED)).sum()),
        input_tokens=int(columns["prompt_tokens"][completed].sum()),
        output_tokens=int(columns["output_tokens"][completed].sum()),
        n_good=n_good,
        statistics=statistics,
    )


def summary_body(
    window: Window,
    *,
    completed: int,
    failed: int,
    input_tokens: int,
    output_tokens: int,
    n_good: int | None,
    statistics: Mapping[str, Distribution],
) -> dict[str, Any]:
    """The body of a result from its figures; ``n_good``: None without objectives."""
    duration = window.duration_s
    body: dict[str, Any] = {
        "duration": duration,
        "completed": completed,
        "failed": failed,
        "total_input_tokens": input_tokens,
        "total_output_tokens": output_tokens,
        "request_throughput": ratio(completed, duration),
        "request_goodput": None,
        "slo_attainment": None,
        "output_throughput": ratio(output_tokens, duration),
        "total_token_throughput": ratio(input_tokens + output_tokens, duration),
    }
    if n_good is not None:
        body |= goodput(n_good, window)
    for metric in LATENCY_METRICS:
        body |= _latency_keys(metric, statistics[metric])
    return body


def summarise_transfers(
    columns: Columns,
    completed: NDArray[np.bool_],
    kv_bytes_per_token: int,
    percentiles: Sequence[float],
) -> dict[str, Any]:
    """Transfers of keys and values of ``completed`` requests (docs/spec.md, section 12).

    ``transfer`` runs from the later of the reservation and the first bytes to the arrival of the
    last; ``second_token`` is the gap after the first token at the client. None where undefined.
    """
    moved = completed & (columns["transfer_end_ns"] >= 0)
    durations = (columns["transfer_end_ns"] - columns["transfer_start_ns"])[moved]
    gaps = (columns["second_token_ns"] - columns["first_token_ns"])[moved]
    return {
        "transfers": int(moved.sum()),
        "bytes": int(columns["transfer_tokens"][moved].sum()) * kv_bytes_per_token,
        **_latency_keys("transfer", describe(durations, percentiles)),
        **_latency_keys("second_token", describe(gaps, percentiles)),
    }


def _latency_keys(metric: str, statistics: Distribution) -> dict[str, float | None]:
    named = {"mean": statistics.mean, "median": statistics.median, "std": statistics.std}
    named |= {percentile_name(p): value for p, value in statistics.percentiles}
    return {
        f"{name}_{metric}_ms": None if value is None else value / NS_PER_MS
        for name, value in named.items()
    }


def percentile_name(percentile: float) -> str:
    """Name a percentile as vLLM does: ``p99``, ``p99.9``."""
    whole = int(percentile)
    return f"p{whole if whole == percentile else percentile}"


def ratio(amount: float, over: float) -> float | None:
    """A rate or share; None where it is not defined."""
    return amount / over if over > 0 else None
