"""Disaggregated serving against formulas that can be written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings, TransferSettings

ENGINE: dict[str, Any] = {
    "max_num_seqs": 64,
    "max_num_batched_tokens": 4096,
    "max_model_len": 4096,
    "block_size": 16,
    "num_gpu_blocks": 4097,
    "link_bytes_per_s": 10**9,
}
STEP = 1000


def run(
    prefill: int,
    decode: int,
    arrival_ns: list[int],
    output: int,
    transfer: TransferSettings,
    prompt: int = 100,
    **settings: int,
) -> dict[str, Any]:
    cost = core.CostModel.fixed(STEP)
    n = len(arrival_ns)
    simulation = core.Simulation(
        pools=[
            (EngineSettings(role="prefill", **(ENGINE | settings)), cost, prefill),
            (EngineSettings(role="decode", **(ENGINE | settings)), cost, decode),
        ],
        router="round_robin",
        arrival_ns=np.array(arrival_ns, dtype=np.int64),
        prompt_tokens=np.full(n, prompt, dtype=np.int64),
        output_tokens=np.full(n, output, dtype=np.int64),
        transfer=transfer,
    )
    assert simulation.run_slice(10**9).done
    return simulation.request_columns()


@pytest.mark.parametrize("n", [1, 2, 8])
def test_equal_transfers_over_one_link_take_as_many_times_as_long(n: int) -> None:
    columns = run(1, 1, [0] * n, 2, TransferSettings(kv_bytes_per_token=10, latency_ns=30))
    took = columns["transfer_end_ns"] - columns["transfer_start_ns"]
    assert took.tolist() == [30 + n * 100 * 10] * n


def test_one_request_is_its_prefill_its_transfer_and_its_decodes() -> None:
    columns = run(1, 1, [50], 5, TransferSettings(kv_bytes_per_token=10, latency_ns=30))
    assert columns["first_token_ns"][0] == 50 + STEP
    assert columns["transfer_end_ns"][0] == 50 + STEP + 30 + 1000
    assert columns["second_token_ns"][0] == 50 + STEP + 30 + 1000 + STEP
    assert columns["finished_ns"][0] == 50 + STEP + 30 + 1000 + 4 * STEP


def test_a_layer_at_a_time_only_the_last_layer_is_waited_for() -> None:
    # 800 bytes at 1 byte a ns begin after a tenth of the step: their end is before the step's.
    transfer = TransferSettings(kv_bytes_per_token=8, layers=10)
    columns = run(1, 1, [0], 2, transfer)
    assert columns["transfer_start_ns"][0] == STEP // 10
    assert columns["transfer_end_ns"][0] == STEP + 80


def test_a_full_decode_side_holds_prefill_blocks_and_pushes_back() -> None:
    # Both sides hold one request of 100 + 5 tokens: 7 blocks; each decode takes 4 steps.
    columns = run(
        1,
        1,
        [0] * 4,
        5,
        TransferSettings(kv_bytes_per_token=10),
        num_gpu_blocks=8,
    )
    cycle = 4 * STEP + 1000  # decode, then the transfer that waited for its blocks
    first = STEP + 1000 + cycle * np.arange(4) + 4 * STEP
    assert columns["finished_ns"].tolist() == first.tolist()
    # The next prompt starts when the blocks of the one before have been sent.
    sent = columns["transfer_end_ns"]
    assert columns["admitted_ns"][1:].tolist() == sent[:-1].tolist()


def test_the_bottleneck_changes_sides_where_the_work_is_equal() -> None:
    """A prompt takes one step alone, an output of 1 + 4 tokens four steps of a batch of one."""
    requests, only_one = 400, {"max_num_seqs": 1}

    def throughput(prefill: int, decode: int) -> float:
        transfer = TransferSettings(kv_bytes_per_token=0)
        columns = run(prefill, decode, [0] * requests, 5, transfer, **only_one)
        return requests / float(columns["finished_ns"].max() / STEP)

    for prefill, decode in [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (2, 8)]:
        assert throughput(prefill, decode) == pytest.approx(min(prefill, decode / 4), rel=0.03)
