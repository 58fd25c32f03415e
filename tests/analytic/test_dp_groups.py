"""Engines that step together (docs/spec.md, section 15) against formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings

STEP, SEQ, SHARED = 1000, 10, 7
"""Nanoseconds of a step, of a decoding request, of a token of the whole group."""


def run(
    engines: int,
    prompts: list[int],
    outputs: list[int],
    arrivals: list[int] | None = None,
    **settings: Any,
) -> core.Simulation:
    """Requests one after the other to ``engines`` engines that step together."""
    engine = EngineSettings(
        max_num_seqs=64,
        max_num_batched_tokens=4096,
        max_model_len=4096,
        block_size=16,
        num_gpu_blocks=4097,
        data_parallel_group=0,
        **settings,
    )
    stages = settings.get("pipeline_parallel_size", 1)
    cost = core.CostModel.fixed(STEP, SEQ, SEQ, 0, SHARED)
    simulation = core.Simulation(
        pools=[(engine, [cost] * stages, engines)],
        router="round_robin",
        arrival_ns=np.array(arrivals or [0] * len(prompts), dtype=np.int64),
        prompt_tokens=np.array(prompts, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        record_steps=True,
    )
    assert simulation.run_slice(10**7).done
    return simulation


@pytest.mark.parametrize("engines", [1, 2, 8])
@pytest.mark.parametrize("async_scheduling", [False, True])
def test_idle_engines_are_dragged_along(engines: int, async_scheduling: bool) -> None:
    """One request: every step is dragged by the dummies of all others, of one token each."""
    simulation = run(engines, [100], [5], async_scheduling=async_scheduling)
    idle = engines - 1
    prefill = STEP + 100 * SEQ + (100 + idle) * SHARED
    decode = STEP + SEQ + (1 + idle) * SHARED
    times, _ = simulation.token_times(np.array([0]))
    assert times.tolist() == [prefill + token * decode for token in range(5)]
    working, *dragged = simulation.engine_stats()
    assert (working.steps, working.dummy_steps) == (5, 0)
    assert all((own.steps, own.dummy_steps) == (0, 5) for own in dragged)
    assert all(own.busy_ns == working.busy_ns == times[-1] for own in dragged)


@pytest.mark.parametrize("long_prompt", [1, 50, 2000])
def test_the_group_steps_at_the_pace_of_the_slowest(long_prompt: int) -> None:
    """The second engine's prompt delays the first engine's token."""
    simulation = run(2, [10, long_prompt], [1, 1])
    slowest = STEP + max(10, long_prompt) * SEQ + (10 + long_prompt) * SHARED
    assert simulation.request_columns()["finished_ns"].tolist() == [slowest] * 2


def test_an_idle_engine_s_arrival_waits_for_the_group() -> None:
    """A request to an engine that runs a dummy is scheduled when the group's step ends."""
    simulation = run(2, [100, 1], [1, 1], arrivals=[0, 5])
    first = STEP + 100 * SEQ + 101 * SHARED
    second = first + STEP + SEQ + 2 * SHARED
    assert simulation.request_columns()["finished_ns"].tolist() == [first, second]
    assert simulation.request_columns()["admitted_ns"].tolist() == [0, first]


def test_a_group_that_is_done_rests() -> None:
    simulation = run(4, [10, 10], [2, 2], arrivals=[0, 10**9])
    busy = sum(STEP + tokens * SEQ + (tokens + 3) * SHARED for tokens in (10, 1, 10, 1))
    assert [own.busy_ns for own in simulation.engine_stats()] == [busy] * 4
    assert simulation.request_columns()["admitted_ns"].tolist() == [0, 10**9]


@pytest.mark.parametrize("stages", [2, 3])
def test_stages_wait_for_the_slowest_engine_too(stages: int) -> None:
    link = (50, 1, 10**9)  # 50 ns and 1 ns a token
    simulation = run(
        2, [30, 70], [1, 1], pipeline_parallel_size=stages, stage_links=(link,) * (stages - 1)
    )
    stage = STEP + 70 * SEQ + 100 * SHARED
    assert (
        simulation.request_columns()["finished_ns"].tolist()
        == [stages * stage + (stages - 1) * (50 + 70)] * 2
    )


def test_more_engines_hold_more_but_never_speed_up_a_step() -> None:
    """The same 8 requests on 1, 2 and 4 engines: fewer of its own each, all the experts'."""
    ends = []
    for engines in (1, 2, 4):
        simulation = run(engines, [100] * 8, [50] * 8)
        own = 8 // engines
        prefill = STEP + own * 100 * SEQ + 800 * SHARED
        decode = STEP + own * SEQ + 8 * SHARED
        ends.append(int(simulation.request_columns()["finished_ns"].max()))
        assert ends[-1] == prefill + 49 * decode
    assert ends == sorted(ends, reverse=True)
