"""Clusters of several pools: their configuration, their engines, their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.errors import CapacityError, ConfigError

TWO_KINDS: dict[str, Any] = {
    "model": "llama-7b",
    "engine": {"block_size": 32, "max_num_seqs": 64},
    "cluster": {
        "router": "least_outstanding",
        "pools": [
            {"name": "fast", "xpu": "h100-sxm", "n_engines": 2},
            {"name": "slow", "xpu": "a100-80gb", "n_xpus": 2, "engine": {"max_num_seqs": 4}},
        ],
    },
    "workload": {"num_prompts": 60, "request_rate": 40.0},
}


def test_a_pool_has_its_own_accelerator_and_settings_and_inherits_the_rest() -> None:
    config = SimulatorConfig.from_dict(TWO_KINDS)
    fast, slow = config.cluster.named_pools
    assert (fast.size, slow.size, config.cluster.n_engines) == (2, 2, 4)
    assert config.engine_of(fast).max_num_seqs == 64
    assert config.engine_of(slow).max_num_seqs == 4
    assert config.engine_of(slow).block_size == 32
    assert SimulatorConfig.from_dict(config.to_dict()) == config


def test_results_name_the_pool_of_each_engine() -> None:
    result = simulate(SimulatorConfig.from_dict(TWO_KINDS))
    summary = result.summary()
    assert [engine["pool"] for engine in summary["engines"]] == ["fast", "fast", "slow", "slow"]
    routed = np.bincount(result.requests["engine"], minlength=4)
    assert [engine["requests"] for engine in summary["engines"]] == routed.tolist()
    fast, slow = summary["pools"]
    assert fast["requests"] + slow["requests"] == 60
    assert fast["xpu"] != slow["xpu"]
    busy = [engine["busy_s"] for engine in summary["engines"]]
    assert fast["busy_share"] == pytest.approx(sum(busy[:2]) / 2 / summary["utilisation"]["span_s"])


def test_two_pools_of_the_same_kind_are_one_of_twice_the_size() -> None:
    whole = {**TWO_KINDS, "xpu": "h100-sxm", "cluster": {"data_parallel_size": 2}}
    halves = {**whole, "cluster": {"pools": [{}, {}]}}
    one, two = (simulate(SimulatorConfig.from_dict(data)) for data in (whole, halves))
    assert one.trace_hash == two.trace_hash
    assert [pool["name"] for pool in two.summary()["pools"]] == ["pool0", "pool1"]


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"pools": [{"xpus": 1}]}, r"cluster\.pools\.0\.xpus'; did you mean 'xpu'"),
        ({"pools": [{"engine": {"blocks": 1}}]}, r"'cluster\.pools\.0\.engine\.blocks'"),
        ({"pools": [{"n_xpus": 3, "tensor_parallel_size": 4}]}, "at most 0 fit"),
        ({"pools": [{"n_xpus": 4, "n_engines": 5}]}, "do not hold n_engines=5"),
        ({"tensor_parallel_size": 2, "pools": [{}]}, "set each pool's own"),
        ({"pools": [{"name": "a"}, {"name": "a"}]}, "two are named 'a'"),
        ({"pools": [{"n_engines": 99_999}, {"n_engines": 2}]}, "at most 100000"),
    ],
)
def test_bad_pools_are_refused(cluster: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimulatorConfig.from_dict({"model": "llama-7b", "xpu": "gb10", "cluster": cluster})


def test_a_pool_too_small_for_the_model_is_named() -> None:
    cluster = {"pools": [{"name": "big", "xpu": "h200-sxm"}, {"name": "small", "xpu": "l4"}]}
    with pytest.raises(CapacityError, match=r"^pool small: "):
        simulate(SimulatorConfig.from_dict({"model": "llama2-13b", "cluster": cluster}))


def test_shared_prefixes_need_blocks_of_one_size() -> None:
    pools = [{"engine": {"block_size": 16}}, {"engine": {"block_size": 32}}]
    config = SimulatorConfig.from_dict(
        {
            "model": "llama-7b",
            "xpu": "h100-sxm",
            "cluster": {"pools": pools},
            "workload": {"num_prompts": 3, "random_prefix_len": 64},
        }
    )
    with pytest.raises(ConfigError, match="block_size=16 and 32"):
        simulate(config)


def test_decisions_of_unequal_pools_have_their_own_headers(tmp_path: Path) -> None:
    result = simulate(SimulatorConfig.from_dict(TWO_KINDS), record_decisions=True)
    paths = result.write_decisions(tmp_path / "x.jsonl")
    headers = [path.read_text().partition("\n")[0] for path in paths]
    assert ['"max_num_seqs":4,' in header for header in headers] == [False, False, True, True]
