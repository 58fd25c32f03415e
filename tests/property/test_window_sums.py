"""Sums over windows: kept incrementally in the core, against one look at every scheduled token."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from llm_inference_simulator import _core
from llm_inference_simulator.cluster import EngineSettings

Window = tuple[str, int]
SUMS = ("prefill_window_pairs", "prefill_window_tokens", "decode_window_tokens")


def keys_of_token(position: int, window: Window) -> int:
    """Keys that the token at ``position`` sees, its own among them."""
    kind, size = window
    first = max(0, position - size + 1) if kind == "sliding" else position - position % size
    return position - first + 1


def keys_of_chunk(computed: int, new: int, window: Window) -> int:
    """Distinct keys that ``new`` tokens behind ``computed`` ones read."""
    seen: set[int] = set()
    for position in range(computed, computed + new):
        count = keys_of_token(position, window)
        seen |= set(range(position - count + 1, position + 1))
    return len(seen)


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    requests = draw(
        st.lists(
            st.tuples(st.integers(0, 3000), st.integers(1, 60), st.integers(1, 80)),
            min_size=1,
            max_size=12,
        )
    )
    requests.sort()
    arrival, prompt, output = (
        np.array(column, dtype=np.int64) for column in zip(*requests, strict=True)
    )
    return {"arrival_ns": arrival, "prompt_tokens": prompt, "output_tokens": output}


@given(
    workloads(),
    st.sampled_from(["sliding", "chunked"]),
    st.integers(1, 40),
    st.integers(16, 40),
    st.integers(1, 64),
)
def test_window_sums_are_those_of_the_scheduled_tokens(
    workload: dict[str, Any], kind: str, size: int, blocks: int, budget: int
) -> None:
    window = (kind, size)

    def run(*, record_decisions: bool) -> _core.Simulation:
        settings = EngineSettings(
            max_num_seqs=6,
            max_num_batched_tokens=budget,
            max_model_len=150,
            block_size=4,
            # Few blocks: requests are preempted and computed again.
            num_gpu_blocks=blocks + 23,
            attention_window=window,
        )
        simulation = _core.Simulation(
            pools=[(settings, _core.CostModel.fixed(100, 1, 1), 1)],
            router="round_robin",
            record_decisions=record_decisions,
            **workload,
        )
        while not simulation.run_slice(10**6).done:
            pass
        return simulation

    fast, walked = run(record_decisions=False), run(record_decisions=True)
    expected = dict.fromkeys(SUMS, 0)
    _, _, rows, _ = walked.decisions()
    prompts = workload["prompt_tokens"]
    for request, computed, tokens in zip(
        rows["request"], rows["computed"], rows["tokens"], strict=True
    ):
        if tokens == 1 and computed >= prompts[request]:
            expected["decode_window_tokens"] += keys_of_token(int(computed), window)
            continue
        expected["prefill_window_tokens"] += keys_of_chunk(int(computed), int(tokens), window)
        expected["prefill_window_pairs"] += sum(
            keys_of_token(position, window) for position in range(computed, computed + tokens)
        )
    assert fast.trace_hash() == walked.trace_hash()
    for simulation in (fast, walked):
        total = simulation.engine_stats()[0].total
        assert {name: getattr(total, name) for name in SUMS} == expected


@given(st.integers(0, 500), st.integers(1, 200), st.integers(1, 150), st.booleans())
def test_a_step_built_by_hand_has_the_same_sums(
    computed: int, new: int, size: int, sliding: bool
) -> None:
    window = ("sliding" if sliding else "chunked", size)
    chunk = _core.StepShape.prefill(3, new, computed, window)
    pairs = sum(keys_of_token(position, window) for position in range(computed, computed + new))
    assert chunk.prefill_window_pairs == 3 * pairs
    assert chunk.prefill_window_tokens == 3 * keys_of_chunk(computed, new, window)
    decode = _core.StepShape.decode(3, computed + 1, window)
    assert decode.decode_window_tokens == 3 * keys_of_token(computed, window)
