"""Plans: verdicts, bounds, highest rates, explanations, command lines, the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import ConfigError, SimulatorConfig, Workload, simulate
from llm_inference_simulator.cli import main
from llm_inference_simulator.plan import PlanRequest, make_plan
from llm_inference_simulator.plan.bounds import demand_of
from llm_inference_simulator.plan.candidates import Candidate, Family, Layout, families, members
from llm_inference_simulator.plan.commands import serve_commands
from llm_inference_simulator.plan.judge import Judge, Trial, judge
from llm_inference_simulator.plan.prices import prices_of
from llm_inference_simulator.plan.search import Bracket, cheapest
from llm_inference_simulator.shared_inputs import SharedInputs

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "workload": {"num_prompts": 200, "random_input_len": 512, "random_output_len": 32},
    "measurement": {"goodput": {"ttft": 500.0, "tpot": 30.0}},
}


def request(**changes: Any) -> PlanRequest:
    settings: dict[str, Any] = {
        "base": BASE,
        "xpus": ("h100-sxm", "l40s"),
        "request_rate": 20.0,
        "max_xpus": 3,
        "tensor_parallel_sizes": (1, 2),
        "pipeline_parallel_sizes": (1,),
        "settings": {"max_num_batched_tokens": (2048,)},
    }
    return PlanRequest(**(settings | changes))


def make_judge(wanted: PlanRequest) -> Judge:
    return Judge(wanted, prices_of(wanted.xpus, {}), SharedInputs(), jobs=1)


def layout(role: Any = "aggregated", size: int = 1, **settings: Any) -> Layout:
    return Layout(role=role, tensor_parallel_size=size, settings=tuple(settings.items()))


def aggregated(engines: int, size: int = 1, xpu: str = "h100-sxm", **settings: Any) -> Candidate:
    return Family(xpu=xpu, layouts=(layout(size=size, **settings),)).candidate((engines,))


def disaggregated(prefill: int, decode: int) -> Candidate:
    pair = (layout("prefill", 2), layout("decode", 4))
    return Family(xpu="h100-sxm", layouts=pair).candidate((prefill, decode))


def test_the_number_of_accelerators_is_explained() -> None:
    assert aggregated(5, 8).count_words == "40 = 5 engines x TP 8"
    assert (
        disaggregated(1, 2).count_words == "10 = 1 prefill engine x TP 2 + 2 decode engines x TP 4"
    )


def test_the_space_has_all_layouts_that_the_model_allows() -> None:
    model = SharedInputs().model("llama-3.1-8b")
    found = families(request(xpus=("h100-sxm",), tensor_parallel_sizes=(1, 2, 3)), model)
    assert [each.words for each in found] == [
        "h100-sxm, TP 1, max_num_batched_tokens 2048",
        "h100-sxm, TP 2, max_num_batched_tokens 2048",
        "h100-sxm, prefill TP 1 + decode TP 1, max_num_batched_tokens 2048",
        "h100-sxm, prefill TP 1 + decode TP 2, max_num_batched_tokens 2048",
        "h100-sxm, prefill TP 2 + decode TP 1, max_num_batched_tokens 2048",
        "h100-sxm, prefill TP 2 + decode TP 2, max_num_batched_tokens 2048",
    ]
    pairs = [candidate.engines for candidate in members(found[3], (1, 1), 5)]
    assert pairs == [(1, 1), (1, 2), (2, 1), (3, 1)]
    experts = families(request(xpus=("h100-sxm",)), SharedInputs().model("qwen3-30b-a3b"))
    assert {dict(each.layouts[0].settings)["enable_expert_parallel"] for each in experts} == {
        True,
        False,
    }


def test_candidates_are_the_configurations_that_they_name() -> None:
    candidate = disaggregated(1, 2)
    config = SimulatorConfig.from_dict(
        candidate.config_data({**BASE, "engine": {"block_size": 32}})
    )
    pools = config.cluster.pools
    assert [(p.role, p.size, p.tensor_parallel_size) for p in pools] == [
        ("prefill", 1, 2),
        ("decode", 2, 4),
    ]
    assert {config.engine_of(pool).block_size for pool in pools} == {32}
    assert config.transfer.bandwidth_gb_s == 50
    assert config.cluster.router == "least_outstanding"
    plain = SimulatorConfig.from_dict(aggregated(2, max_num_seqs=7).config_data(BASE))
    assert plain.cluster.n_xpus_used == 2
    assert plain.engine_of(plain.cluster.pools[0]).max_num_seqs == 7


def test_a_short_run_does_not_flatter_an_overloaded_cluster() -> None:
    """All in time at first, and the second half too late: the share of all would do."""
    wanted = request(attainment=0.6)
    config = SimulatorConfig.from_dict({**BASE, "xpu": "l40s"})
    n = 120
    arrivals = np.arange(n) * 8_000_000
    workload = Workload.from_columns(arrivals, np.full(n, 2000), np.full(n, 4))
    result = simulate(config, workload=workload)
    found = judge(result, wanted)
    ttft = result.requests["ttft_ns"]
    assert np.mean(ttft[: n // 2] <= 500e6) > found.attained_late
    assert not found.meets
    assert found.reason is not None
    light = simulate(config, workload=Workload.from_columns(arrivals * 50, [200] * n, [4] * n))
    assert judge(light, wanted).meets
    assert judge(light, wanted).reason is None
    assert judge(light, wanted).closeness < 1


def test_demand_is_that_of_the_requests_which_must_meet_the_objectives() -> None:
    workload = Workload.from_columns([0, 10**9, 3 * 10**9], [10, 20, 1000], [1, 3, 5])
    all_of_them = demand_of(workload, {"ttft": 500.0, "tpot": 100.0}, 1.0)
    assert all_of_them.prompt_tokens == 1030
    assert all_of_them.decode_tokens == 0 + 2 + 4
    assert all_of_them.keys == (21 + 22) + (1001 + 1002 + 1003 + 1004)
    assert all_of_them.prefill_s == pytest.approx(3.5)
    assert all_of_them.total_s == pytest.approx(3.5 + 0.4)
    assert all_of_them.shortest_prompt == 1000
    two = demand_of(workload, {"ttft": 500.0}, 0.6)
    assert (two.prompt_tokens, two.shortest_prompt) == (30, 20)
    assert two.total_s == np.inf


def test_the_cheapest_names_a_price_tier_that_all_have() -> None:
    found = prices_of(("h100-sxm", "l40s"), {})
    assert dict(found.sections["l40s"]) == {"price_tier": "rental"}
    assert found.warnings == ()
    assert prices_of(("l40s",), {}).sections["l40s"] == {"price_tier": "on_demand"}
    given = prices_of(("h100-sxm",), {"price_per_hour_usd": 3.0})
    assert given.usd_per_hour["h100-sxm"] == 3


def test_an_accelerator_without_a_price_is_refused_by_cost_alone(tmp_path: Path) -> None:
    from llm_inference_simulator.catalog import xpus

    source = Path(xpus.__file__).parent / "xpus" / "h100-sxm.json"
    data = json.loads(source.read_text())
    del data["prices"]
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({**data, "name": "mine", "aliases": []}))
    for objective, verdicts in (("cost", {"refused"}), ("xpus", set())):
        wanted = request(xpus=(str(mine), "l40s"), objective=objective, modes=("aggregated",))
        found = cheapest(make_judge(wanted))
        refused = [each for each in found.pruned if each.family.xpu == str(mine)]
        assert {each.verdict for each in refused} == verdicts
        assert all("has no price" in each.reason for each in refused)
        tried = {trial.candidate.family.xpu for trial in found.trials}
        assert tried == ({"l40s"} if objective == "cost" else {"l40s", str(mine)})


def held_up_to(limit: float) -> Callable[[Sequence[Any]], list[Trial]]:
    def trials(wanted: Sequence[Any]) -> list[Trial]:
        return [
            Trial(candidate=each, rate=rate, judgement=SimpleNamespace(meets=rate <= limit))  # type: ignore[arg-type]
            for each, rate in wanted
        ]

    return trials


@pytest.mark.parametrize("limit", [0.7, 3.0, 10.0, 333.0])
@pytest.mark.parametrize("tolerance", [0.01, 0.1])
def test_bisection_ends_within_the_tolerance(limit: float, tolerance: float) -> None:
    bracket = Bracket(aggregated(1), 16.0)
    trials = held_up_to(limit)
    for _ in range(40):
        rate = bracket.next_rate(tolerance)
        if rate is None:
            break
        bracket.note(trials([(bracket.candidate, rate)])[0])
    assert bracket.held is not None
    assert bracket.missed is not None
    assert bracket.held.rate <= limit < bracket.missed.rate
    assert bracket.missed.rate <= bracket.held.rate * (1 + tolerance)


def test_a_candidate_that_holds_nothing_is_given_up() -> None:
    bracket = Bracket(aggregated(1), 16.0)
    rates = []
    while (rate := bracket.next_rate(0.02)) is not None:
        rates.append(rate)
        bracket.note(held_up_to(0.0)([(bracket.candidate, rate)])[0])
    assert bracket.held is None
    assert len(rates) < 15


def test_the_highest_rate_is_held_and_a_little_more_is_not() -> None:
    wanted = request(request_rate=None, xpus=("l40s",), max_xpus=1, tolerance=0.05)
    plan = make_plan(wanted, jobs=1)
    assert plan.best is not None
    assert plan.best.candidate == aggregated(1, xpu="l40s", max_num_batched_tokens=2048)
    asked = make_judge(request(xpus=("l40s",)))
    rate = plan.best.rate
    held, missed = asked.trials(
        [(plan.best.candidate, rate), (plan.best.candidate, rate * 1.05 / 0.99)]
    )
    assert held.meets
    assert not missed.meets


def test_commands_start_every_engine_on_accelerators_of_its_own() -> None:
    candidate = disaggregated(1, 2)
    config = SimulatorConfig.from_dict(
        candidate.config_data({**BASE, "engine": {"block_size": 32}})
    )
    lines = serve_commands(candidate, config)
    assert lines[0].startswith("# 10 = 1 prefill engine x TP 2 + 2 decode engines x TP 4 h100-sxm;")
    assert lines[1] == "# node 0"
    assert lines[2] == (
        "CUDA_VISIBLE_DEVICES=0,1 VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve "
        "meta-llama/Llama-3.1-8B --tensor-parallel-size 2 --max-num-seqs 256 "
        "--max-num-batched-tokens 8192 --gpu-memory-utilization 0.9 --block-size 32 "
        """--kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}' """
        "--port 8000"
    )
    assert lines[3].startswith("CUDA_VISIBLE_DEVICES=2,3,4,5 VLLM_NIXL_SIDE_CHANNEL_PORT=5601 ")
    assert lines[4] == "# node 1"
    assert lines[5].startswith("CUDA_VISIBLE_DEVICES=0,1,2,3 VLLM_NIXL_SIDE_CHANNEL_PORT=5600 ")
    off = aggregated(1, xpu="mi300x", enable_prefix_caching=False)
    lines = serve_commands(off, SimulatorConfig.from_dict(off.config_data(BASE)))
    assert lines[0].endswith("one engine needs no router")
    assert lines[1].startswith("HIP_VISIBLE_DEVICES=0 vllm serve ")
    assert " --no-enable-prefix-caching " in lines[1]


