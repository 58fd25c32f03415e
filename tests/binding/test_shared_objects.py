"""Several Python threads use the same objects of the core at once, with and without the GIL."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings

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

    def step_seconds(step: core.StepShape) -> float:
        raise Broken(threading.get_ident())

    cost, step = core.CostModel.external(step_seconds), core.StepShape(decode_seqs=1)
    requests = columns(5)

    def fail(index: int) -> set[Any]:
        seen = set()
        for _ in range(300):
            run = simulation(cost, requests)
            for call in (lambda: run.run_slice(100), lambda: cost.step_seconds(step)):
                with pytest.raises(Exception) as caught:  # noqa: PT011 - its kind is what is asked
                    call()
                seen.add((type(caught.value), caught.value.args))
        return {threading.get_ident(), *seen}

    for seen in together(fail):
        ident = next(value for value in seen if isinstance(value, int))
        assert seen == {ident, (Broken, (ident,))}
