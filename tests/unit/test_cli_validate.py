"""`validate` on the command line: table, JSON, exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from tests.unit.test_validation import bench, calibration, record, write


def test_the_table_has_every_run_and_the_summaries(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [{"e2e_mean": 50.0}, {"e2e_mean": 64.0}]
    file = write(tmp_path, [record(measured_ms_by_stage=stages), record(id="two")])
    output = tmp_path / "result.json"
    performance = calibration(tmp_path, {"fitted_runs": ["two"]})
    words = ["--calibration-data", str(performance.calibration_data), "--output", str(output)]
    assert main(["validate", str(file), *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar in a pipe
    assert "one: qwen2.5-7b on 1 x h100-sxm, chat\n" in out
    assert "two: qwen2.5-7b on 1 x h100-sxm, chat, used for fitting\n" in out
    for part in ("6.5/s measured", "(1 runs)", "no measure of accuracy", "workload, |error| %"):
        assert part in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("priced")) <= 80
    data: Any = json.loads(output.read_text())
    first, second = data["runs"]
    assert (first["used_for_fitting"], second["used_for_fitting"]) == (False, True)
    errors = first["errors"]["e2e_mean"]
    signed = 100 * (errors["predicted_ms"] / errors["measured_ms"] - 1)
    assert errors["error_percent"] == pytest.approx(signed)
    overall = data["summary"]["held_out"]["overall"]["e2e_mean"]
    assert overall["mean"] == pytest.approx(abs(signed))
    assert data["summary"]["held_out"]["stages"]["e2e_mean"]["count"] == 2
    assert first["config"]["workload"]["rate_stages"] == [[2.0, 30.0], [6.5, 20.0]]


def test_a_run_that_cannot_be_predicted_does_not_hide_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = record(id="big", model="meta-llama/Llama-3.1-405B", num_gpu_blocks=...)
    assert main(["validate", str(write(tmp_path, [big, record()]))]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: run big cannot be predicted: ")
    assert err.count("\n") == 1
    assert "one: qwen2.5-7b" in out
    assert "nothing was fitted to these runs (1 runs)" in out


def test_a_bench_result_takes_its_server_from_the_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path, bench(), "bench_b.json"))
    server = ["--model", "qwen2.5-7b", "--xpu", "h100", "--max-num-seqs", "2"]
    assert main(["validate", file, *server]) == 0
    assert "bench_b: qwen2.5-7b on 1 x h100" in capsys.readouterr().out
    assert main(["validate", file]) == 2
    assert "give --model and --xpu" in capsys.readouterr().err
    assert main(["validate", file, *server[:-1], "0"]) == 2
    assert "bench_b.json: --max-num-seqs=0: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "needs a file of measured runs"),
        (["nowhere.json"], "nowhere.json does not exist"),
        (["{runs}", "--output", "{runs}"], "would overwrite the measurements"),
        (["{runs}", "{runs}"], "run one stands in"),
        (["{runs}", "--request-rate", "5"], "unknown flag '--request-rate'"),
        (["{runs}", "--calibration-data", "nowhere.json"], "nowhere.json does not exist"),
        (["{runs}", "--request-latency-ms", "-1"], "--request-latency-ms=-1.0"),
    ],
)
def test_bad_words_are_refused(
    tmp_path: Path, words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path, [record()]))
    assert main(["validate", *(word.replace("{runs}", file) for word in words)]) == 2
    err = capsys.readouterr().err
    assert part in err
    assert err.count("\n") == 1


DATA = Path(__file__).parents[2] / "benchmark_data"


def test_a_bench_result_has_the_engine_that_the_calibration_was_measured_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, output = DATA / "raw" / "vllm_cpu", tmp_path / "result.json"
    words = ["validate", str(raw / "bench_serve_B.json"), "--xpu", "cpu", "--output", str(output)]
    words += ["--model", str(raw / "model_config.json")]
    words += ["--calibration-data", str(DATA / "calibration" / "vllm_cpu.json")]
    assert main(words) == 0
    (run,) = json.loads(output.read_text())["runs"]
    assert run["config"]["engine"]["max_num_seqs"] == 64
    assert run["config"]["engine"]["async_scheduling"] is False
    # What benchmark_data/README.md and the guide say of this run.
    errors = {name: run["errors"][name]["error_percent"] for name in ("ttft_mean", "itl_mean")}
    assert errors == pytest.approx({"ttft_mean": 5.5, "itl_mean": 6.8}, abs=0.5)
    assert main([*words, "--max-num-seqs", "7"]) == 0
    (run,) = json.loads(output.read_text())["runs"]
    assert run["config"]["engine"]["max_num_seqs"] == 7
    assert run["config"]["engine"]["async_scheduling"] is False
    capsys.readouterr()
