"""Many configurations at once: order, errors, sharing, interruption."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import (
    CapacityError,
    ConfigError,
    ManyInterrupted,
    Outcome,
    SimulationResult,
    SimulatorConfig,
    Workload,
    simulate,
    simulate_many,
)
from llm_inference_simulator.capacity import MemoryPlan, plan_memory
from llm_inference_simulator.catalog import ModelSpec
from llm_inference_simulator.shared_inputs import SharedInputs


def config(**changes: Any) -> SimulatorConfig:
    data: dict[str, Any] = {
        "model": "llama-3.1-8b",
        "xpu": "h100-sxm",
        "workload": {"request_rate": 20.0, "num_prompts": 60, "random_output_len": 8},
    }
    return SimulatorConfig.from_dict(data | changes)


def variants() -> list[SimulatorConfig]:
    """Settings that share prices, memory plans or requests in part, and none in whole."""
    return [
        config(engine={"max_num_seqs": 4}),
        config(engine={"max_num_seqs": 8}),
        config(engine={"max_num_batched_tokens": 2048}),
        config(engine={"kv_cache_dtype": "fp8"}),
        config(cluster={"tensor_parallel_size": 2, "data_parallel_size": 2}),
        config(cluster={"pipeline_parallel_size": 2}),
        *(
            config(
                model="qwen3-30b-a3b",
                engine={"enable_expert_parallel": True},
                cluster={"data_parallel_size": engines},
            )
            for engines in (1, 2)
        ),
        config(xpu="a100-80gb"),
        config(performance={"performance_model": "roofline"}),
        config(seed=7),
        config(
            workload={"request_rate": 2.0, "num_prompts": 60, "lengths_from": "azure-conv-2023"}
        ),
        config(
            workload={"request_rate": 4.0, "num_prompts": 60, "lengths_from": "azure-conv-2023"}
        ),
    ]


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_those_of_simulate_in_the_order_of_the_input(jobs: int) -> None:
    outcomes = simulate_many(variants(), jobs=jobs)
    assert [outcome.index for outcome in outcomes] == list(range(len(outcomes)))
    for outcome, alone in zip(outcomes, map(simulate, variants()), strict=True):
        assert outcome.unwrap().trace_hash == alone.trace_hash
        assert outcome.unwrap().setup.pools == alone.setup.pools
        assert outcome.unwrap().summary() == alone.summary()


def test_a_configuration_that_does_not_fit_is_an_entry_with_its_error() -> None:
    configs = [config(), config(model="llama-3.1-70b"), config(), config(model="llama-3.1-70b")]
    outcomes = simulate_many(configs, jobs=2, keep=lambda result: result.trace_hash)
    assert outcomes[0].unwrap() == outcomes[2].unwrap()
    for outcome in (outcomes[1], outcomes[3]):
        assert outcome.result is None
        with pytest.raises(CapacityError, match="does not fit"):
            outcome.unwrap()


def test_whatever_goes_wrong_in_one_configuration_leaves_the_others() -> None:
    def keep(result: SimulationResult) -> int:
        if result.config.seed == 1:
            raise ZeroDivisionError("in the caller's function")
        return result.config.seed

    outcomes = simulate_many([config(seed=seed) for seed in range(3)], keep=keep)
    assert [outcome.result for outcome in outcomes] == [0, None, 2]
    assert isinstance(outcomes[1].error, ZeroDivisionError)


def test_one_workload_for_all() -> None:
    workload = Workload.from_columns([0, 10], [5, 6], [3, 4])
    outcomes = simulate_many([config(), config(seed=3)], workload=workload)
    for outcome in outcomes:
        np.testing.assert_array_equal(outcome.unwrap().requests["prompt_tokens"], [5, 6])


def test_progress_and_outcomes_come_in_the_calling_thread() -> None:
    seen: list[tuple[int, int]] = []
    finished: list[Outcome[int]] = []
    caller = threading.get_ident()

    def progress(done: int, total: int) -> None:
        assert threading.get_ident() == caller
        seen.append((done, total))

    simulate_many(
        [config()] * 5, jobs=2, keep=lambda _: 1, progress=progress, on_finished=finished.append
    )
    assert seen == [(done, 5) for done in range(1, 6)]
    assert sorted(outcome.index for outcome in finished) == list(range(5))


def test_an_interruption_keeps_what_had_finished() -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(ManyInterrupted, match="2 of 50") as interruption:
        simulate_many([config()] * 50, jobs=2, keep=lambda _: 1, progress=interrupt)
    assert len(interruption.value.outcomes) == 2


def test_jobs_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="jobs=0"):
        simulate_many([config()], jobs=0)


def test_no_configurations_have_no_outcomes() -> None:
    assert simulate_many([]) == []


def test_equal_inputs_are_made_once() -> None:
    shared = SharedInputs()
    first = shared.pools(config())[0]
    assert shared.pools(config(seed=5))[0] is first
    other = shared.pools(config(engine={"max_num_seqs": 4}))[0]
    assert other is not first
    assert other.core.cost_models == first.core.cost_models
    own = shared.workload(config().workload, 0)
    assert shared.workload(config().workload, 0) is own
    assert shared.workload(config().workload, 1) is not own


@pytest.mark.parametrize("model", ["llama-3.1-8b", "llama-3.1-70b"])
def test_more_engines_need_no_new_memory_plan(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []

    def plan(model: ModelSpec, *rest: Any, **options: Any) -> MemoryPlan:
        planned.append(model.name)
        return plan_memory(model, *rest, **options)

    monkeypatch.setattr("llm_inference_simulator.shared_inputs.plan_memory", plan)
    shared = SharedInputs()
    for engines in (1, 2, 3):
        with contextlib.suppress(CapacityError):
            shared.pools(config(model=model, cluster={"data_parallel_size": engines}))
    assert planned == [model]


def test_an_error_is_kept_without_its_history() -> None:
    shared = SharedInputs()
    errors = []
    for _ in range(2):
        with pytest.raises(CapacityError) as caught:
            shared.pools(config(model="llama-3.1-70b"))
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert str(errors[0]) == str(errors[1])
