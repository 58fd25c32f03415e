"""Pooled percentiles equal numpy's on the expanded data, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator import metrics

gaps = st.lists(
    st.tuples(st.integers(1, 10**12), st.integers(0, 40)), min_size=1, max_size=30
).filter(lambda pairs: sum(count for _, count in pairs) > 0)
wanted = st.lists(st.floats(0, 100), min_size=1, max_size=5)


@given(gaps, wanted)
def test_weighted_percentiles_equal_numpy_on_expanded_data(
    pairs: list[tuple[int, int]], percentiles: list[float]
) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.int64)
    counts = np.array([count for _, count in pairs], dtype=np.int64)
    expanded = np.repeat(values, counts)
    expected = [float(np.percentile(expanded, percentile)) for percentile in percentiles]
    assert metrics.percentiles_of_counts(values, counts, percentiles) == expected


@given(gaps)
def test_weighted_mean_and_deviation_equal_those_of_expanded_data(
    pairs: list[tuple[int, int]],
) -> None:
    values = np.array([value for value, _ in pairs], dtype=np.int64)
    counts = np.array([count for _, count in pairs], dtype=np.int64)
    expanded = np.repeat(values, counts)
    statistics = metrics.describe_counts(values, counts, [])
    assert statistics.mean == pytest.approx(float(np.mean(expanded)), rel=1e-12)
    assert statistics.std == pytest.approx(float(np.std(expanded)), rel=1e-9, abs=1e-3)
    assert statistics.median == float(np.median(expanded))


requests = st.lists(
    st.tuples(
        st.integers(0, 10**12), st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 99)
    ),
    min_size=1,
    max_size=20,
)


@given(requests, st.integers(0, 10**12))
def test_every_request_is_counted_or_excluded_and_the_window_holds_the_counted(
    rows: list[tuple[int, int, int, int]], warm_up_ns: int
) -> None:
    arrival, wait, service, output = (
        np.array(column, dtype=np.int64) for column in zip(*sorted(rows), strict=True)
    )
    columns = {
        "arrival_ns": arrival,
        "admitted_ns": arrival + wait,
        "first_token_ns": arrival + wait + service,
        "finished_ns": arrival + wait + service * output,
        "output_tokens": output,
        "status": np.ones(len(arrival), dtype=np.uint8),
    }
    now_ns = int(columns["finished_ns"].max())
    window = metrics.measure_window(columns, warm_up_ns, now_ns)
    assert int(window.counted.sum()) + window.excluded_warm_up == len(rows)
    counted = window.counted
    assert (arrival[counted] >= window.start_ns).all()
    assert (columns["finished_ns"][counted] <= window.end_ns).all()
    assert window.start_ns <= window.arrivals_end_ns <= window.end_ns


@given(requests)
def test_latencies_are_ordered(rows: list[tuple[int, int, int, int]]) -> None:
    arrival, wait, service, output = (
        np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)
    )
    derived = metrics.derive_latencies(
        {
            "arrival_ns": arrival,
            "admitted_ns": arrival + wait,
            "first_token_ns": arrival + wait + service,
            "finished_ns": arrival + wait + service * output,
            "output_tokens": output,
            "status": np.ones(len(arrival), dtype=np.uint8),
        }
    )
    assert (derived["queueing_ns"] <= derived["ttft_ns"]).all()
    assert (derived["ttft_ns"] <= derived["e2el_ns"]).all()
    several = output > 1
    assert np.allclose(derived["tpot_ns"][several], service[several], rtol=1e-12)
    assert (derived["tpot_ns"][~several] == -1).all()
