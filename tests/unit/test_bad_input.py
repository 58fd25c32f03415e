"""Every bad input ends with exit code 2 and one message that names field, value and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_inference_simulator.cli import main

MODEL = ["--model", "llama-7b"]
XPU = ["--xpu", "gb10"]
BASE = [*MODEL, *XPU]


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run, demand exit code 2 and a single error on standard error, and return it."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "pydantic" not in err
    return err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        pytest.param([], ["--model and --xpu missing"], id="nothing"),
        pytest.param(XPU, ["--model missing"], id="no model"),
        pytest.param(MODEL, ["--xpu missing"], id="no accelerator"),
        pytest.param(["--model", "lama-7b", *XPU], ["lama-7b", "llama-7b"], id="model"),
        pytest.param([*MODEL, "--xpu", "gb1O"], ["gb1O", "gb10"], id="accelerator"),
        pytest.param(
            [*BASE, "--max-num-sequences", "5"],
            ["unknown flag '--max-num-sequences'", "--max-num-seqs"],
            id="flag",
        ),
        pytest.param(["swep"], ["unknown command 'swep'", "did you mean 'sweep'"], id="command"),
        pytest.param([*BASE, "--router", "round-robin"], ["--router=", "round_robin"], id="router"),
        pytest.param([*BASE, "--dtype", "bf16"], ["--dtype='bf16'", "bfloat16"], id="dtype"),
        pytest.param([*BASE, "--seed", "-1"], ["--seed=-1"], id="seed"),
        pytest.param([*BASE, "--seed"], ["--seed"], id="no value"),
        pytest.param([*BASE, "--num-prompts", "many"], ["--num-prompts", "many"], id="word"),
    ],
)
def test_names(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(words, capsys)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("value", ["-1", "0", "nan", "-inf"])
@pytest.mark.parametrize(
    "flag", ["--arrival-rate", "--request-rate", "--burstiness", "--trace-speedup", "--duration"]
)
def test_rates_must_be_positive(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails([*BASE, flag, value], capsys)
    assert f"{flag}={float(value)}" in message


@pytest.mark.parametrize("value", ["-1", "0"])
@pytest.mark.parametrize(
    "flag",
    [
        "--num-prompts",
        "--random-input-len",
        "--random-output-len",
        "--max-concurrency",
        "--max-num-seqs",
        "--max-num-batched-tokens",
        "--max-model-len",
        "--block-size",
        "--tensor-parallel-size",
        "--data-parallel-size",
        "--n-nodes",
        "--num-gpu-blocks-override",
    ],
)
def test_counts_must_be_positive(flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{flag}={value}: " in fails([*BASE, flag, value], capsys)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--num-prompts", "inf"),
        ("--random-input-len", "nan"),
        ("--random-output-len", "inf"),
        ("--duration", "inf"),
        ("--warm-up", "-1"),
        ("--warm-up", "nan"),
        ("--warm-up", "inf"),
        ("--avg-input-length", "nan"),
        ("--avg-output-length", "inf"),
        ("--gpu-memory-utilization", "1.5"),
        ("--gpu-memory-utilization", "nan"),
        ("--random-range-ratio", "1"),
        ("--metric-percentiles", "101"),
        ("--metric-percentiles", "50,nan"),
        ("--metric-percentiles", "high"),
        ("--batch-window-ms", "inf"),
    ],
)
def test_values_outside_their_range(
    flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = fails([*BASE, flag, value], capsys)
    assert flag in message or flag.removeprefix("--").replace("-", "_") in message


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        pytest.param(["--trace", "t.csv", "--random-input-len", "5"], ["one source"], id="lengths"),
        pytest.param(["--arrival-rate", "5", "--request-rate", "6"], ["same setting"], id="alias"),
        pytest.param(
            ["--rate-stages", "2:30", "--request-rate", "5"],
            ["request_rate=5.0", "rate_stages", "leave one out"],
            id="stages and rate",
        ),
        pytest.param(
            ["--rate-stages", "2:30", "--duration", "5"],
            ["duration=5.0", "rate_stages"],
            id="stages and duration",
        ),
        pytest.param(
            ["--rate-stages", "2:30", "--trace", "azure-conv-2023"],
            ["trace=azure-conv-2023", "rate_stages"],
            id="stages and trace",
        ),
        pytest.param(["--rate-stages", "0:30"], ["every rate is 0"], id="no load"),
        pytest.param(["--rate-stages", "2:-3"], ["--rate-stages=-3.0", "greater"], id="stage"),
        pytest.param(["--rate-stages", "2"], ["'2' is not RATE:SECONDS"], id="stage without end"),
        pytest.param(
            ["--rate-stages", "2:30", "--warm-up", "30"],
            ["warm_up=30.0", "sum of rate_stages=30.0"],
            id="warm-up over stages",
        ),
        pytest.param(
            ["--price-tier", "spot", "--price-per-hour", "3"],
            ["price_tier=spot", "price_per_hour_usd=3.0"],
            id="two prices",
        ),
        pytest.param(["--price-tier", "spot"], ["price_tier=spot", "amortised"], id="tier"),
        pytest.param(["--duration", "5"], ["duration", "request_rate"], id="endless"),
        pytest.param(
            ["--arrival-rate", "5", "--duration", "5", "--warm-up", "6"],
            ["warm_up", "duration"],
            id="all warm-up",
        ),
        pytest.param(
            ["--num-prompts", "10", "--arrival-rate", "5", "--warm-up", "600"],
            ["warm_up=600 s excludes every request"],
            id="short load",
        ),
        pytest.param(
            ["--performance-model", "vllm_roofline"], ["calibration_data"], id="no calibration"
        ),
        pytest.param(
            ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "64"],
            ["max_num_batched_tokens=64", "chunked prefill"],
            id="chunks",
        ),
        pytest.param(["--tp", "4", "--n-xpus-per-node", "2"], ["tensor_parallel_size=4"], id="tp"),
        pytest.param(
            ["--dp", "3", "--n-xpus-per-node", "2"], ["data_parallel_size=3", "at most 2"], id="dp"
        ),
        pytest.param(["--tp", "3"], ["3", "heads"], id="heads"),
        pytest.param(["--goodput", "ttft"], ["NAME:MILLISECONDS"], id="goodput"),
        pytest.param(["--goodput", "tfft:5"], ["'tfft'", "'ttft'"], id="goodput metric"),
        pytest.param(["--fail-on", "p99_ttft_ms"], ["METRIC OPERATOR NUMBER"], id="fail-on"),
        pytest.param(["--fail-on", "p99_tfft_ms>5"], ["'p99_ttft_ms'"], id="fail-on metric"),
        pytest.param(["--save-detailed"], ["--output"], id="detailed"),
        pytest.param(["--goodput", "ttft:-1"], ["error: --goodput ttft=-1.0: "], id="objective"),
        pytest.param(
            ["--metric-percentiles", "50,101"],
            ["error: --metric-percentiles=101.0: "],
            id="percentile",
        ),
    ],
)
def test_conflicts(words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    message = fails([*BASE, *words], capsys)
    for part in parts:
        assert part in message


def test_outputs_are_checked_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_nothing(*_args: object, **_options: object) -> None:
        raise AssertionError("the run began")

    monkeypatch.setattr("llm_inference_simulator.cli.run.simulate", run_nothing)
    (tmp_path / "config.yaml").write_text("model: llama-7b\nxpu: gb10\n")
    table, config = str(tmp_path / "t.csv"), str(tmp_path / "config.yaml")
    same_table = str(tmp_path / "." / "t.csv")
    for words, part in (
        (["--output", str(tmp_path)], "is a folder"),
        (["--output", str(tmp_path / "no" / "r.json")], "does not exist"),
        (["--output", "/proc/r.json"], "cannot be written"),
        (["--requests-output", str(tmp_path / "r.xlsx")], ".parquet or .csv"),
        (["--steps-output", str(tmp_path / "steps")], ".parquet or .csv"),
        (
            ["--requests-output", table, "--steps-output", same_table],
            "name the same file",
        ),
        (
            ["--config", config, "--output", config],
            "--config and --output name the same file",
        ),
    ):
        assert part in fails([*BASE, *words], capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: llama-7b\nxpu: gb10\nengin: {}\n", ["'engin'", "did you mean 'engine'"]),
        (
            "model: llama-7b\nxpu: gb10\nengine: {max_seqs: 4}\n",
            ["engine.max_seqs", "max_num_seqs"],
        ),
        ("model: llama-7b\nxpu: gb10\nworkload: null\n", ["workload"]),
        ("model: llama-7b\nxpu: gb10\nseed: null\n", ["seed=None"]),
        ("model: llama-7b\nxpu: gb10\nengine: {max_num_seqs: '4'}\n", ["max_num_seqs='4'"]),
        ("model: llama-7b\nxpu: gb10\nworkload: {request_rate: .nan}\n", ["request_rate=nan"]),
        ("model: llama-7b\nmodel: llama-7b\n", ["'model' stands twice"]),
        ("model: [\n", ["not valid YAML", "line"]),
        ("", ["holds nothing"]),
        ("- a\n", ["a list"]),
    ],
)
def test_configuration_files(
    text: str, parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    message = fails(["--config", str(file)], capsys)
    assert "config.yaml" in message
    for part in parts:
        assert part in message


def test_unreadable_configuration_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in fails(["--config", str(tmp_path / "none.yaml")], capsys)
    assert "is a folder" in fails(["--config", str(tmp_path)], capsys)
    (tmp_path / "latin.yaml").write_bytes(b"model: caf\xe9\n")
    assert "not UTF-8" in fails(["--config", str(tmp_path / "latin.yaml")], capsys)
