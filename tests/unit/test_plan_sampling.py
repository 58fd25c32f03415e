"""Plans whose candidates Optuna chooses: winner, seeds, bounds, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator import ConfigError
from llm_inference_simulator.cli import main
from llm_inference_simulator.plan import Plan, PlanRequest, make_plan

WORDS = [
    *("plan", "--model", "llama-3.1-8b", "--xpus", "h100,l40s", "--request-rate", "20"),
    *("--max-xpus", "4", "--tp", "1,2", "--pp", "1", "--search-max-num-batched-tokens", "2048"),
    *("--num-prompts", "100", "--random-input-len", "512", "--random-output-len", "16"),
    *("--goodput", "ttft:500", "tpot:30", "--quiet"),
]


def request(**changes: Any) -> PlanRequest:
    settings: dict[str, Any] = {
        "base": {
            "model": "llama-3.1-8b",
            "workload": {"num_prompts": 100, "random_input_len": 512, "random_output_len": 16},
            "measurement": {"goodput": {"ttft": 500.0, "tpot": 30.0}},
        },
        "xpus": ("h100-sxm", "l40s"),
        "request_rate": 20.0,
        "max_xpus": 4,
        "tensor_parallel_sizes": (1, 2),
        "pipeline_parallel_sizes": (1,),
        "settings": {"max_num_batched_tokens": (2048, 8192)},
    }
    return PlanRequest(**(settings | changes))


def sampled(trials: int, seed: int = 0, **changes: Any) -> Plan:
    wanted = request(search="optuna", trials=trials, **changes)
    return make_plan(wanted.only(base={**wanted.base, "seed": seed}), jobs=2)


@pytest.mark.parametrize(("rate", "objective"), [(20.0, "cost"), (60.0, "xpus"), (20.0, "energy")])
def test_enough_trials_name_the_winner_of_simulating_all(rate: float, objective: Any) -> None:
    space: dict[str, Any] = {"request_rate": rate, "objective": objective, "max_xpus": 3}
    everything = make_plan(request(**space), jobs=2)
    found = sampled(1000, **space)
    assert everything.best is not None
    assert found.best == everything.best
    assert found.search.left_out == 0
    assert not any("not all candidates" in warning for warning in found.warnings)
    chosen = [trial.candidate for trial in found.trials]
    assert len(set(chosen)) == len(chosen)


def test_enough_trials_find_the_highest_rate_of_each() -> None:
    few: dict[str, Any] = {"request_rate": None, "max_xpus": 2, "xpus": ("l40s",)}
    everything = make_plan(request(**few, tolerance=0.2), jobs=2)
    found = sampled(1000, **few, tolerance=0.2)
    assert found.best == everything.best
    rates = [{trial.candidate: trial.rate for trial in plan.trials} for plan in (found, everything)]
    assert rates[0] == rates[1]


def test_the_answer_says_how_many_were_simulated() -> None:
    found = sampled(10, max_xpus=6)
    assert len(found.trials) <= 10
    assert found.search.left_out > 0
    assert f"Optuna chose {len(found.trials)}, and {found.search.left_out}" in found.warnings[0]
    data = found.to_dict()
    assert data["not_simulated_because_not_chosen"] == found.search.left_out
    assert data["request"]["search"] == "optuna"


def test_bounds_still_rule_out() -> None:
    everything, found = make_plan(request(), jobs=2), sampled(30)
    assert found.search.pruned == everything.search.pruned
    assert found.search.unneeded > 0  # dearer than the best one at least


def test_a_seed_has_one_answer() -> None:
    def chosen(seed: int, jobs: int) -> list[str]:
        wanted = request(search="optuna", trials=24, max_xpus=8, request_rate=200.0)
        plan = make_plan(wanted.only(base={**wanted.base, "seed": seed}), jobs=jobs)
        return [trial.candidate.count_words for trial in plan.trials]

    first = chosen(0, 1)
    assert chosen(0, 2) == first
    assert chosen(1, 1) != first


def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*WORDS, "--trials", "5"]) == 2
    assert "--trials 5 needs --search optuna" in capsys.readouterr().err
    assert main([*WORDS, "--search", "optune"]) == 2
    assert "optuna" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main([*WORDS, "--search", "optuna"]) == 2
    assert "pip install 'llm-inference-simulator[optuna]'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="sampled searches need optuna"):
        sampled(5)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "plan.json"
    words = [*WORDS, "--search", "optuna", "--trials", "6", "--output", str(output)]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert "warning: not all candidates were simulated: Optuna chose 6" in err
    assert "study" not in err  # Optuna's own log
    data = json.loads(output.read_text())
    assert data["best"]["verdict"] == "meets"


@pytest.mark.parametrize("search", [["exhaustive"], ["optuna", "--trials", "9"]])
def test_ctrl_c_ends_a_plan_and_leaves_no_file(search: list[str], tmp_path: Path) -> None:
    words = [*WORDS, "--num-prompts", "1000000", "--output", str(tmp_path / "plan.json")]
    command = [sys.executable, "-m", "llm_inference_simulator", *words, "--search", *search]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(4)
        assert process.poll() is None, "the plan was too short to interrupt"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
