"""Routing policies against each other and against formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.errors import SimulationError

ENGINE = EngineSettings(
    max_num_seqs=1,
    max_num_batched_tokens=4096,
    max_model_len=4096,
    block_size=16,
    num_gpu_blocks=4097,
)
STEP_NS = 1_000_000


def run(
    router: str | Callable[..., int],
    *,
    engines: int = 16,
    requests: int = 20_000,
    load: float = 0.9,
    **columns: Any,
) -> dict[str, Any]:
    """M/D/1 queues: prompts of one step each, arriving at ``load`` of what the engines do."""
    gaps = np.random.default_rng(1).exponential(STEP_NS / engines / load, requests)
    options: dict[str, Any] = {
        "arrival_ns": np.cumsum(gaps).astype(np.int64),
        "prompt_tokens": np.full(requests, 10, dtype=np.int64),
        "output_tokens": np.ones(requests, dtype=np.int64),
        "router_seed": 3,
    }
    simulation = core.Simulation(
        pools=[(ENGINE, core.CostModel.fixed(STEP_NS), engines)],
        router=router,
        **(options | columns),
    )
    assert simulation.run_slice(10**9).done
    return simulation.request_columns()


def mean_wait(columns: dict[str, Any]) -> float:
    """In steps, without the service itself."""
    return float((columns["finished_ns"] - columns["arrival_ns"]).mean() / STEP_NS - 1)


def test_random_routing_makes_independent_queues() -> None:
    columns = run("random", requests=200_000, load=0.5)
    # Pollaczek and Khinchine: load / (2 (1 - load)).
    assert mean_wait(columns) == pytest.approx(0.5, rel=0.05)
    share = np.bincount(columns["engine"], minlength=16) / 200_000
    assert share == pytest.approx(np.full(16, 1 / 16), rel=0.05)


def test_two_choices_beat_one_and_all_beat_two() -> None:
    policies = ("random", "power_of_two", "least_outstanding")
    one, two, all_engines = (mean_wait(run(policy)) for policy in policies)
    assert two < one / 2
    assert all_engines < two


def test_outstanding_tokens_tell_long_requests_from_short_ones() -> None:
    columns = run(
        "least_outstanding_tokens",
        engines=2,
        requests=5,
        arrival_ns=np.arange(5, dtype=np.int64),
        prompt_tokens=np.array([1000, 10, 10, 10, 10], dtype=np.int64),
    )
    assert columns["engine"].tolist() == [0, 1, 1, 1, 1]


def test_sessions_stay_with_their_engine_and_never_overtake_themselves() -> None:
    turns, sessions = 5, 40
    after = np.full(turns * sessions, -1)
    after[sessions:] = np.arange((turns - 1) * sessions)
    columns = run("session_affinity", requests=turns * sessions, after=after)
    engines = columns["engine"].reshape(turns, sessions)
    assert (engines == engines[0]).all()
    arrival, finished = (
        columns[name].reshape(turns, sessions) for name in ("arrival_ns", "finished_ns")
    )
    assert (arrival[1:] >= finished[:-1]).all()


def test_a_prefix_goes_where_it_is_known_once_the_router_has_heard() -> None:
    requests = 6

    def engines(delay_ns: int, imbalance: int) -> list[int]:
        columns = run(
            "prefix_aware",
            engines=3,
            requests=requests,
            arrival_ns=np.arange(requests, dtype=np.int64) * 10,
            block_offsets=np.arange(requests + 1, dtype=np.int64),
            block_ids=np.zeros(requests, dtype=np.int64),
            router_view_delay_ns=delay_ns,
            router_imbalance=imbalance,
        )
        chosen: list[int] = columns["engine"].tolist()
        return chosen

    assert engines(0, 99) == [0] * 6
    # Until 20 ns nothing is known; then what was sent first, and so on.
    assert engines(20, 99) == [0, 1, 0, 1, 0, 1]
    # Two requests more than the idlest engine has are too many.
    assert engines(0, 1) == [0, 0, 1, 1, 2, 2]


def test_a_callable_sees_the_loads_and_decides() -> None:
    seen: list[tuple[int, int, int]] = []

    def fewest(request: core.RouterRequest, engines: core.RouterEngines) -> int:
        seen.append((request.index, request.now_ns, engines.outstanding_tokens(0)))
        return min(range(len(engines)), key=engines.outstanding)

    ours = run(fewest, requests=300)
    builtin = run("least_outstanding", requests=300)
    assert ours["engine"].tolist() == builtin["engine"].tolist()
    assert [index for index, _, _ in seen] == list(range(300))
    assert {tokens % 11 for _, _, tokens in seen} == {0}


def test_a_callable_that_fails_stops_the_run_with_its_own_exception() -> None:
    def broken(request: core.RouterRequest, _: core.RouterEngines) -> int:
        raise ZeroDivisionError(f"at {request.index}")

    with pytest.raises(ZeroDivisionError, match="at 0"):
        run(broken, requests=3)
    with pytest.raises(SimulationError, match="it chose engine 16, but there are engines 0 to 15"):
        run(lambda _, engines: len(engines), requests=3)
    with pytest.raises(IndexError, match="there is no engine 16"):
        run(lambda _, engines: engines.outstanding(16), requests=3)
