"""Pooled percentiles equal numpy's on the expanded data, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_inference_simulator._core as core
from llm_inference_simulator import metrics, order_statistics
from llm_inference_simulator.cluster import EngineSettings
from tests.fabricate import ListedGaps

wanted = st.lists(st.floats(0, 100), min_size=1, max_size=5)


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=50), wanted)
def test_interpolation_equals_numpys(values: list[int], percentiles: list[float]) -> None:
    gaps = ListedGaps(np.array(values, dtype=np.int64))
    expected = [float(np.percentile(gaps.gaps, percentile)) for percentile in percentiles]
    assert metrics.percentiles_of_gaps(gaps, percentiles) == expected


@given(
    st.one_of(
        st.lists(st.integers(0, 10**15), min_size=1, max_size=50),
        st.lists(st.floats(0, 1e15), min_size=1, max_size=50),
    ),
    wanted,
)
def test_medians_and_percentiles_equal_numpys(
    listed: list[int] | list[float], percentiles: list[float]
) -> None:
    values = np.array(listed)
    assert order_statistics.median(listed) == np.median(values)
    columns = np.array([values, values[::-1] / 3])
    assert (order_statistics.median(columns) == np.median(columns, axis=1)).all()
    expected = np.percentile(values, percentiles).tolist()
    assert order_statistics.percentiles(values, percentiles) == expected


@given(
    st.lists(
        st.tuples(st.integers(0, 50_000), st.integers(1, 60), st.integers(1, 20)),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([1, 1000, 10**6, 10**10, 10**14]),
    st.integers(8, 40),
    wanted,
)
def test_the_cores_pooled_gaps_equal_those_of_its_token_times(
    rows: list[tuple[int, int, int]], step_ns: int, blocks: int, percentiles: list[float]
) -> None:
    """From nanoseconds to days, with preemptions: what is pooled is what token times say."""
    arrival, prompt, output = (
        np.array(column, dtype=np.int64) for column in zip(*sorted(rows), strict=True)
    )
    settings = EngineSettings(
        max_num_seqs=6,
        max_num_batched_tokens=32,
        max_model_len=200,
        block_size=4,
        num_gpu_blocks=blocks,
    )
    run = core.Simulation(
        pools=[(settings, core.CostModel.fixed(step_ns, 3, 5, 1), 2)],
        router="round_robin",
        arrival_ns=arrival,
        prompt_tokens=prompt,
        output_tokens=output,
    )
    assert run.run_slice(10**9).done
    counted = run.request_columns()["arrival_ns"] % 2 == 0
    times, offsets = run.token_times(np.flatnonzero(counted))
    listed = np.concatenate(
        [np.diff(times[start:end]) for start, end in itertools.pairwise(offsets)]
        or [np.empty(0, dtype=np.int64)]
    )
    gaps = run.token_gaps(counted)
    assert gaps.count == len(listed)
    if len(listed):
        statistics = metrics.describe_gaps(gaps, percentiles)
        expected = metrics.describe(listed, percentiles)
        assert statistics.percentiles == expected.percentiles
        assert statistics.median == expected.median
        assert statistics.mean == pytest.approx(expected.mean, rel=1e-12)
        assert statistics.std == pytest.approx(expected.std, rel=1e-9, abs=1e-3)


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
