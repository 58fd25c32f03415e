"""Metric definitions against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from llm_inference_simulator import metrics
from tests.fabricate import EvenTokens, ListedGaps, columns

MS = 1_000_000
S = 1_000_000_000


def three_requests() -> dict[str, np.ndarray]:
    """Two completed (one of one token), one rejected, in milliseconds."""
    return columns(
        arrival_ns=[1000 * MS, 1100 * MS, 1200 * MS],
        admitted_ns=[1000 * MS, 1150 * MS, -1],
        first_token_ns=[1040 * MS, 1190 * MS, -1],
        finished_ns=[1240 * MS, 1190 * MS, 1200 * MS],
        prompt_tokens=[100, 50, 9999],
        output_tokens=[5, 1, 0],
        status=[1, 1, 2],
    )


def test_latencies_of_each_request() -> None:
    derived = metrics.derive_latencies(three_requests())
    assert derived["ttft_ns"].tolist() == [40 * MS, 90 * MS, -1]
    assert derived["e2el_ns"].tolist() == [240 * MS, 90 * MS, -1]
    assert derived["queueing_ns"].tolist() == [0, 50 * MS, -1]
    # (240 - 40) / (5 - 1) ms; undefined for one token and for a rejected request
    assert derived["tpot_ns"].tolist() == [50.0 * MS, -1.0, -1.0]


def test_tpot_is_exact_when_it_is_no_whole_number() -> None:
    requests = columns(arrival_ns=[0], first_token_ns=[3], finished_ns=[13], output_tokens=[4])
    assert metrics.derive_latencies(requests)["tpot_ns"][0] == 10 / 3


def test_window_without_warm_up_is_vllms_benchmark_duration() -> None:
    """vLLM's clock starts before it waits for the first arrival."""
    window = metrics.measure_window(three_requests(), 0, 1240 * MS)
    assert (window.start_ns, window.end_ns) == (0, 1240 * MS)
    assert window.duration_s == 1.24
    assert window.drain_ns == 40 * MS
    assert window.counted.tolist() == [True, True, True]
    # One completion (at 1190 ms) in the 1,200 ms up to the last arrival.
    assert window.completion_rate_while_loaded == pytest.approx(1 / 1.2)


def test_window_with_warm_up_counts_by_arrival() -> None:
    window = metrics.measure_window(three_requests(), 1100 * MS, 1240 * MS)
    assert window.counted.tolist() == [False, True, True]
    assert (window.start_ns, window.end_ns) == (1100 * MS, 1200 * MS)
    assert (window.arrived, window.excluded_warm_up, window.unfinished) == (3, 1, 0)


def test_window_of_an_interrupted_run_leaves_out_what_had_not_arrived() -> None:
    requests = columns(
        arrival_ns=[0, 10, 99],
        first_token_ns=[5, -1, -1],
        finished_ns=[8, -1, -1],
        status=[1, 0, 0],
    )
    window = metrics.measure_window(requests, 0, 20)
    assert window.counted.tolist() == [True, True, False]
    assert (window.unfinished, window.end_ns) == (1, 8)


def test_window_in_which_nothing_is_counted_is_empty() -> None:
    window = metrics.measure_window(three_requests(), 5 * S, 6 * S)
    assert window.duration_s == 0
    assert window.completion_rate_while_loaded is None


def summarise(percentiles: list[float], objectives: dict[str, float]) -> dict[str, float | None]:
    requests = three_requests()
    requests |= metrics.derive_latencies(requests)
    window = metrics.measure_window(requests, 0, 1240 * MS)
    gaps = EvenTokens(requests).token_gaps(window.counted)
    return metrics.summarise(
        requests, window, gaps, percentiles=percentiles, objectives_ms=objectives
    )


def test_summary_has_vllms_keys_and_values() -> None:
    body = summarise([50.0, 99.9], {})
    assert body["completed"] == 2
    assert body["failed"] == 1
    assert body["total_input_tokens"] == 150  # failed requests are not counted, as in vLLM
    assert body["total_output_tokens"] == 6
    assert body["request_throughput"] == pytest.approx(2 / 1.24)
    assert body["output_throughput"] == pytest.approx(6 / 1.24)
    assert body["total_token_throughput"] == pytest.approx(156 / 1.24)
    assert body["mean_ttft_ms"] == body["median_ttft_ms"] == body["p50_ttft_ms"] == 65.0
    assert body["std_ttft_ms"] == 25.0  # population: |90 - 40| / 2
    assert body["p99.9_ttft_ms"] == pytest.approx(40 + 50 * 0.999)
    assert body["mean_tpot_ms"] == 50.0  # the request of one token has none
    assert body["mean_itl_ms"] == 50.0
    assert body["std_itl_ms"] == 0.0
    assert body["request_goodput"] is None


def test_goodput_limits_are_inclusive_and_one_token_meets_any_tpot() -> None:
    body = summarise([99.0], {"tpot": 49.999})
    assert body["request_goodput"] == pytest.approx(1 / 1.24)
    body = summarise([99.0], {"ttft": 90.0, "tpot": 50.0, "e2el": 240.0})
    assert body["request_goodput"] == pytest.approx(2 / 1.24)
    assert body["slo_attainment"] == pytest.approx(2 / 3)  # a rejected request misses


def test_statistics_of_nothing_are_undefined() -> None:
    nothing = np.empty(0, dtype=np.int64)
    for statistics in (
        metrics.describe(nothing, [99.0]),
        metrics.describe_gaps(ListedGaps(nothing), [99.0]),
    ):
        assert statistics == metrics.Distribution(None, None, None, ((99.0, None),))


@pytest.mark.parametrize(("percentile", "name"), [(99.0, "p99"), (99.9, "p99.9"), (0.0, "p0")])
def test_percentile_names_are_vllms(percentile: float, name: str) -> None:
    assert metrics.percentile_name(percentile) == name
