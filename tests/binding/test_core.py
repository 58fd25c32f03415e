"""The binding: what crosses it, what it refuses, and what happens to exceptions."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.errors import ConfigError, SimulationError, WorkloadError

SETTINGS = EngineSettings(
    max_num_seqs=8,
    max_num_batched_tokens=256,
    max_model_len=512,
    block_size=16,
    num_gpu_blocks=200,
)


def simulation(
    cost: core.CostModel | None = None, count: int = 1, requests: int = 50, **options: Any
) -> core.Simulation:
    cost = cost or core.CostModel.fixed(1000, 10, 5, 1)
    columns = {
        "arrival_ns": np.arange(requests, dtype=np.int64) * 2000,
        "prompt_tokens": np.full(requests, 40, dtype=np.int64),
        "output_tokens": np.full(requests, 10, dtype=np.int64),
    }
    return core.Simulation(
        pools=[(SETTINGS, cost, count)], router="round_robin", **(columns | options)
    )


def test_every_class_of_the_core_is_frozen_and_typed() -> None:
    stub = Path(core.__file__).parent / "_core.pyi"
    text = stub.read_text(encoding="utf-8")
    for name in dir(core):
        if isinstance(getattr(core, name), type):
            assert f"class {name}" in text, name
    for instance in (core.StepShape(), core.CostModel.fixed(1), simulation()):
        with pytest.raises(AttributeError):
            instance.new_attribute = 1  # type: ignore[union-attr]


def test_columns_have_their_types_and_lengths() -> None:
    run = simulation()
    assert run.run_slice(10**9).done
    columns = run.request_columns()
    for name, column in columns.items():
        assert column.dtype == (np.uint8 if name == "status" else np.int64), name
        assert len(column) == 50
    assert (columns["status"] == 1).all()
    assert run.token_gaps(np.ones(50, dtype=bool)).count == 50 * 9
    times, offsets = run.token_times(np.array([3, 1], dtype=np.int64))
    assert offsets.tolist() == [0, 10, 20]
    assert times[0] == columns["first_token_ns"][3]
    assert times[-1] == columns["finished_ns"][1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_tokens": np.ones(3, dtype=np.int64)}, "prompt_tokens has 3 rows"),
        ({"arrival_ns": np.array([-1] * 50)}, "request 0: arrival_ns=-1"),
        ({"arrival_ns": np.arange(50)[::-1].copy()}, "request 1: arrival_ns=48 is before"),
        ({"output_tokens": np.full(50, 2**40)}, "request 0: output_tokens=1099511627776"),
        ({"max_concurrency": 0}, "max_concurrency=0"),
        ({"think_ns": np.arange(50) - 1}, "request 0: think_ns=-1 must lie between 0 and 2"),
        ({"think_ns": np.arange(49)}, "think_ns has 49"),
    ],
)
def test_bad_columns_are_refused_by_row(options: dict[str, Any], message: str) -> None:
    with pytest.raises((WorkloadError, ConfigError), match=message):
        simulation(**options)


def test_thoughts_beyond_the_clock_stop_the_simulation() -> None:
    run = simulation(after=np.arange(50) - 1, think_ns=np.full(50, 2**62))
    with pytest.raises(SimulationError, match="clock"):
        run.run_slice(10**9)


def test_an_exception_of_a_python_cost_model_comes_through_as_it_is() -> None:
    class Broken(Exception):
        pass

    calls = []

    def step_seconds(step: core.StepShape) -> float:
        calls.append(step.prefill_tokens + step.decode_seqs)
        if len(calls) == 5:
            raise Broken("no such luck")
        return 1e-3

    run = simulation(core.CostModel.external(step_seconds))
    with pytest.raises(Broken, match="no such luck"):
        run.run_slice(10**9)
    assert all(tokens > 0 for tokens in calls)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_an_impossible_step_time_stops_the_simulation(seconds: float) -> None:
    run = simulation(core.CostModel.external(lambda _: seconds))
    with pytest.raises(SimulationError, match="is not a finite time"):
        run.run_slice(10**9)


def test_slices_in_threads_do_not_disturb_each_other() -> None:
    expected = simulation(requests=2000)
    expected.run_slice(10**9)
    runs = [simulation(requests=2000) for _ in range(4)]

    def drive(run: core.Simulation) -> None:
        while not run.run_slice(100).done:
            run.engine_stats()

    threads = [threading.Thread(target=drive, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {run.trace_hash() for run in runs} == {expected.trace_hash()}


def test_totals_are_the_sums_of_the_steps() -> None:
    run = simulation(count=3, record_steps=True)
    run.run_slice(10**9)
    steps = run.step_columns()
    stats = run.engine_stats()
    assert sum(engine.steps for engine in stats) == len(steps["engine"])
    assert sum(engine.busy_ns for engine in stats) == int(
        (steps["end_ns"] - steps["start_ns"]).sum()
    )
    for name in ("prefill_tokens", "decode_seqs", "decode_context_tokens", "sampled_seqs"):
        assert sum(getattr(engine.total, name) for engine in stats) == int(steps[name].sum())
