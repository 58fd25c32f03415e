"""Disaggregated serving from the command line and from a file to the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import ConfigError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
POOLS: list[dict[str, Any]] = [{"role": "prefill"}, {"role": "decode"}]


def config(**changes: Any) -> SimulatorConfig:
    data: dict[str, Any] = {
        "model": "llama-7b",
        "xpu": "h100-sxm",
        "cluster": {"pools": POOLS},
        "transfer": {"bandwidth_gb_s": 50.0},
        "workload": {"num_prompts": 40, "request_rate": 10.0},
    }
    return SimulatorConfig.from_dict(data | changes)


def test_flags_make_a_prefill_and_a_decode_pool(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    words = (
        "--model llama2-70b --disaggregated --prefill-xpu a100-80gb --prefill-n-xpus 4 "
        "--prefill-tp 4 --decode-xpu mi300x --decode-n-xpus 8 --decode-tp 8 "
        "--transfer-bandwidth 400 --transfer-latency 1 --arrival-rate 5 --duration 20 "
        f"--warm-up 5 --quiet --output {output}"
    )
    assert main(words.split()) == 0
    summary = json.loads(output.read_text())
    prefill, decode = summary["pools"]
    assert (prefill["name"], prefill["xpu"], prefill["n_xpus"]) == ("prefill", "a100-80-sxm", 4)
    assert (decode["role"], decode["xpu"], decode["tensor_parallel_size"]) == (
        "decode",
        "mi300x",
        8,
    )
    transfer = summary["kv_transfer"]
    assert transfer["transfers"] == summary["completed"]
    # 80 layers x 8 heads x 128 x (key + value) x 2 bytes of 1,024 prompt tokens each.
    assert transfer["bytes"] == summary["completed"] * 1024 * 80 * 8 * 128 * 2 * 2
    # 1 ms, and 335.5 MB at 400 GB/s, at least.
    assert transfer["mean_transfer_ms"] >= 1 + 1024 * 327_680 / 400e9 * 1e3
    again = SimulatorConfig.from_dict(summary["config"])
    assert again.cluster.pools[1].role == "decode"


def test_the_first_token_needs_no_transfer_and_the_second_does() -> None:
    result = simulate(config(transfer={"bandwidth_gb_s": 1.0, "latency_ms": 5.0}))
    requests = result.requests
    sent_ns = 1024 * 524_288  # bytes at one a nanosecond
    assert (requests["ttft_ns"] < sent_ns).any()
    assert (
        requests["transfer_end_ns"] - requests["transfer_start_ns"] >= sent_ns + 5_000_000
    ).all()
    assert (requests["second_token_ns"] > requests["transfer_end_ns"]).all()
    assert set(requests["prefill_engine"]) == {0}
    assert set(requests["engine"]) == {1}


def test_layers_sent_early_end_sooner_after_the_first_token() -> None:
    def waits(mode: str) -> Any:
        result = simulate(config(transfer={"bandwidth_gb_s": 20.0, "mode": mode}))
        return result.requests["transfer_end_ns"] - result.requests["first_token_ns"]

    after, early = waits("after_prefill"), waits("layerwise")
    assert early.mean() < after.mean() / 2
    assert (early > 0).all()  # the last layer comes after the step


def test_one_token_needs_no_decode_engine() -> None:
    result = simulate(config(workload={"num_prompts": 5, "random_output_len": 1}))
    assert result.summary()["kv_transfer"]["transfers"] == 0
    assert result.summary()["kv_transfer"]["mean_transfer_ms"] is None
    assert set(result.requests["engine"]) == {0}


def test_the_example_of_ten_pools_runs() -> None:
    example = SimulatorConfig.from_file(EXAMPLES / "ten_pools.yaml")
    result = simulate(example)
    summary = result.summary()
    assert len(summary["pools"]) == 10
    assert summary["completed"] == summary["measurement"]["counted"] > 2000
    assert all(pool["requests"] for pool in summary["pools"])
    routed = np.bincount(result.requests["prefill_engine"]).sum()
    assert routed == len(result.requests["engine"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cluster": {"pools": [{"role": "prefill"}]}}, "the role prefill"),
        ({"cluster": {"pools": [*POOLS, {}]}}, "aggregated and decode and prefill"),
        ({"transfer": {}}, r"transfer\.bandwidth_gb_s is missing"),
        ({"cluster": {}}, "there are none"),
        ({"engine": {"batching_strategy": "static"}}, "batch continuously"),
        ({"transfer": {"bandwidth_gb_s": 1.0, "mode": "early"}}, r"transfer\.mode='early'"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_unequal_formats_and_recorded_decisions_are_refused() -> None:
    pools = [{"role": "prefill"}, {"role": "decode", "engine": {"kv_cache_dtype": "fp8"}}]
    with pytest.raises(ConfigError, match=r"pool0 524288, pool1 262144.* one kv_cache_dtype"):
        simulate(config(cluster={"pools": pools}))
    with pytest.raises(ConfigError, match="know no transfers"):
        simulate(config(), record_decisions=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--prefill-tp 2", "--prefill-tp describes engines of a disaggregated cluster"),
        ("--disaggregated --transfer-bandwidth 9 --tp 2", "--tp describes engines of one kind"),
        (
            "--disaggregated --transfer-bandwidth 9 --decode-n-xpus 3 --decode-tp 4",
            "--decode-n-xpus=3 do not hold an engine of --decode-tp=4",
        ),
        ("--disaggregated --transfer-bandwidth 9 --decode-xpu foo", "pool decode: unknown"),
    ],
)
def test_messages_speak_of_the_flags(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "llama-7b", "--xpu", "h100-sxm", *words.split()]) == 2
    assert message in capsys.readouterr().err
