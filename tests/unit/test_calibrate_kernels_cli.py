"""`calibrate` from kernel tables, end to end: files in, calibration out, and a run on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.calibration import CalibrationFile, load_calibration
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.shipped import open_calibration
from llm_inference_simulator.cli import main
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import OpTablePerformanceModel, VLLMRooflineModel
from tests.unit.test_kernel_profile_rows import ATTENTION, DENSE, PER_SEQUENCE, profile
from tests.unit.test_op_table_rows import attention, gemm, put

MODEL = "llama-3.1-8b"
TOKENS = (1, 16, 128, 1024, 4096)


def op_tables(folder: Path) -> Path:
    """Products at half of the peak or 2.5 TB/s of weights, attention of Llama-3.1-8B's heads."""
    widths = (1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
    rows = [
        gemm(m, n, k, latency=1e3 * max(4 * m * n * k / 989e12, 2 * n * k / 2.5e12))
        for n in widths
        for k in widths[:7]
        for m in TOKENS
    ]
    put(folder, "gemm_perf", rows)
    lengths = (64, 1024, 8192)
    prompts = [
        attention(batch_size=b, isl=n, latency=0.01 + 1e-8 * b * n * n)
        for b in (1, 8)
        for n in lengths
    ]
    put(folder, "context_attention_perf", prompts)
    steps = [
        attention(
            op_name="generation_attention", batch_size=b, isl=1, step=n - 1,
            latency=0.01 + 2e-6 * b * n,
        )
        for b in (1, 64)
        for n in lengths
    ]  # fmt: skip
    put(folder, "generation_attention_perf", steps)
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def simulated(
    capsys: pytest.CaptureFixture[str], xpu: str, calibration: Path, result: Path
) -> dict[str, Any]:
    words = ["--model", MODEL, "--xpu", xpu, "--num-prompts", "4", "--quiet", "--output", result]
    words += ["--max-model-len", "8192"]
    code, _, err = run(capsys, *words, "--calibration-data", calibration)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


@pytest.mark.parametrize("name", ["kernels.json", "kernels.json.gz"])
def test_op_tables_become_a_calibration_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder, output = op_tables(tmp_path / "tables"), tmp_path / name
    words = ["calibrate", "--xpu", "H100", "--from-op-tables", folder, "--output", output]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    points = 8 * 7 * len(TOKENS) + 6 + 6
    assert out == f"h100-sxm: {points} points in 3 tables\nwrote {output}\n"
    read = KernelCalibration.read(output)
    assert read.tables.points == points
    assert read.provenance["versions"]["gemm_perf"] == "0.24.0"
    assert set(read.provenance["files_sha256"]) == {
        f"kind/vllm/0.24.0/{kernel}_perf.parquet"
        for kernel in ("gemm", "context_attention", "generation_attention")
    }
    result = simulated(capsys, "h100-sxm", output, tmp_path / "result.json")
    assert result["completed"] == 4
    assert result["provenance"]["calibration_file"] == str(output)
    # One product of 4,096 x 4,096 at half of 989 TFLOPS, and 10 us plus 2 ns a key and layer.
    model = OpTablePerformanceModel(MODEL, "h100", calibration=read)
    parts = model.breakdown_decode(64, 1024)
    assert parts["attention_decode"].seconds == pytest.approx(
        32 * (10e-6 + 2e-9 * 64 * 1024), rel=0.01
    )
    parts = model.breakdown_prefill(1, 4096)
    assert parts["output_projection"].seconds == pytest.approx(
        32 * 2 * 2 * 4096**3 / 989e12, rel=0.01
    )
    assert (parts["output_projection"].provenance, read.front_end) == ("measured", None)


def test_json_prints_kernel_tables_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, output = op_tables(tmp_path / "tables"), tmp_path / "kernels.json"
    words = ["calibrate", "--xpu", "h100", "--from-op-tables", folder, "--output", output, "--json"]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(output.read_text())


def test_profiles_become_a_calibration_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "profiles", tmp_path / "kernels.json"
    layers = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    dense = [f"{layer},{m},{max(100, 8 * m)}\n" for layer in layers for m in TOKENS]
    profile(folder, "dense.csv", DENSE + "".join(dense))
    lengths = (64, 1024, 8192)
    chunks = [f"{n},0,0,0,{10 + n * n / 1e4}\n" for n in lengths]
    steps = [f"0,0,{b},{n},{10 + b * n / 250}\n" for b in (1, 64) for n in lengths]
    profile(folder, "attention.csv", ATTENTION + "".join(chunks + steps))
    heads = [f"lm_head,{m},{1100 + 10 * m}\n" for m in TOKENS]
    profile(folder, "per_sequence.csv", PER_SEQUENCE + "".join(heads))
    words = ["calibrate", "--xpu", "rtx-4090", "--from-kernel-profiles", folder]
    code, out, err = run(capsys, *words, "--overheads-from", "h100-sxm", "--output", output)
    assert (code, err) == (0, "")
    assert out.startswith("rtx-4090: 34 points in 3 tables\n")
    read, shipped = KernelCalibration.read(output), open_calibration("h100-sxm")
    assert isinstance(shipped, KernelCalibration)
    assert (read.overheads, read.front_end) == (shipped.overheads, shipped.front_end)
    assert read.provenance["overheads"] == "fitted on runs on h100-sxm"
    model = OpTablePerformanceModel(
        MODEL, "rtx-4090", calibration=read, engine=EngineConfig(max_model_len=4096)
    )
    parts = model.breakdown_decode(64, 1024)
    for name in ("qkv_projection", "output_projection", "mlp_up", "mlp_down"):
        # 8 us a token, on a straight line between 16 and 128.
        assert parts[name].seconds == pytest.approx(32 * 64 * 8e-6, rel=0.01), name
    assert parts["lm_head"].seconds == pytest.approx(1740e-6, rel=0.01)
    assert parts["attention_decode"].seconds == pytest.approx(
        32 * (10 + 64 * 1024 / 250) * 1e-6, rel=0.01
    )


def test_shipped_tables_give_the_rates_of_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rates.json"
    words = ["calibrate", "--calibration-data", "h100-sxm", "--xpu", "h100-sxm", "--model", MODEL]
    code, out, err = run(capsys, *words, "--bootstrap-samples", "20", "--output", output)
    assert (code, err) == (0, "")
    assert "steps held out: " in out
    assert out.endswith(f"wrote {output}\n")
    rates, _ = load_calibration(output)
    assert (rates.model, rates.xpu, rates.quantization) == (MODEL, "h100-sxm", "none")
    shipped = open_calibration("h100-sxm")
    assert isinstance(shipped, KernelCalibration)
    assert rates.front_end == shipped.front_end
    assert rates.provenance["kernels"]["source"] == shipped.provenance["source"]
    derived = VLLMRooflineModel(
        MODEL, "h100", calibration=output, engine=EngineConfig(max_model_len=8192)
    )
    assert derived.warnings == ()
    exact = OpTablePerformanceModel(MODEL, "h100", calibration=shipped)
    for batch in (1, 16, 64):
        assert derived.estimate_decode_time(batch, 1024) == pytest.approx(
            exact.estimate_decode_time(batch, 1024), rel=0.10
        ), batch
    result = simulated(capsys, "h100-sxm", output, tmp_path / "result.json")
    assert result["provenance"]["calibration_file"] == str(output)


def test_rates_of_weights_in_four_bits_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rates.json"
    words = ["calibrate", "--calibration-data", "h100-sxm", "--xpu", "h100", "--output", output]
    words += ["--bootstrap-samples", "20", "--model", "gpt-oss-20b"]
    code, _, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert load_calibration(output)[0].quantization == "mxfp4"


def test_op_tables_and_a_model_give_its_rates_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rates.json"
    words = ["calibrate", "--xpu", "h100", "--model", MODEL, "--bootstrap-samples", "20"]
    folder = op_tables(tmp_path / "tables")
    code, out, err = run(capsys, *words, "--from-op-tables", folder, "--output", output)
    assert (code, err) == (0, "")
    assert out.startswith("h100-sxm: ")
    rates, _ = load_calibration(output)
    assert rates.roofline_params.prefill_effective_tflops == pytest.approx(494.5, rel=0.1)
    assert rates.roofline_params.decode_effective_bandwidth_gbps == pytest.approx(2500, rel=0.1)


KERNELS = ["--calibration-data", "h100-sxm"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (KERNELS, "no measurements: give --from-op-tables or "),
        (["--from-op-tables", "{none}"], "is not a folder"),
        (["--from-kernel-profiles", "{none}"], "is not a folder"),
        (["--from-op-tables", "{here}"], "holds no kernel tables"),
        (["--from-kernel-profiles", "{here}"], "holds no profiles"),
        (["--from-op-tables", "{tables}", *KERNELS], "--from-op-tables makes a calibration anew"),
        (
            ["--from-op-tables", "{tables}", "--from-kernel-profiles", "{here}"],
            "--from-kernel-profiles makes a calibration anew",
        ),
        (
            ["--from-op-tables", "{tables}", "--from-steps", "x", "--model", MODEL],
            "--from-steps makes a calibration anew",
        ),
        (["--from-steps", "x"], "--from-steps needs --model"),
        (["--from-bench", "x"], "--from-bench needs --model"),
        (
            ["--from-bench", "x", "--model", MODEL, *KERNELS],
            "--from-bench corrects a calibration for the server",
        ),
        (["--from-runs", "x"], "--from-runs fits what kernel tables do not show"),
        (["--from-runs", "{none}", *KERNELS], "does not exist"),
        (["--from-runs", "x", "--calibration-data", "{rates}"], "--from-runs fits what kernel"),
        (["--calibration-data", "{rates}", "--model", MODEL], "holds the rates of a model already"),
        (["--calibration-data", "h100-smx", "--model", MODEL], "did you mean 'h100-sxm'?"),
        (["--calibration-data", "l40s", "--model", MODEL], "measured on xpu=l40s, not on h100"),
        (["--from-op-tables", "{tables}", "--overheads-from", "h1"], "unknown calibration 'h1'"),
        (["--from-op-tables", "{tables}", "--overheads-from", "{rates}"], "has no overheads"),
        (
            [*KERNELS, "--model", MODEL, "--overheads-from", "l40s"],
            "--overheads-from goes with --from-op-tables or --from-kernel-profiles",
        ),
        (
            ["--from-op-tables", "{tables}", "-tp", "2"],
            "--tensor-parallel-size goes with --from-steps or --from-bench or --model with kernel",
        ),
        (["--from-op-tables", "{tables}", "--dtype", "float16"], "--dtype goes with --from-steps"),
        (["--from-op-tables", "{tables}", "--bootstrap-samples", "50"], "--bootstrap-samples goes"),
        (
            [*KERNELS, "--model", MODEL, "--max-num-seqs", "8"],
            "--max-num-seqs goes with --from-steps or --from-bench: leave it out",
        ),
        ([*KERNELS, "--model", MODEL, "--input-len", "8"], "--input-len goes with --from-bench"),
        (
            ["--from-bench", "x", "--model", "llama-7b", "--calibration-data", "{named}"],
            "--model llama-7b contradicts --calibration-data, which was measured with llama-3.1-8b",
        ),
        (
            ["--from-bench", "x", "--model", MODEL, "--calibration-data", "{elsewhere}"],
            "--xpu h100 contradicts --calibration-data, which was measured on l40s",
        ),
        ([*KERNELS, "--model", "llama-3.1-8c"], "unknown model 'llama-3.1-8c'"),
        ([*KERNELS, "--model", MODEL, "-tp", "3"], "tensor_parallel_size=3"),
    ],
)
def test_wrong_combinations_are_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    rates = CalibrationFile.model_validate(
        {
            "roofline_params": {
                "prefill_effective_tflops": 600.0, "prefill_effective_bandwidth_gbps": 2500.0,
                "decode_effective_tflops": 400.0, "decode_effective_bandwidth_gbps": 2000.0,
            }
        }
    )  # fmt: skip
    rates.write(tmp_path / "rates.json")
    rates.model_copy(update={"model": MODEL}).write(tmp_path / "named.json")
    rates.model_copy(update={"xpu": "l40s"}).write(tmp_path / "elsewhere.json")
    (tmp_path / "here").mkdir()
    if "{tables}" in words:
        op_tables(tmp_path / "tables")
    places = {name: str(tmp_path / name) for name in ("none", "here", "tables")}
    places |= {name: str(tmp_path / f"{name}.json") for name in ("rates", "named", "elsewhere")}
    output = tmp_path / "out.json"
    filled = [word.format(**places) for word in words]
    code, out, err = run(capsys, "calibrate", *filled, "--xpu", "h100", "--output", output)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not output.exists()
