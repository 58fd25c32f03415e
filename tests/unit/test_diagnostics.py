"""Warnings come for sick runs and stay away from healthy ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_inference_simulator import diagnostics
from tests.fabricate import columns

MS = 1_000_000


def single_server(
    load: float, n: int, seed: int, *, shape: float = 1.0, service_ns: int = 10 * MS
) -> dict[str, NDArray[Any]]:
    """A queue with gamma-distributed gaps and one server of constant service time."""
    random = np.random.default_rng(seed)
    gaps = random.gamma(shape, service_ns / load / shape, n)
    arrival = np.cumsum(gaps).astype(np.int64)
    # Lindley: a start is the largest of (arrival + service of those between).
    ranks = np.arange(n) * service_ns
    start = np.maximum.accumulate(arrival - ranks) + ranks
    return columns(
        arrival_ns=arrival,
        admitted_ns=start,
        first_token_ns=start + service_ns,
        finished_ns=start + service_ns,
    )


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_a_stable_queue_is_not_called_saturated(load: float, seed: int) -> None:
    requests = single_server(load, 2000, seed)
    assert diagnostics.find_saturation(requests, int(requests["finished_ns"].max())) is None


@pytest.mark.parametrize("seed", range(20))
def test_an_overloaded_queue_is_called_saturated_with_both_rates(seed: int) -> None:
    requests = single_server(1.2, 2000, seed)
    found = diagnostics.find_saturation(requests, int(requests["finished_ns"].max()))
    assert found is not None
    assert found.sustained_rate == pytest.approx(100, rel=0.01)  # one per 10 ms
    assert found.offered_rate == pytest.approx(120, rel=0.12)
    assert found.depth_end > found.depth_middle


@pytest.mark.parametrize("seed", range(10))
def test_bursty_but_stable_arrivals_are_not_called_saturated(seed: int) -> None:
    requests = single_server(0.7, 2000, seed, shape=0.2)
    assert diagnostics.find_saturation(requests, int(requests["finished_ns"].max())) is None


@pytest.mark.parametrize("seed", range(20))
def test_varied_work_in_a_stable_queue_is_not_called_saturated(seed: int) -> None:
    random, n = np.random.default_rng(seed), 2000
    output = np.maximum(1, random.exponential(100, n)).astype(np.int64)
    service = output * 100_000  # 10 ms on average
    arrival = np.cumsum(random.exponential(10 * MS / 0.85, n)).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(service)[:-1]])
    start = np.maximum.accumulate(arrival - before) + before
    requests = columns(
        arrival_ns=arrival,
        admitted_ns=start,
        finished_ns=start + service,
        output_tokens=output,
    )
    assert diagnostics.find_saturation(requests, int(requests["finished_ns"].max())) is None


def test_all_at_once_is_a_batch_and_not_saturation() -> None:
    requests = columns(arrival_ns=np.zeros(500), admitted_ns=np.arange(500) * MS)
    assert diagnostics.find_saturation(requests, 500 * MS) is None


def test_few_requests_allow_no_verdict() -> None:
    requests = single_server(3.0, diagnostics.FEWEST_REQUESTS - 1, 0)
    assert diagnostics.find_saturation(requests, int(requests["finished_ns"].max())) is None


def test_rejected_requests_do_not_wait() -> None:
    n = 400
    requests = columns(
        arrival_ns=np.arange(n) * MS,
        admitted_ns=np.full(n, -1),
        finished_ns=np.arange(n) * MS,
        status=np.full(n, 2),
    )
    assert diagnostics.find_saturation(requests, n * MS) is None


def test_unfinished_requests_of_an_interrupted_overload_still_wait() -> None:
    requests = single_server(1.5, 2000, 1)
    now = int(requests["arrival_ns"][1500])
    late = requests["admitted_ns"] > now
    requests["admitted_ns"][late] = -1
    requests["status"][late] = 0
    assert diagnostics.find_saturation(requests, now) is not None


def test_saturation_warning_names_rates_and_remedy_but_not_for_closed_loops() -> None:
    requests = single_server(1.5, 2000, 1)
    now = int(requests["finished_ns"].max())
    warning = diagnostics.saturation_warning(requests, now, None)
    assert warning is not None
    assert "only 99.92 requests/s" in warning
    assert "--data-parallel-size" in warning
    assert diagnostics.saturation_warning(requests, now, 8) is None


@pytest.mark.parametrize(("preempted", "warns"), [(4, False), (5, True)])
def test_preemption_warns_from_a_share_of_five_percent(preempted: int, warns: bool) -> None:
    counts = np.zeros(100)
    counts[:preempted] = 3
    warning = diagnostics.preemption_warning(columns(arrival_ns=np.zeros(100), preemptions=counts))
    assert (warning is not None) == warns
    if warning:
        assert "5 of 100 completed requests (5%) were preempted, 15 times" in warning


def test_rejections_are_counted_by_reason() -> None:
    requests = columns(
        arrival_ns=[0, 0, 0, 0, 0],
        prompt_tokens=[0, 10, 4096, 4000, 10],
        status=[2, 2, 2, 2, 1],
    )
    warning = diagnostics.rejection_warning(requests, np.array([5, 0, 5, 5, 5]), max_model_len=4096)
    assert warning is not None
    assert warning.startswith("4 of 5 requests were rejected")
    assert "2 without prompt or output tokens" in warning
    assert "1 with a prompt of max_model_len=4096 tokens or more" in warning
    assert "1 larger than the whole KV cache" in warning


def test_outputs_cut_at_the_context_are_counted() -> None:
    requests = columns(arrival_ns=[0, 0, 0], output_tokens=[96, 5, 0], status=[1, 1, 2])
    asked = np.array([100, 5, 7])
    warning = diagnostics.truncation_warning(requests, asked, max_model_len=4096)
    assert warning is not None
    assert warning.startswith("1 request stopped at max_model_len=4096")


def test_a_healthy_run_gives_no_warning() -> None:
    requests = single_server(0.7, 2000, 3)
    asked = requests["output_tokens"]
    assert diagnostics.saturation_warning(requests, 10**15, None) is None
    assert diagnostics.preemption_warning(requests) is None
    assert diagnostics.rejection_warning(requests, asked, max_model_len=4096) is None
    assert diagnostics.truncation_warning(requests, asked, max_model_len=4096) is None


def test_a_queue_from_which_none_was_started_is_worded_without_a_rate() -> None:
    arrival = np.arange(100) * MS
    admitted = np.where(np.arange(100) < 2, arrival, -1)
    requests = columns(arrival_ns=arrival, admitted_ns=admitted, status=np.zeros(100))
    warning = diagnostics.saturation_warning(requests, 100 * MS, None)
    assert warning is not None
    assert "but none was started in the second half of the arrivals, so" in warning
