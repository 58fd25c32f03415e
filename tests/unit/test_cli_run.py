"""Whole runs through the command line, with the real core."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_inference_simulator import SimulationInterrupted, SimulatorConfig, simulate
from llm_inference_simulator.cli import main

BASE = ["--model", "llama-7b", "--xpu", "gb10"]
SMALL = [*BASE, "--num-prompts", "50", "--random-input-len", "64", "--random-output-len", "8"]
PROGRAM = [sys.executable, "-m", "llm_inference_simulator"]


def test_the_bare_program_simulates_and_prints_a_plain_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(SMALL) == 0
    out, err = capsys.readouterr()
    assert out.startswith("llama-7b on 1 x gb10\n")
    assert "50 counted: 50 completed" in out
    assert "\x1b" not in out + err
    assert err == ""


def test_run_is_the_default_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    bare = capsys.readouterr().out
    assert main(["run", *SMALL]) == 0
    assert capsys.readouterr().out == bare


def test_outputs_agree_with_one_another(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("r.json", "r.parquet", "r.csv", "s.csv")}
    words = [*SMALL, "--arrival-rate", "5", "--seed", "3", "--quiet"]
    tables = ["--requests-output", str(files["r.csv"]), "--steps-output", str(files["s.csv"])]
    assert main([*words, *tables, "--output", str(files["r.json"]), "--save-detailed"]) == 0
    assert main([*words, "--requests-output", str(files["r.parquet"])]) == 0
    data = json.loads(files["r.json"].read_text())
    with files["r.csv"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    with files["s.csv"].open(newline="") as file:
        steps = list(csv.DictReader(file))
    assert data["completed"] == len(rows) == len(data["ttfts"]) == 50
    assert data["total_output_tokens"] == sum(data["output_lens"]) == 400
    assert data["ttfts"] == pytest.approx([int(row["ttft_ns"]) / 1e9 for row in rows], rel=1e-12)
    assert sum(map(len, data["itls"])) == 350
    assert len(steps) == data["engines"][0]["steps"]
    assert data["mean_itl_ms"] == pytest.approx(sum(map(sum, data["itls"])) / 350 * 1000)
    for ttft, gaps, row in zip(data["ttfts"], data["itls"], rows, strict=True):
        assert ttft + sum(gaps) == pytest.approx(int(row["e2el_ns"]) / 1e9)


def test_the_config_in_a_result_gives_the_same_result(tmp_path: Path) -> None:
    first, second, config = (tmp_path / name for name in ("a.json", "b.json", "config.json"))
    words = ["--arrival-rate", "5", "--max-num-seqs", "8", "--goodput", "ttft:500", "--quiet"]
    assert main([*SMALL, *words, "--output", str(first)]) == 0
    config.write_text(json.dumps(json.loads(first.read_text())["config"]))
    assert main(["--config", str(config), "--quiet", "--output", str(second)]) == 0
    assert first.read_text() == second.read_text()


def test_python_and_the_command_line_agree(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    assert main([*SMALL, "--quiet", "--output", str(output)]) == 0
    workload = {"num_prompts": 50, "random_input_len": 64, "random_output_len": 8}
    config = SimulatorConfig.from_dict({"model": "llama-7b", "xpu": "gb10", "workload": workload})
    told = json.loads(output.read_text())["provenance"]["trace_hash"]
    assert simulate(config).summary()["provenance"]["trace_hash"] == told


def test_warm_up_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--arrival-rate", "5", "--duration", "20", "--warm-up", "6", "--tp", "1"]
    assert main([*BASE, *words, "--random-output-len", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"counted: .* of the warm-up not counted", out)
    assert "measured      6.000 s to" in out


@pytest.mark.parametrize(
    ("condition", "code"), [("completed<50", 0), ("completed<=50", 3), ("p99_ttft_ms>1e9", 0)]
)
def test_fail_on_exits_with_three_when_it_holds(
    condition: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, "--quiet", "--fail-on", condition]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert ("holds" in err) == (code == 3)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    with subprocess.Popen(
        [*PROGRAM, *SMALL], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0
    assert err == ""


def interrupted(words: list[str], after_s: float) -> tuple[str, float]:
    """Run, press Ctrl-C after ``after_s`` seconds; what stderr says and how long the end took."""
    with subprocess.Popen([*PROGRAM, *BASE, *words], stderr=subprocess.PIPE, text=True) as process:
        time.sleep(after_s)
        assert process.poll() is None, "the run was too short to interrupt"
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        err = process.stderr.read()
        process.wait(timeout=30)
        took = time.monotonic() - sent
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    return err, took


def test_ctrl_c_stops_a_run_of_millions_of_requests_within_a_second() -> None:
    words = ["--num-prompts", "10000000", "--arrival-rate", "5"]
    err, took = interrupted([*words, "--num-gpu-blocks-override", "9000"], 5)
    assert "of 10000000 requests" in err
    assert took < 1


def test_ctrl_c_keeps_what_was_finished(tmp_path: Path) -> None:
    output = tmp_path / "r.json"
    # A thousand million decode steps of single requests: long for any core, small in memory.
    words = ["--num-prompts", "500000", "--arrival-rate", "0.002", "--output", str(output)]
    _, took = interrupted([*words, "--random-input-len", "16", "--random-output-len", "2000"], 2.5)
    assert took < 2  # the loop stops at once; fifty million steps are summed up for the file
    data = json.loads(output.read_text())
    assert data["complete"] is False
    assert 0 < data["completed"] < 500_000


def test_prompts_that_can_never_run_are_rejected_and_counted(tmp_path: Path) -> None:
    """As vLLM answers them: longer than the context, or empty; the rest runs."""
    lengths = [(3000, 5), (620, 5), (619, 5), (100, 5), (10, 0)]
    rows = [
        {"timestamp": ms, "input_length": prompt, "output_length": output}
        for ms, (prompt, output) in enumerate(lengths)
    ]
    trace, output = tmp_path / "t.jsonl", tmp_path / "r.json"
    trace.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    cache = ["--num-gpu-blocks-override", "40", "--max-model-len", "620"]
    assert main([*BASE, "--trace", str(trace), *cache, "--quiet", "--output", str(output)]) == 0
    data = json.loads(output.read_text(encoding="utf-8"))
    assert (data["completed"], data["failed"]) == (2, 3)
    assert data["total_output_tokens"] == 1 + 5  # 619 + 1 tokens reach the context
    assert any("2 with a prompt of max_model_len=620" in warning for warning in data["warnings"])


def test_requests_larger_than_the_whole_cache_are_rejected_and_counted(tmp_path: Path) -> None:
    """39 usable blocks of 16 hold 624 tokens; the default prompt alone has 1,024."""
    output = tmp_path / "r.json"
    cache = ["--num-gpu-blocks-override", "40", "--max-model-len", "2000", "--num-prompts", "50"]
    assert main([*BASE, *cache, "--quiet", "--output", str(output)]) == 0
    data = json.loads(output.read_text(encoding="utf-8"))
    assert (data["completed"], data["failed"]) == (0, 50)
    assert any("larger than the whole KV cache" in warning for warning in data["warnings"])


def test_interrupting_python_gives_the_partial_result() -> None:
    workload = {"num_prompts": 2000, "request_rate": 2.0}
    config = SimulatorConfig.from_dict({"model": "llama-7b", "xpu": "gb10", "workload": workload})

    def interrupt(progress: object) -> None:
        if getattr(progress, "answered", 0) > 10:
            raise KeyboardInterrupt

    with pytest.raises(SimulationInterrupted) as caught:
        simulate(config, progress=interrupt)
    partial = caught.value.result
    assert not partial.complete
    assert 10 < partial.summary()["completed"] < 2000
    assert any("interrupted" in warning for warning in partial.warnings)


def test_an_overloaded_engine_is_reported_and_a_light_load_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [*BASE, "--num-prompts", "400", "--random-output-len", "32", "--max-num-seqs", "2"]
    assert main([*words, "--arrival-rate", "50", "--quiet"]) == 0
    assert "warning: saturated" in capsys.readouterr().err
    assert main([*words, "--arrival-rate", "0.05", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_thousand_requests_take_a_second_at_most() -> None:
    started = time.monotonic()
    subprocess.run([*PROGRAM, *BASE, "--arrival-rate", "5"], check=True, capture_output=True)
    took = time.monotonic() - started
    assert took < 3  # the goal is one second; a loaded machine gets the rest
