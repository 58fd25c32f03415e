"""Several Python threads use the same objects of the core at once, with and without the GIL."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.performance_models import RooflinePerformanceModel
from llm_inference_simulator.shared_inputs import SharedInputs

THREADS = 4
SETTINGS = EngineSettings(
    max_num_seqs=8,
    max_num_batched_tokens=256,
    max_model_len=512,
    block_size=16,
    num_gpu_blocks=200,
)


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Where there is a GIL, threads take turns at almost every instruction."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def together(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """What ``work`` gives on each of several threads that begin at the same moment."""
    results: list[Any] = [None] * threads
    start = threading.Barrier(threads)

    def run(index: int) -> None:
        start.wait(30)
        try:
            results[index] = work(index)
        except Exception as error:  # for the caller to see
            results[index] = error

    running = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    return results


def columns(requests: int) -> dict[str, Any]:
    return {
        "arrival_ns": np.arange(requests, dtype=np.int64) * 2000,
        "prompt_tokens": np.full(requests, 40, dtype=np.int64),
        "output_tokens": np.full(requests, 10, dtype=np.int64),
    }


def simulation(
    cost: core.CostModel, shared: dict[str, Any], count: int = 2, **options: Any
) -> core.Simulation:
    return core.Simulation(
        pools=[(SETTINGS, cost, count)], **({"router": "round_robin"} | shared | options)
    )


def test_each_thread_gets_the_exceptions_of_its_own_run() -> None:
    class Broken(Exception):
        pass

    def step_seconds(_: core.StepShape) -> float:
        raise Broken(threading.get_ident())

    cost, step = core.CostModel.external(step_seconds), core.StepShape(decode_seqs=1)
    requests = columns(5)

    def fail(_: int) -> set[Any]:
        seen = set()
        for _ in range(300):
            run = simulation(cost, requests)
            for call in (partial(run.run_slice, 100), partial(cost.step_seconds, step)):
                with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is what is asked
                    call()
                seen.add((type(caught.value), caught.value.args))
        return {threading.get_ident(), *seen}

    for seen in together(fail):
        ident = next(value for value in seen if isinstance(value, int))
        assert seen == {ident, (Broken, (ident,))}


def finished(run: core.Simulation, events: int = 2**40) -> tuple[int, dict[str, Any]]:
    while not run.run_slice(events).done:
        pass
    return run.trace_hash(), {
        name: column.tolist() for name, column in run.request_columns().items()
    }


def test_runs_on_one_model_and_the_same_columns_are_those_of_one_thread() -> None:
    model, requests = RooflinePerformanceModel("llama-3.1-8b", "h100-sxm"), columns(300)
    for column in requests.values():
        column.setflags(write=False)

    def run(_: int) -> tuple[int, dict[str, Any]]:
        return finished(simulation(model.cost_model(), requests, threads=2), events=500)

    expected = finished(simulation(model.cost_model(), requests))
    assert together(run) == [expected] * THREADS


def test_threads_may_advance_one_run_in_turns_and_look_at_it_meanwhile() -> None:
    cost, requests = core.CostModel.fixed(1000, 10, 5, 1), columns(2000)
    expected = finished(simulation(cost, requests))
    every = np.ones(2000, dtype=bool)
    for threads in (1, 2):
        run = simulation(cost, requests, threads=threads)

        def advance(index: int, run: core.Simulation = run) -> int:
            looks = 0
            while not run.run_slice(37).done:
                look = (
                    run.request_columns,
                    run.engine_stats,
                    run.trace_hash,
                    lambda: run.token_gaps(every).mean_and_deviation(),
                    lambda: run.token_times(np.arange(5, dtype=np.int64)),
                )[(index + looks) % 5]
                look()
                looks += 1
            return looks

        looks = together(advance)
        assert all(isinstance(count, int) for count in looks), looks
        assert sum(looks) > THREADS
        assert finished(run) == expected


@pytest.mark.parametrize("threads", [1, 2])
def test_one_thread_feeds_a_streamed_run_that_others_advance_and_empty(threads: int) -> None:
    cost, requests, count = core.CostModel.fixed(1000, 10, 5, 1), columns(2000), 100
    expected = finished(simulation(cost, requests))[1]
    nothing = {name: column[:0] for name, column in requests.items()}
    run = simulation(cost, nothing, streaming=0, threads=threads)
    taken: list[tuple[int, int]] = []
    taking = threading.Lock()

    def work(index: int) -> None:
        if index == 0:
            for first in range(0, 2000, count):
                piece = {name: c[first : first + count] for name, c in requests.items()}
                run.feed(**piece, last=first + count == 2000)
            return
        while True:
            progress = run.run_slice(50)
            with taking:  # blocks must be appended in the order in which they are taken
                rows = run.take_rows(30)
                taken.extend(
                    zip(rows["arrival_ns"].tolist(), rows["finished_ns"].tolist(), strict=True)
                )
            if progress.done and run.ended_rows() == 0:
                return

    assert together(work) == [None] * THREADS
    assert taken == list(zip(expected["arrival_ns"], expected["finished_ns"], strict=True))


def test_a_replay_takes_requests_from_several_threads() -> None:
    offsets = np.zeros(401, dtype=np.int64)
    replay = core.SchedulerReplay(SETTINGS, offsets, np.zeros(0, dtype=np.int64))

    def add(index: int) -> None:
        for request in range(index, 400, THREADS):
            replay.add(request, 20, 1, 0, request)

    assert together(add) == [None] * THREADS
    ended: list[int] = []
    while replay.schedule()[0]:
        ended += replay.update()[1]
    assert sorted(ended) == list(range(400))


def test_a_python_router_may_be_shared_and_its_view_kept() -> None:
    views: list[core.RouterEngines] = []

    def choose(_: core.RouterRequest, engines: core.RouterEngines) -> int:
        views.append(engines)
        loads = [engines.outstanding(engine) for engine in range(len(engines))]
        return loads.index(min(loads))

    cost, requests = core.CostModel.fixed(1000, 10, 5, 1), columns(500)
    expected = finished(simulation(cost, requests, router=choose))

    def run(index: int) -> tuple[int, dict[str, Any]]:
        if index == 0:  # looks at the engines of others while they run
            for view in views * 20:
                assert all(view.outstanding(engine) <= 500 for engine in range(len(view)))
        return finished(simulation(cost, requests, router=choose), events=50)

    assert together(run) == [expected] * THREADS


def test_simulations_share_inputs_and_a_result_is_read_from_several_threads() -> None:
    config = SimulatorConfig.from_dict(
        {
            "model": "llama-3.1-8b",
            "xpu": "h100-sxm",
            "workload": {"request_rate": 50.0, "num_prompts": 300},
        }
    )
    expected = simulate(config).summary()
    inputs = SharedInputs()
    results = together(lambda _: simulate(config, inputs=inputs))
    assert [result.summary() for result in results] == [expected] * THREADS
    shared = simulate(config, inputs=inputs)
    assert together(lambda _: shared.summary()) == [expected] * THREADS
