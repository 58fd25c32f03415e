"""Engines that die, drain and scale; requests that are refused or given up: from file to result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import ConfigError


def config(fleet: dict[str, Any], **changes: Any) -> SimulatorConfig:
    data: dict[str, Any] = {
        "model": "llama-7b",
        "xpu": "h100-sxm",
        "cluster": {"data_parallel_size": 2},
        "workload": {"num_prompts": 200, "request_rate": 20.0},
        "fleet": fleet,
    }
    return SimulatorConfig.from_dict(data | changes)


DEATH = ({"at_s": 3.0, "engine": 0, "change": "fail"},)


def test_a_dead_engine_s_requests_fail_or_go_elsewhere() -> None:
    lost = simulate(config({"events": DEATH})).summary()
    retried = simulate(config({"events": DEATH, "max_retries": 1}))
    assert lost["failed"] == lost["failures"]["lost_with_engine"] > 0
    assert lost["completed"] + lost["failed"] == 200
    summary = retried.summary()
    assert summary["completed"] == 200
    assert summary["failures"]["retries"] == lost["failed"]
    again = retried.requests["retries"] == 1
    assert set(retried.requests["engine"][again]) == {1}
    late = retried.requests["arrival_ns"] >= 3_000_000_000
    assert set(retried.requests["engine"][late]) == {1}


def test_an_engine_comes_back_after_its_cold_start() -> None:
    back = ({"at_s": 3.0, "engine": 0, "change": "fail", "back_after_s": 2.0},)
    requests = simulate(config({"events": back})).requests
    on_zero = requests["arrival_ns"][requests["engine"] == 0] / 1e9
    assert not ((on_zero > 3.0) & (on_zero < 5.0)).any()
    assert (on_zero > 5.0).any()


def test_a_drained_engine_finishes_what_it_has() -> None:
    drain = ({"at_s": 3.0, "engine": 0, "change": "drain"},)
    result = simulate(config({"events": drain}))
    assert result.summary()["completed"] == 200
    on_zero = result.requests["engine"] == 0
    assert result.requests["arrival_ns"][on_zero].max() < 3_000_000_000
    assert result.requests["finished_ns"][on_zero].max() > 3_000_000_000


def test_autoscaling_follows_the_load() -> None:
    scaling = {"min_engines": 1, "interval_s": 0.5, "start_above": 2, "startup_s": 1.0}
    loaded = {
        "cluster": {"data_parallel_size": 8},
        "engine": {"max_num_seqs": 4},
        "workload": {"num_prompts": 400, "request_rate": 25.0},
    }
    result = simulate(config({"autoscaling": scaling}, **loaded))
    used = np.unique(result.requests["engine"])
    assert 2 < len(used) <= 8
    early = result.requests["arrival_ns"] < 1_500_000_000  # a look and a start at the least
    assert set(result.requests["engine"][early]) == {0}
    alone = simulate(config({}, **(loaded | {"cluster": {"data_parallel_size": 1}})))
    assert result.summary()["p90_ttft_ms"] < alone.summary()["p90_ttft_ms"] / 2


def test_flags_bound_the_queue_and_the_patience(tmp_path: Path) -> None:
    output = tmp_path / "x.json"
    words = "--model llama-7b --xpu h100-sxm --max-num-seqs 4 --request-rate 50 --num-prompts 300"
    bounds = f"--max-queue 3 --request-timeout 1.5 --quiet --save-detailed --output {output}"
    assert main([*words.split(), *bounds.split()]) == 0
    summary = json.loads(output.read_text())
    failures = summary["failures"]
    assert failures["rejected"] > 0
    assert any("queue of their engine full" in warning for warning in summary["warnings"])
    assert failures["timed_out"] > 0
    assert failures["rejected"] + failures["timed_out"] == summary["failed"]
    assert summary["completed"] + summary["failed"] == 300
    assert set(summary["errors"]) == {"", "rejected", "timed out"}


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        ({"events": ({"at_s": 1.0, "engine": 2, "change": "fail"},)}, "engines 0 to 1"),
        ({"events": ({"at_s": 1.0, "engine": 0, "change": "die"},)}, "'fail', 'drain' or 'up'"),
        ({"autoscaling": {"min_engines": 3}}, "exceeds the cluster's 2 engines"),
        (
            {"events": ({"at_s": 1.0, "engine": 0, "change": "up", "back_after_s": 1.0},)},
            "leave it",
        ),
        ({"max_queu": 3}, "did you mean 'max_queue'"),
    ],
)
def test_impossible_changes_are_refused(fleet: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(fleet)


TWO_AND_TWO: dict[str, Any] = {
    "cluster": {
        "pools": (
            {"name": "prefill", "role": "prefill", "n_engines": 2},
            {"name": "decode", "role": "decode", "n_engines": 2},
        )
    },
    "transfer": {"bandwidth_gb_s": 2.0},
}


@pytest.mark.parametrize("mode", ["after_prefill", "layerwise"])
@pytest.mark.parametrize("engine", [0, 2])
def test_either_side_of_a_disaggregated_cluster_may_die(engine: int, mode: str) -> None:
    events = ({"at_s": 3.0, "engine": engine, "change": "fail", "back_after_s": 2.0},)
    changes = TWO_AND_TWO | {"transfer": {"bandwidth_gb_s": 2.0, "mode": mode}}
    lost = simulate(config({"events": events}, **changes)).summary()
    retried = simulate(config({"events": events, "max_retries": 1}, **changes))
    assert lost["failed"] == lost["failures"]["lost_with_engine"] > 0
    assert lost["completed"] + lost["failed"] == 200
    assert retried.summary()["completed"] == 200
    again = retried.requests["retries"] == 1
    assert again.sum() == lost["failed"]
    # In the two seconds the other engine of its side has all.
    column = "prefill_engine" if engine == 0 else "engine"
    inside = (retried.requests["arrival_ns"] > 3.1e9) & (retried.requests["arrival_ns"] < 4.5e9)
    assert set(retried.requests[column][inside]) == {1 if engine == 0 else 3}
    moved = retried.requests["transfer_end_ns"] - retried.requests["transfer_start_ns"]
    assert (moved >= 0).all()


def test_a_request_waits_in_its_prefill_engine_for_a_decode_engine() -> None:
    away = tuple(
        {"at_s": 2.0, "engine": engine, "change": "drain", "back_after_s": 3.0} for engine in (2, 3)
    )
    requests = simulate(config({"events": away}, **TWO_AND_TWO)).requests
    assert (requests["status"] == 1).all()
    first, second = requests["first_token_ns"], requests["second_token_ns"]
    waited = (first > 2.2e9) & (first < 4.8e9)
    assert waited.any()
    assert (second[waited] > 5e9).all()


def test_timeouts_and_autoscaling_reach_both_sides() -> None:
    scaling = {"min_engines": 1, "interval_s": 0.5, "start_above": 2, "startup_s": 0.5}
    slow = {"engine": {"max_num_seqs": 4}, "workload": {"num_prompts": 300, "request_rate": 40.0}}
    result = simulate(
        config({"autoscaling": scaling, "request_timeout_s": 4.0}, **(TWO_AND_TWO | slow))
    )
    summary = result.summary()
    assert summary["failures"]["timed_out"] > 0
    assert summary["completed"] + summary["failed"] == 300
    assert set(result.requests["engine"]) >= {2, 3}
    # A look and a start at the least.
    sent = result.requests["transfer_start_ns"]
    assert set(result.requests["engine"][(sent > 0) & (sent < 1.0e9)]) == {2}
    with pytest.raises(ConfigError, match="exceeds the cluster's 2 prefill engines"):
        config({"autoscaling": {"min_engines": 3}}, **TWO_AND_TWO)


def test_decisions_of_requests_that_leave_early_are_not_recorded() -> None:
    with pytest.raises(ConfigError, match="leave early"):
        simulate(config({"max_queue": 3}), record_decisions=True)
