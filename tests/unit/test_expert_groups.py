"""Engines that share experts, from the command line to the result; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator._core import StepShape
from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.cli import main
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.expert_groups import exchange_link
from llm_inference_simulator.performance_models import (
    RooflinePerformanceModel,
    create_performance_model,
)
from llm_inference_simulator.performance_models.base import decode_step, prefill_step
from llm_inference_simulator.pools import resolve_pools

EP = EngineConfig(enable_expert_parallel=True)
QWEN = ["--model", "qwen3-30b-a3b", "--xpu", "h100-sxm", "--num-prompts", "40", "--no-progress"]


def run_command(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    output = tmp_path / "result.json"
    assert main([*QWEN, *arguments, "--output", str(output), "--quiet"]) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def config(**changes: Any) -> SimulatorConfig:
    data: dict[str, Any] = {
        "model": "mixtral-8x7b",
        "xpu": "h100-sxm",
        "cluster": {"data_parallel_size": 4, "tensor_parallel_size": 2},
        "engine": {"enable_expert_parallel": True},
        "workload": {"num_prompts": 40, "request_rate": 4.0},
    }
    return SimulatorConfig.from_dict(data | changes)


def test_the_flags_make_a_group(tmp_path: Path) -> None:
    arguments = ("--dp", "4", "--request-rate", "3")
    grouped = run_command(tmp_path, *arguments, "--enable-expert-parallel")
    replicas = run_command(tmp_path, *arguments)
    together = {engine["steps"] + engine["dummy_steps"] for engine in grouped["engines"]}
    assert len(together) == 1
    assert len({engine["busy_s"] for engine in grouped["engines"]}) == 1
    assert all(engine["dummy_steps"] > 0 for engine in grouped["engines"])
    assert all(engine["dummy_steps"] == 0 for engine in replicas["engines"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("--dp", "1", "--enable-expert-parallel"),
        ("--dp", "2", "--model", "qwen3-8b", "--enable-expert-parallel"),
    ],
)
def test_one_engine_or_no_experts_make_none(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run_command(tmp_path, *arguments, "--request-rate", "3")
    assert all(engine["dummy_steps"] == 0 for engine in result["engines"])


def test_the_summary_counts_dummies(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QWEN, "--dp", "2", "--request-rate", "1", "--enable-expert-parallel"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "dummy steps" in line)
    assert "beside other engines of their group" in line


def test_prefill_and_decode_pools_can_be_groups(tmp_path: Path) -> None:
    result = run_command(
        tmp_path,
        *("--disaggregated", "--prefill-n-xpus", "2", "--decode-n-xpus", "4"),
        *("--transfer-bandwidth", "50", "--request-rate", "6", "--enable-expert-parallel"),
    )
    assert result["completed"] == 40
    for pool in ("prefill", "decode"):
        steps = {
            engine["steps"] + engine["dummy_steps"]
            for engine in result["engines"]
            if engine["pool"] == pool
        }
        assert len(steps) == 1, pool


@pytest.mark.parametrize("performance", ["roofline", "op_table"])
@pytest.mark.parametrize("name", ["mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b"])
def test_experts_follow_from_the_tokens_of_all(name: str, performance: str) -> None:
    """Equal engines cost what a step that stands for all of them costs; idle others cost less."""
    fields = {"performance_model": performance}
    given = SimulatorConfig.from_dict(
        {"model": name, "xpu": "h200-sxm", "performance": fields}
    ).performance
    model = create_performance_model(
        given, name, "h200-sxm", 1, EP, max_model_len=8192, engines=8
    ).cost_model()
    for step in (decode_step(16, 1000), prefill_step(1, 500)):
        tokens = step.prefill_tokens + step.decode_seqs
        alike = model.group_step_ns(step, 8 * tokens)
        assert alike == pytest.approx(model.step_ns(step), abs=2)
        assert model.group_step_ns(step, tokens + 7) < alike
        assert model.group_step_ns(step, 80 * tokens) > alike
    dummy = StepShape(decode_seqs=1, decode_context_tokens=1)
    assert model.group_step_ns(dummy, 8) <= model.group_step_ns(decode_step(1, 1), 8)


def test_groups_do_as_much_work_as_the_roofline_says() -> None:
    """Operations of all engines are those of all tokens, wherever the experts lie."""
    together = simulate(config(performance={"performance_model": "roofline"}))
    model = RooflinePerformanceModel("mixtral-8x7b", "h100-sxm", 2, engine=EP, engines=4)
    parts = {part.name for part in model.cost_model().breakdown(decode_step(1, 1))}
    shared = {own.name for own in model.composition.operations if own.shared}
    assert shared == {"experts_up", "experts_activation", "experts_down"} <= parts
    # 2 of 8 experts, three matrices each, spread over 8 accelerators.
    visit = 2 * 3 * 4096 * 14336 * 32 * 2 / 8
    tokens = sum(e.total.prefill_tokens + e.total.decode_seqs for e in together.engines)
    dummies = sum(e.dummy_steps for e in together.engines)
    least = visit * (tokens + dummies)
    for engine in together.engines:
        own = engine.total.prefill_tokens + engine.total.decode_seqs + engine.dummy_steps
        dense = 2 * 2 * 4096 * (4096 * 2 + 1024 * 2) * 32 / 2  # attention's projections and no more
        assert engine.operations > least + dense / 2 * own


def test_a_group_dies_as_a_whole() -> None:
    death = {"events": [{"at_s": 3.0, "engine": 1, "change": "fail", "back_after_s": 2.0}]}
    result = simulate(config(fleet=death | {"max_retries": 1}))
    assert result.summary()["completed"] == 40
    times, _ = result._tokens.token_times(np.arange(40))
    assert not ((times > 3_000_000_000) & (times < 5_000_000_000)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cluster": {"data_parallel_size": 8, "tensor_parallel_size": 2}},
            r"spreads the 8 routed experts of 'mixtral-8x7b' over 16 accelerators",
        ),
        (
            {"engine": {"enable_expert_parallel": True, "batching_strategy": "static"}},
            r"batching_strategy=static does not go with data_parallel_size=4",
        ),
        (
            {"fleet": {"autoscaling": {"min_engines": 1}}},
            r"fleet\.autoscaling starts and drains single engines",
        ),
        (
            {"cluster": {"n_nodes": 2, "n_xpus_per_node": 4, "tensor_parallel_size": 2}},
            r"over 8 accelerators, of which a node of n_xpus_per_node=4 holds 4, .* "
            r"--inter-node-bandwidth",
        ),
    ],
)
def test_what_a_group_cannot_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate(config(**changes))


def test_decisions_and_other_numbers_of_engines_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--decisions-output: .* engines that step together"):
        simulate(config(), record_decisions=True)
    two = RooflinePerformanceModel("mixtral-8x7b", "h100-sxm", 2, engine=EP, engines=2)
    with pytest.raises(ConfigError, match=r"prices engines=2, but the configuration has engines=4"):
        simulate(config(), performance_model=two)


def test_the_link_between_nodes_carries_what_leaves_them() -> None:
    nodes: dict[str, Any] = {"n_nodes": 2, "n_xpus_per_node": 4, "tensor_parallel_size": 2}
    xpu = load_xpu("h100-sxm")

    def link(**cluster: Any) -> float:
        given = config(cluster=nodes | cluster)
        return exchange_link(given, given.cluster.named_pools[0], xpu).bytes_per_s

    one_node = config()
    inside = exchange_link(one_node, one_node.cluster.named_pools[0], xpu).bytes_per_s
    # Of what an accelerator sends to the 7 others, 4 parts leave its node of 4.
    assert link(inter_node_bandwidth_gb_s=1.0) == pytest.approx(1e9 * 7 / 4)
    assert link(inter_node_bandwidth_gb_s=1e6) == pytest.approx(inside * 7 / 3)


def test_a_slow_link_between_nodes_makes_steps_longer() -> None:
    nodes: dict[str, Any] = {"n_nodes": 2, "n_xpus_per_node": 4, "tensor_parallel_size": 2}
    model = load_model("mixtral-8x7b")

    def step_ns(**cluster: Any) -> int:
        given = config(cluster=nodes | cluster)
        (pool,) = resolve_pools(given, model, None)
        return pool.core.cost_models[0].step_ns(decode_step(64, 500))

    fast, slow = (step_ns(inter_node_bandwidth_gb_s=rate) for rate in (400.0, 10.0))
    # 64 tokens · 2 experts · 4096 · 2 bytes · 7/8 on each of 2 ranks, 4/7 to the other node.
    sent = 64 * 2 * 4096 * 2 * (7 / 8) / 2 * (4 / 7)
    assert slow - fast == pytest.approx(64 * sent / 10, rel=0.2)
