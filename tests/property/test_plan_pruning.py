"""A plan's answer is that of simulating every candidate."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_inference_simulator.plan.candidates import families, members
from llm_inference_simulator.plan.judge import Judge
from llm_inference_simulator.plan.pareto import pareto_front
from llm_inference_simulator.plan.prices import prices_of
from llm_inference_simulator.plan.pruning import Pruner
from llm_inference_simulator.plan.request import PlanRequest
from llm_inference_simulator.plan.search import best_of, cheapest, rank, value_of
from llm_inference_simulator.shared_inputs import SharedInputs

INPUTS = SharedInputs()
"""Prices and memory plans of all examples."""


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    """Small spaces around the edge of what can be held."""
    prompt, output = draw(st.sampled_from([128, 1024, 4096])), draw(st.sampled_from([1, 16, 200]))
    workload: dict[str, Any] = {
        "num_prompts": draw(st.integers(20, 80)),
        "random_input_len": prompt,
        "random_output_len": output,
        "random_range_ratio": draw(st.sampled_from([0.0, 0.5])),
    }
    if draw(st.booleans()):
        workload["random_prefix_len"] = 512
    goodput = draw(
        st.sampled_from(
            [
                {"ttft": 200.0},
                {"ttft": 60.0, "tpot": 12.0},
                {"tpot": 9.0},
                {"ttft": 1000.0, "tpot": 40.0},
                {"e2el": 1500.0},
            ]
        )
    )
    return PlanRequest(
        base={
            "model": draw(st.sampled_from(["llama-3.1-8b", "qwen3-30b-a3b"])),
            "seed": draw(st.integers(0, 3)),
            "workload": workload,
            "engine": {"max_model_len": 8192},
            "measurement": {"goodput": goodput},
        },
        xpus=tuple(
            draw(st.sampled_from([("h100-sxm", "l40s"), ("a100-80-sxm",), ("mi300x", "l40s")]))
        ),
        request_rate=draw(st.sampled_from([1.0, 8.0, 30.0, 120.0])),
        attainment=draw(st.sampled_from([0.8, 0.95, 1.0])),
        objective=draw(st.sampled_from(["cost", "xpus"])),
        max_xpus=draw(st.sampled_from([2, 3])),
        tensor_parallel_sizes=(1, 2),
        pipeline_parallel_sizes=draw(st.sampled_from([(1,), (1, 2)])),
        settings={"max_num_batched_tokens": draw(st.sampled_from([(2048,), (8192,)]))},
    )


@settings(deadline=None, max_examples=25)
@given(requests())
def test_pruning_never_drops_the_best_one(request: PlanRequest) -> None:
    prices = prices_of(request.xpus, {})
    judge = Judge(request, prices, INPUTS)
    found = cheapest(judge).best
    assert request.request_rate is not None
    model = judge.inputs.model(request.base["model"])
    everything = [
        candidate
        for family in families(request, model)
        for candidate in members(family, [1] * len(family.layouts), request.max_xpus)
    ]
    trials = judge.trials([(candidate, request.request_rate) for candidate in everything])
    best = best_of(trials, judge)
    if best is None or found is None:
        assert best is found is None
    else:
        assert value_of(found, judge) == value_of(best, judge)
        assert rank(found, judge) == rank(best, judge)
    # Stronger: none of those that meet the objectives was thought impossible.
    survivors, _ = Pruner(judge, request.request_rate).survey()
    least = {survivor.family: survivor.least for survivor in survivors}
    for trial in trials:
        if trial.meets:
            family, engines = trial.candidate.family, trial.candidate.engines
            assert family in least, trial.candidate.count_words
            assert all(n >= low for n, low in zip(engines, least[family], strict=True))


numbers = st.none() | st.integers(0, 6).map(float)


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_the_front_is_what_no_other_pair_beats(
    pairs: list[tuple[float | None, float | None]],
) -> None:
    known = {pair for pair in pairs if None not in pair}

    def beaten(pair: Any) -> bool:
        return any(other != pair and other[0] <= pair[0] and other[1] <= pair[1] for other in known)

    front = pareto_front(pairs)
    assert {pairs[place] for place in front} == {pair for pair in known if not beaten(pair)}
    assert len(front) == len({pairs[place] for place in front})
