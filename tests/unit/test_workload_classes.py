"""Classes of requests: merged loads, and results of each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload_config import WorkloadConfig

COLUMNS = ("arrival_ns", "prompt_tokens", "output_tokens", "priority", "after", "think_ns")


def build(seed: int = 5, /, **fields: Any) -> Workload:
    return build_workload(WorkloadConfig.parse(fields), seed)


def as_lists(workload: Workload, block_size: int = 16) -> dict[str, Any]:
    columns = {name: getattr(workload, name) for name in COLUMNS}
    lists = {name: None if each is None else each.tolist() for name, each in columns.items()}
    if workload.segments is not None:
        offsets, ids = workload.segments.blocks(block_size)
        _, first, number = np.unique(ids, return_index=True, return_inverse=True)
        lists |= {"offsets": offsets.tolist(), "ids": first[number].tolist()}
    return lists | {"duration_ns": workload.duration_ns, "warnings": len(workload.warnings)}


LOADS: list[dict[str, Any]] = [
    {"num_prompts": 50},
    {"request_rate": 20.0, "duration": 10.0, "burstiness": 0.5},
    {"rate_stages": ((5.0, 10.0), (20.0, 5.0)), "num_prompts": 100},
    {
        "rate_schedule": {"kind": "ramp", "from_rate": 1.0, "to_rate": 9.0, "seconds": 20.0},
    },
]
KINDS: list[dict[str, Any]] = [
    {"random_input_len": 300, "random_range_ratio": 0.5},
    {"avg_input_length": 200.0, "random_prefix_len": 64, "random_num_prefixes": 3},
    {"session_turns": 3, "think_time": 1.0, "random_prefix_len": 32},
    {"lengths_from": "azure-conv-2023"},
]


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_class_is_the_workload_without_classes(
    load: dict[str, Any], kind: dict[str, Any]
) -> None:
    plain = as_lists(build(**load, **kind))
    assert as_lists(build(**load, classes=({"name": "all", "share": 3.0, **kind},))) == plain
    assert as_lists(build(classes=({"name": "all", **load, **kind},))) == plain


def test_shares_divide_counts_and_rates() -> None:
    classes = (
        {"name": "chat", "share": 0.5, "random_input_len": 100, "priority": 1},
        {"name": "code", "share": 0.3, "random_input_len": 200},
        {"name": "batch", "share": 0.2, "random_input_len": 300, "priority": 9},
    )
    workload = build(num_prompts=9, request_rate=3.0, classes=classes)
    # 4.5, 2.7 and 1.8: the largest remainders are rounded up.
    assert np.bincount(workload.prompt_tokens).nonzero()[0].tolist() == [100, 200, 300]
    assert workload.class_index is not None
    assert np.bincount(workload.class_index).tolist() == [4, 3, 2]
    assert workload.priority is not None
    assert set(zip(workload.class_index, workload.priority, strict=True)) == {
        (0, 1),
        (1, 0),
        (2, 9),
    }
    assert (np.diff(workload.arrival_ns) >= 0).all()
    timed = build(request_rate=100.0, duration=200.0, classes=classes)
    assert timed.class_index is not None
    for index, share in enumerate((0.5, 0.3, 0.2)):
        expected = 100 * 200 * share
        assert abs(int((timed.class_index == index).sum()) - expected) < 5 * expected**0.5


def test_classes_share_nothing_and_wait_for_their_own() -> None:
    sessions = {"session_turns": 4, "random_input_len": 64, "random_output_len": 16}
    workload = build(
        classes=(
            {"name": "a", "request_rate": 4.0, "num_prompts": 40, "random_prefix_len": 64},
            {"name": "b", "request_rate": 9.0, "num_prompts": 80, "random_prefix_len": 64}
            | sessions,
            {"name": "c", "trace": "azure-conv-2023", "num_prompts": 30},
        )
    )
    assert workload.class_index is not None
    assert workload.after is not None
    assert workload.segments is not None
    later = np.flatnonzero(workload.after >= 0)
    assert len(later) == 60
    assert (workload.class_index[later] == 1).all()
    assert (workload.class_index[workload.after[later]] == 1).all()
    grown = workload.prompt_tokens[later] - workload.prompt_tokens[workload.after[later]]
    assert set(grown.tolist()) == {64 + 16}
    offsets, ids = workload.segments.blocks(16)
    names = [
        {
            int(name)
            for row in np.flatnonzero(workload.class_index == index)
            for name in ids[offsets[row] : offsets[row + 1]]
        }
        for index in range(3)
    ]
    assert len(names[0]) == 4  # the prefix alone
    assert not names[0] & names[1]
    assert not names[2]


def mixture(**changes: Any) -> SimulatorConfig:
    data: dict[str, Any] = {
        "model": "llama-3.1-8b",
        "xpu": "h100-sxm",
        "engine": {"scheduling_policy": "priority"},
        "workload": {
            "request_rate": 30.0,
            "num_prompts": 400,
            "classes": [
                {"name": "chat", "share": 3, "goodput": {"ttft": 600.0, "tpot": 81.0}},
                {"name": "batch", "share": 1, "random_input_len": 4096, "priority": 1},
            ],
        },
        "measurement": {"warm_up": 2.0},
    }
    return SimulatorConfig.from_dict(data | changes)


def test_results_of_each_class_and_goodput_by_its_own_objectives() -> None:
    result = simulate(mixture())
    summary = result.summary()
    chat, batch = summary["classes"]
    rows = result.requests
    counted = rows["arrival_ns"] >= 2 * 10**9
    own = counted & (rows["class_index"] == 0)
    assert (chat["name"], chat["counted"], batch["name"]) == ("chat", int(own.sum()), "batch")
    ttft, tpot = rows["ttft_ns"][own] / 1e6, rows["tpot_ns"][own] / 1e6
    assert chat["p99_ttft_ms"] == pytest.approx(np.percentile(ttft, 99))
    good = int(((ttft <= 600.0) & (tpot <= 81.0)).sum())
    assert 0 < good < own.sum()
    assert chat["slo_attainment"] == good / own.sum()
    assert batch["slo_attainment"] is None
    assert batch["mean_ttft_ms"] > chat["mean_ttft_ms"]
    for key in ("completed", "total_output_tokens", "counted"):
        whole = summary["measurement"]["counted"] if key == "counted" else summary[key]
        assert chat[key] + batch[key] == whole
    assert chat["request_throughput"] + batch["request_throughput"] == pytest.approx(
        summary["request_throughput"]
    )
    # Where a class has no objectives, its answered requests are good.
    everything = good + batch["completed"]
    assert summary["slo_attainment"] == everything / counted.sum()
    assert summary["request_goodput"] == everything / summary["duration"]
    gaps = np.concatenate(
        [gap for gap, mine in zip(result.itls(), own[counted], strict=True) if mine]
    )
    assert chat["mean_itl_ms"] == pytest.approx(gaps.mean() / 1e6)
    assert SimulatorConfig.from_dict(summary["config"]) == result.config


def test_classes_without_objectives_have_those_of_the_measurement() -> None:
    measurement = {"goodput": {"e2el": 2500.0}}
    summary = simulate(mixture(measurement=measurement)).summary()
    chat, batch = summary["classes"]
    assert chat["goodput"] == {"ttft": 600.0, "tpot": 81.0}
    assert batch["goodput"] == {"e2el": 2500.0}
    good = sum(row["slo_attainment"] * row["counted"] for row in (chat, batch))
    assert summary["slo_attainment"] == pytest.approx(good / summary["measurement"]["counted"])


def test_the_example_of_the_guide_is_a_configuration() -> None:
    guide = Path(__file__).parents[2] / "docs" / "guides" / "workloads.md"
    example = re.search(r"```yaml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    config = SimulatorConfig.from_dict(
        {"model": "llama-3.1-8b", "xpu": "h100-sxm", **yaml.safe_load(example[1])}
    )
    workload = build_workload(config.workload, 0)
    assert workload.class_index is not None
    # Shares of 6, 3 and 1 of 12 requests/s in 600 s.
    counts = np.bincount(workload.class_index)
    assert abs(counts - np.array([4320, 2160, 720])).max() < 5 * (4 * 4320) ** 0.5


def test_no_classes_no_keys_of_them() -> None:
    result = simulate(mixture(workload={"num_prompts": 10}, measurement={}))
    assert "classes" not in result.summary()
    assert "class_index" not in result.requests


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"classes": ({"name": "a", "share": 1.0}, {"name": "a", "share": 1.0})},
            "two are named 'a'",
        ),
        ({"classes": ({"name": "a", "share": 1.0}, {"name": "b"})}, "a has a share, b has none"),
        (
            {"classes": ({"name": "a", "share": 1.0, "request_rate": 2.0},)},
            "share=1.0 and request_rate",
        ),
        ({"classes": ({"name": "a", "share": 1.0, "trace": "x"},)}, "share=1.0 and trace"),
        (
            {"random_input_len": 5, "classes": ({"name": "a", "share": 1.0},)},
            "random_input_len=5 describes requests of one kind",
        ),
        (
            {"request_rate": 5.0, "classes": ({"name": "a", "request_rate": 1.0},)},
            "request_rate=5.0 describes requests of one kind",
        ),
        ({"classes": ({"share": 1.0},)}, "classes.0.name is missing"),
        ({"classes": ({"name": "a", "shar": 1.0},)}, "did you mean 'share'"),
    ],
)
def test_contradicting_classes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**fields)


def test_a_class_without_requests_is_named() -> None:
    classes = ({"name": "most", "share": 99.0}, {"name": "few", "share": 1.0})
    with pytest.raises(WorkloadError, match="class few: its share=1 of num_prompts is no request"):
        build(num_prompts=5, classes=classes)