def test_a_model_of_ones_own_keeps_its_path_quoted() -> None:
    from llm_inference_simulator.plan.commands import huggingface_name

    assert huggingface_name("Llama-3.1-8B") == "meta-llama/Llama-3.1-8B"
    assert huggingface_name("./my model") == "./my model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"xpus": ()}, "--xpus missing"),
        ({"base": {"model": "llama-3.1-8b"}}, "--goodput missing"),
        ({"attainment": 0.0}, "--attainment 0"),
        ({"attainment": 1.5}, "--attainment 1.5"),
        ({"tolerance": 0.0}, "--tolerance 0"),
        ({"base": {**BASE, "workload": {"max_concurrency": 4}}}, "needs one rate of an open load"),
    ],
)
def test_a_wrong_request_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        request(**changes)


PLAN = [
    "plan",
    "--model",
    "llama-3.1-8b",
    "--xpus",
    "h100,l40s",
    "--max-xpus",
    "2",
    "--tp",
    "1,2",
    "--pp",
    "1",
    "--num-prompts",
    "200",
    "--random-input-len",
    "512",
    "--random-output-len",
    "32",
    "--goodput",
    "ttft:500",
    "tpot:30",
]


def test_the_command_writes_and_prints_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "plan.json"
    words = [*PLAN, "--request-rate", "20", "--output", str(output)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    data = json.loads(output.read_text())
    assert set(data) >= {"best", "candidates", "pareto", "commands"}
    best = data["best"]
    assert best["verdict"] == "meets"
    assert best["metrics"]["attained"] >= 0.99
    assert best["count"] in out
    assert best["knobs"]
    assert data["commands"][1] in out
    cheaper = [
        each
        for each in data["candidates"]
        if each["verdict"] == "meets"
        and each["cost"]["usd_per_hour"] < best["cost"]["usd_per_hour"]
    ]
    assert cheaper == []
    again = simulate(SimulatorConfig.from_dict(best["config"]))
    assert again.summary()["slo_attainment"] >= 0.99
    for front in data["pareto"].values():
        assert best["candidate"] in front or front
    assert all(each["reason"] for each in data["candidates"] if each["verdict"] != "meets")
    for heading in ("What binds", "What each knob would change", "Pareto front", "Commands"):
        assert heading in out
    assert "--attainment 0.99 of 400 requests" in err


def test_where_nothing_meets_the_nearest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*PLAN, "--request-rate", "400"]
    assert main(words) == 3
    err = capsys.readouterr().err
    assert "error: nothing meets the objectives" in err
    assert "raise --max-xpus" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--request-rate", "0"], "--request-rate=0"),
        (["--request-rate", "inf"], "--request-rate inf"),
        (["--objective", "costs"], "did you mean 'cost'"),
        (["--modes", "agregated"], "did you mean 'aggregated'"),
        (["--max-num-seqs", "0"], "--max-num-seqs=0"),
        (["--xpus", "h1000"], "unknown accelerator"),
        (["--max-concurrency", "3"], "unknown flag '--max-concurrency'"),
        (["--search-max-num-seqs", "8", "--max-num-seqs", "9"], "both given"),
        (["--tp", "3"], "no candidate is left"),
        (["--output", "/nowhere/plan.json"], "does not exist: create it first"),
    ],
)
def test_bad_input_is_named(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PLAN, *words]) == 2
    assert message in capsys.readouterr().err
