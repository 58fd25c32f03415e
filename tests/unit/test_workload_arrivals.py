"""Generated arrivals: vLLM's process, in whole nanoseconds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.arrivals import (
    arrival_times,
    staged_arrival_times,
    to_ns,
)
from llm_inference_simulator.workload.columns import MAX_REQUESTS


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("rate", [None, math.inf])
def test_without_a_rate_all_arrive_at_once(rate: float | None) -> None:
    arrivals, duration = arrival_times(rng(), rate=rate, num_prompts=3)
    assert arrivals.tolist() == [0, 0, 0]
    assert duration == 0


def test_constant_gaps_start_after_one_gap() -> None:
    arrivals, duration = arrival_times(rng(), rate=4, burstiness=math.inf, num_prompts=3)
    assert arrivals.tolist() == [250_000_000, 500_000_000, 750_000_000]
    assert duration == 750_000_000


def test_constant_gaps_stop_before_the_duration() -> None:
    arrivals, duration = arrival_times(rng(), rate=4, burstiness=math.inf, duration_s=1.0)
    assert arrivals.tolist() == [250_000_000, 500_000_000, 750_000_000]
    assert duration == 1_000_000_000


def test_a_count_is_rescaled_to_the_exact_rate_as_in_vllm() -> None:
    arrivals, duration = arrival_times(rng(7), rate=5, num_prompts=1000)
    # The same gaps, rescaled by hand.
    gaps = rng(7).gamma(1.0, 1 / 5, 1000)
    times = np.cumsum(gaps) * (200 / gaps.sum())
    assert np.abs(arrivals - times * 1e9).max() <= 1
    assert arrivals[-1] == duration == 200_000_000_000
    assert arrivals[0] > 0


def test_a_count_and_a_duration_whichever_ends_first() -> None:
    by_time, period = arrival_times(rng(1), rate=10, num_prompts=10**6, duration_s=50)
    assert period == 50_000_000_000
    assert by_time[-1] < period
    by_count, period = arrival_times(rng(1), rate=10, num_prompts=100, duration_s=50)
    # A cap cuts the sequence and changes nothing else.
    assert by_count.tolist() == by_time[:100].tolist()
    assert period == by_count[-1]


@pytest.mark.parametrize(("burstiness", "cv"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5)])
def test_gaps_have_the_gamma_law(burstiness: float, cv: float) -> None:
    arrivals, _ = arrival_times(rng(3), rate=100, burstiness=burstiness, duration_s=2000)
    gaps = np.diff(arrivals)
    # 200,000 gaps: the mean is known to cv / sqrt(200,000), far within 2 %.
    assert gaps.mean() == pytest.approx(1e7, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_nanoseconds_round_half_to_even() -> None:
    assert to_ns(np.array([0.5e-9, 1.5e-9, 2.5e-9])).tolist() == [0, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"rate": None}, ["num_prompts"]),
        ({"rate": 1.0, "num_prompts": MAX_REQUESTS + 1}, ["num_prompts=100000001"]),
        ({"rate": 1e-300, "num_prompts": 10}, ["request_rate=1e-300", "clock"]),
        ({"rate": 1e12, "duration_s": 1.0}, ["request_rate=1000000000000.0", "1e+12", "lower"]),
        ({"rate": 1.0, "duration_s": 1e300}, ["duration=1e+300", "clock"]),
        ({"rate": 1.0, "burstiness": 5e-324, "num_prompts": 2}, ["burstiness=5e-324"]),
        ({"rate": 1.0, "burstiness": 1e-6, "num_prompts": 2}, ["burstiness=1e-06"]),
        ({"rate": 1.0, "burstiness": 1e-9, "duration_s": 1.0}, ["burstiness=1e-09", "0.01"]),
        ({"rate": 1e9, "burstiness": 1e300, "num_prompts": 2}, ["burstiness=1e+300", "inf"]),
    ],
)
def test_what_cannot_be_held_is_refused(arguments: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(WorkloadError) as caught:
        arrival_times(rng(), **arguments)
    for part in parts:
        assert part in str(caught.value)


def test_stages_of_constant_gaps_begin_anew() -> None:
    stages = [(2.0, 1.5), (0.0, 1.0), (4.0, 1.0)]
    arrivals, duration = staged_arrival_times(rng(), stages, burstiness=math.inf)
    # 0.5 and 1.0 in the first stage (1.5 is its end), none in the pause, then every quarter second.
    assert (arrivals / 1e9).tolist() == [0.5, 1.0, 2.75, 3.0, 3.25]
    assert duration == 3_500_000_000


def test_one_stage_is_a_rate_and_a_duration() -> None:
    staged, period = staged_arrival_times(rng(5), [(7.5, 40.0)], burstiness=0.5)
    plain, plain_period = arrival_times(rng(5), rate=7.5, burstiness=0.5, duration_s=40.0)
    assert staged.tolist() == plain.tolist()
    assert period == plain_period


def test_a_count_cuts_stages_short() -> None:
    stages = [(5.0, 10.0), (50.0, 10.0)]
    whole, _ = staged_arrival_times(rng(2), stages)
    cut, period = staged_arrival_times(rng(2), stages, num_prompts=100)
    assert cut.tolist() == whole[:100].tolist()
    assert period == cut[-1]


@pytest.mark.parametrize(
    ("stages", "parts"),
    [
        ([(1.0, 1e300)], ["rate_stages", "clock"]),
        ([(1e6, 60.0), (1e6, 60.0)], ["rate_stages make 1.2e+08 requests", "lower a rate"]),
    ],
)
def test_stages_that_cannot_be_held_are_refused(
    stages: list[tuple[float, float]], parts: list[str]
) -> None:
    with pytest.raises(WorkloadError) as caught:
        staged_arrival_times(rng(), stages)
    for part in parts:
        assert part in str(caught.value)
