"""Generated lengths."""

from __future__ import annotations

import numpy as np
import pytest

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.lengths import (
    INPUT_SIGMA,
    OUTPUT_SIGMA,
    empirical_lengths,
    log_normal_lengths,
    uniform_lengths,
)
from llm_inference_simulator.workload.traces import load_trace, resolve


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_ratio_zero_is_a_fixed_length() -> None:
    assert set(uniform_lengths(rng(), 50, 128, 0.0, least=1, field="x").tolist()) == {128}


def test_ranged_lengths_reach_both_ends_as_in_vllm() -> None:
    # floor(5 * 0.7) = 3 and ceil(5 * 1.3) = 7.
    lengths = uniform_lengths(rng(), 2000, 5, 0.3, least=1, field="x")
    values, counts = np.unique(lengths, return_counts=True)
    assert values.tolist() == [3, 4, 5, 6, 7]
    assert counts.min() > 330  # 400 each; 330 lies 4 standard deviations below


def test_outputs_have_at_least_one_token() -> None:
    # floor(1 * 0.1) = 0, raised to 1; ceil(1 * 1.9) = 2.
    lengths = uniform_lengths(rng(), 1000, 1, 0.9, least=1, field="x")
    assert np.unique(lengths).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("mean", "longest"),
    [(1.0, None), (1.2, None), (2.5, 3), (300.0, None), (300.0, 512), (500.0, 512), (512.0, 512)],
)
def test_log_normal_keeps_the_mean_whatever_the_longest(mean: float, longest: int | None) -> None:
    n = 200_000
    lengths = log_normal_lengths(rng(), n, mean, longest, 0.99, field="x")
    assert lengths.min() >= 1
    if longest is not None:
        assert lengths.max() <= longest
    error = lengths.std() / n**0.5
    assert abs(lengths.mean() - mean) <= 4 * error


def test_log_normal_has_the_asked_spread() -> None:
    lengths = log_normal_lengths(rng(), 100_000, 5000.0, None, 0.8, field="x")
    assert np.log(lengths).std() == pytest.approx(0.8, rel=0.02)
    # The median of a log-normal is mean / exp(sigma² / 2).
    assert np.median(lengths) == pytest.approx(5000 / np.exp(0.32), rel=0.02)


def test_the_spread_is_that_of_the_shipped_conversation_trace() -> None:
    trace = load_trace(resolve("azure-conv-2023"))
    assert np.log(trace.prompt_tokens).std() == pytest.approx(INPUT_SIGMA, abs=0.005)
    assert np.log(trace.output_tokens).std() == pytest.approx(OUTPUT_SIGMA, abs=0.005)


@pytest.mark.parametrize("mean", [0.5, 513.0])
def test_a_mean_out_of_range_is_refused(mean: float) -> None:
    with pytest.raises(WorkloadError, match=f"avg_input_length={mean} is not between 1 and 512"):
        log_normal_lengths(rng(), 1, mean, 512, 1.0, field="avg_input_length")


def test_empirical_pairs_stay_together() -> None:
    prompts, outputs = np.array([10, 20, 30]), np.array([1, 2, 3])
    drawn = empirical_lengths(rng(), 500, prompts, outputs)
    assert set(zip(drawn[0].tolist(), drawn[1].tolist(), strict=True)) == {
        (10, 1),
        (20, 2),
        (30, 3),
    }
