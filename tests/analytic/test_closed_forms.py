"""Simulated runs against formulas that can be written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings

ENGINE: dict[str, Any] = {
    "max_num_seqs": 8,
    "max_num_batched_tokens": 512,
    "max_model_len": 4096,
    "block_size": 16,
    "num_gpu_blocks": 4097,
}


def run(
    cost: core.CostModel,
    arrival_ns: NDArray[Any],
    prompt: NDArray[Any],
    output: NDArray[Any],
    **settings: int | bool,
) -> core.Simulation:
    simulation = core.Simulation(
        pools=[(EngineSettings(**(ENGINE | settings)), cost, 1)],
        router="round_robin",
        arrival_ns=arrival_ns.astype(np.int64),
        prompt_tokens=prompt.astype(np.int64),
        output_tokens=output.astype(np.int64),
    )
    assert simulation.run_slice(10**9).done
    return simulation


@pytest.mark.parametrize("async_scheduling", [False, True])
@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (100, 1), (512, 7), (1300, 40)])
def test_one_request_is_its_prefill_and_its_decodes(
    async_scheduling: bool, prompt: int, output: int
) -> None:
    step, token, sequence, context = 1000, 10, 7, 3
    simulation = run(
        core.CostModel.fixed(step, token, sequence, context),
        np.array([50]),
        np.array([prompt]),
        np.array([output]),
        async_scheduling=async_scheduling,
    )
    chunks = -(-prompt // 512)
    first = 50 + chunks * step + token * prompt
    # Decode step j of n - 1 sees the prompt and j tokens, the one that it computes included.
    decodes = sum(step + sequence + context * (prompt + j) for j in range(1, output))
    columns = simulation.request_columns()
    assert columns["first_token_ns"][0] == first
    assert columns["finished_ns"][0] == first + decodes


@pytest.mark.parametrize("async_scheduling", [False, True])
def test_saturated_throughput_is_batch_over_step_time(async_scheduling: bool) -> None:
    batch, step, waves, output = 8, 1000, 50, 200
    count = batch * waves
    simulation = run(
        core.CostModel.fixed(step),
        np.zeros(count),
        np.full(count, 1),
        np.full(count, output),
        async_scheduling=async_scheduling,
    )
    columns = simulation.request_columns()
    steps = columns["finished_ns"].max() / step
    tokens = columns["output_tokens"].sum()
    # Asynchronously a place that a wave leaves is filled one step later.
    assert tokens / steps == pytest.approx(batch, rel=1.5 / output)
    if not async_scheduling:
        assert tokens == batch * steps


@pytest.mark.parametrize("load", [0.3, 0.7, 0.85])
def test_mean_wait_is_that_of_m_d_1(load: float) -> None:
    service, count, batches = 1_000_000, 200_000, 40
    rng = np.random.default_rng(20240607)
    arrival = np.cumsum(rng.exponential(service / load, count)).astype(np.int64)
    ones = np.ones(count)
    simulation = run(core.CostModel.fixed(service), arrival, ones, ones, max_num_seqs=1)
    columns = simulation.request_columns()
    wait = (columns["finished_ns"] - columns["arrival_ns"] - service) / service
    # Lindley's recursion holds to the nanosecond: no slack hides an error of the engine.
    end, expected = 0, np.empty(count, dtype=np.int64)
    for i, at in enumerate(arrival.tolist()):
        end = max(end, at) + service
        expected[i] = end
    assert np.array_equal(columns["finished_ns"], expected)
    means = wait.reshape(batches, -1).mean(axis=1)
    standard_error = means.std(ddof=1) / np.sqrt(batches)
    assert wait.mean() == pytest.approx(load / (2 * (1 - load)), abs=4 * standard_error)
    assert standard_error < 0.05 * wait.mean()


def test_arrived_is_completed_plus_rejected() -> None:
    rng = np.random.default_rng(7)
    count = 3000
    simulation = run(
        core.CostModel.fixed(1000, 10, 5, 1),
        np.sort(rng.integers(0, 5_000_000, count)),
        rng.integers(0, 300, count),
        rng.integers(0, 60, count),
        max_model_len=280,
        num_gpu_blocks=17,
    )
    status = simulation.request_columns()["status"]
    completed, rejected = int((status == 1).sum()), int((status == 2).sum())
    assert completed > 0
    assert rejected > 0
    progress = simulation.run_slice(1)
    assert completed + rejected == count == progress.arrived == progress.answered
