"""`calibrate` end to end on recorded measurements of real vLLM, and what it refuses."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.calibration import CalibrationFile, load_calibration
from llm_inference_simulator.calibration.bench_results import AskedLengths, read_bench_result
from llm_inference_simulator.calibration.step_data import read_step_logs
from llm_inference_simulator.calibrators.from_bench import (
    bench_workload,
    measured_config,
    predict_means,
)
from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.performance_models import VLLMRooflineModel
from llm_inference_simulator.step_sums import STEP_SUMS
from llm_inference_simulator.workload import Workload

DATA = Path(__file__).parents[2] / "benchmark_data" / "raw" / "vllm_cpu"
LOGS = [str(DATA / f"steps_offline_{sweep}.jsonl.gz") for sweep in "ab"]
SUBJECT = ["--model", str(DATA / "model_config.json"), "--xpu", "cpu"]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("calibration") / "calibration.json"
    steps = ["calibrate", "--from-steps", *LOGS, *SUBJECT, "--bootstrap-samples", "20"]
    assert main([*steps, "--output", str(output), "--quiet"]) == 0
    bench = ["calibrate", "--from-bench", str(DATA / "bench_serve_A.json"), *SUBJECT]
    words = [*bench, "--calibration-data", str(output), "--output", str(output), "--quiet"]
    assert main(words) == 0
    return output


def test_a_run_that_nothing_was_fitted_to_is_predicted(calibrated: Path) -> None:
    calibration, _ = load_calibration(calibrated)
    bench = read_bench_result(DATA / "bench_serve_B.json")
    config = measured_config(calibration, SUBJECT[1], "cpu", {})
    predicted = predict_means(config, calibration, bench_workload(bench))
    for name in ("ttft", "itl", "e2el"):
        assert predicted[name] == pytest.approx(bench.means_ms[name], rel=0.10), name


def test_the_file_says_what_was_measured(calibrated: Path) -> None:
    calibration, _ = load_calibration(calibrated)
    assert calibration.xpu == "cpu"
    assert calibration.engine is not None
    assert calibration.engine.max_num_seqs == 64
    assert calibration.engine.async_scheduling is False
    covered = calibration.calibrated_range
    assert covered is not None
    # The sweep's largest: 2,048 tokens on a context of 4,096, and 32 requests.
    assert (covered.prefill_tokens, covered.context_tokens, covered.sequences) == (2048, 6144, 32)
    assert [source.file for source in calibration.data][-1] == "bench_serve_A.json"
    assert calibration.held_out_error is not None
    assert calibration.held_out_error.mean_absolute_percent < 10
    for name, interval in calibration.intervals.items():
        assert interval.low <= getattr(calibration.roofline_params, name) <= interval.high
    # The server's processes share the cores with the engine: steps are slower, not faster.
    assert 1.0 < calibration.server_step_factor < 1.2


def run_config(calibrated: Path, **front_end: float) -> SimulatorConfig:
    return SimulatorConfig.from_dict(
        {
            "model": SUBJECT[1],
            "xpu": "cpu",
            "engine": {"max_model_len": 4096, "num_gpu_blocks_override": 4096},
            "performance": {"calibration_data": str(calibrated)},
            "front_end": front_end,
        }
    )


def test_the_front_end_is_the_calibrations_unless_the_configuration_has_one(
    calibrated: Path, tmp_path: Path
) -> None:
    calibration, _ = load_calibration(calibrated)
    slow = tmp_path / "slow.json"
    front_end = {"request_latency_ms": 100.0, "response_latency_ms": 7.0}
    data = calibration.model_dump(mode="json") | {"front_end": front_end}
    slow.write_text(json.dumps(data))
    load = Workload.from_columns([0], [100], [2])

    def ttft(**own: float) -> float:
        config = run_config(slow, **own)
        again = SimulatorConfig.from_dict(config.to_dict())
        value = simulate(config, workload=load).summary()["mean_ttft_ms"]
        assert simulate(again, workload=load).summary()["mean_ttft_ms"] == value
        return float(value)

    without = ttft(request_latency_ms=0.0, response_latency_ms=0.0)
    assert ttft() == pytest.approx(without + 107)
    assert ttft(request_latency_ms=10.0) == pytest.approx(without + 17)


def test_runs_beyond_the_measured_range_warn(calibrated: Path) -> None:
    model = str(DATA / "model_config.json")
    config = run_config(calibrated)
    (warning,) = VLLMRooflineModel(
        model, "cpu", calibration=calibrated, engine=config.engine
    ).warnings
    assert "8,192 tokens a step (measured: 2,048; --max-num-batched-tokens)" in warning
    assert "256 requests a step (measured: 32; --max-num-seqs)" in warning
    assert "context" not in warning
    within = config.engine.model_copy(update={"max_num_batched_tokens": 2048, "max_num_seqs": 32})
    assert VLLMRooflineModel(model, "cpu", calibration=calibrated, engine=within).warnings == ()


def test_the_step_factor_scales_every_step(calibrated: Path) -> None:
    calibration, _ = load_calibration(calibrated)
    times = {}
    for factor in (1.0, 1.5):
        changed = calibration.model_copy(update={"server_step_factor": factor})
        model = VLLMRooflineModel(SUBJECT[1], "cpu", calibration=changed)
        times[factor] = [model.estimate_prefill_time(2, 300), model.estimate_decode_time(5, 900)]
    assert times[1.5] == pytest.approx([1.5 * value for value in times[1.0]], rel=1e-12)


def test_without_a_calibration_the_cpu_has_no_price() -> None:
    with pytest.raises(ConfigError, match=r"no peak rates.*calibrate"):
        simulate(SimulatorConfig(model="llama-3.2-1b", xpu="cpu"))


SHIPPED = Path(__file__).parents[2] / "benchmark_data" / "calibration" / "vllm_cpu.json"
SERVED = ["--from-bench", str(DATA / "bench_serve_A.json"), "--calibration-data", str(SHIPPED)]


def test_settings_given_as_flags_are_noted(tmp_path: Path) -> None:
    words = calibrate(tmp_path, "--from-steps", *LOGS, "--bootstrap-samples", "20", "--quiet")
    words += ["--max-num-seqs", "48", "--num-gpu-blocks-override", "512"]
    assert main(words) == 0
    engine = load_calibration(tmp_path / "out.json")[0].engine
    assert engine is not None
    assert (engine.max_num_seqs, engine.num_gpu_blocks, engine.block_size) == (48, 512, 32)


def test_several_runs_share_one_correction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = ["--from-bench", *(str(DATA / f"bench_serve_{run}.json") for run in "AB")]
    assert main(calibrate(tmp_path, *runs, "--calibration-data", str(SHIPPED))) == 0
    told = capsys.readouterr().out
    assert "left on the means of bench_serve_A.json" in told
    both, _ = load_calibration(tmp_path / "out.json")
    factors = [both.server_step_factor]
    for run in "AB":
        alone = ["--from-bench", str(DATA / f"bench_serve_{run}.json")]
        words = calibrate(tmp_path, *alone, "--calibration-data", str(SHIPPED), "--quiet")
        assert main(words) == 0
        factors.append(load_calibration(tmp_path / "out.json")[0].server_step_factor)
    assert min(factors[1:]) < factors[0] < max(factors[1:])
    assert [source.file for source in both.data][-2:] == [
        "bench_serve_A.json",
        "bench_serve_B.json",
    ]


def calibrate(tmp_path: Path, *words: str) -> list[str]:
    return ["calibrate", *words, *SUBJECT, "--output", str(tmp_path / "out.json")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no measurements: give --from-op-tables or --from-kernel-profiles or"),
        (["--from-bench", "x.json"], "give --from-steps too, or --calibration-data"),
        (["--from-steps", "missing.jsonl"], "step log missing.jsonl does not exist"),
        (["--from-steps", LOGS[0], "--warm-up-steps", "5000"], "holds no steps after the warm-up"),
        (["--from-steps", LOGS[0], "--input-len", "3"], "--input-len goes with --from-bench"),
        (
            [*SERVED, "--warm-up-steps", "7"],
            "--warm-up-steps goes with --from-steps: leave it out",
        ),
        ([*SERVED, "--bootstrap-samples", "50"], "--bootstrap-samples goes with --from-steps or"),
        ([*SERVED, "--input-len", "3"], "bench_serve_A.json does not need --input-len"),
        ([*SERVED, "--batch-size", "3"], "bench_serve_A.json does not need --batch-size"),
        (["--from-steps", LOGS[0], "--warm-up-stepps", "3"], "did you mean '--warm-up-steps'"),
        (["--from-steps", str(DATA / "model_config.json")], "is not a JSON object"),
    ],
)
def test_refusals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(calibrate(tmp_path, *words)) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


STEP: dict[str, Any] = {"reqs": [["a", 0, 10, 1]], "exec_s": 0.01, "out": {"a": [1, False]}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exec_s": -1}, "line 2: exec_s=-1 must be seconds"),
        ({"exec_s": 0}, "line 2: exec_s=0 must be above 0"),
        ({"exec_s": "1"}, "line 2: exec_s='1'"),
        ({"reqs": [["a", 0, 0, 1]]}, "scheduled 1 or more"),
        ({"reqs": [["a", 0, 1]]}, "a row is [request, computed, scheduled, prefill]"),
        ({"out": {"a": 3}}, "out={'a': 3} must give"),
    ],
)
def test_damaged_steps_are_named_by_line(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"type": "header"}\n' + json.dumps(STEP | change) + "\n")
    with pytest.raises(CalibrationError) as caught:
        read_step_logs([log])
    assert message in str(caught.value)


def test_a_synchronous_step_includes_the_scheduler_and_an_asynchronous_one_does_not(
    tmp_path: Path,
) -> None:
    rows = [["a", 5, 1, 0], ["b", 0, 7, 1], ["c", 3, 4, 1]]
    step = STEP | {"reqs": rows, "sched_s": 0.002, "upd_s": 0.001, "out": {"a": [1, False]}}
    for asynchronous, seconds in ((False, 0.013), (True, 0.010)):
        log = tmp_path / "log.jsonl.gz"
        header = {"type": "header", "async": asynchronous, "warm_up_steps": 1}
        lines = "\n".join(map(json.dumps, (header, STEP, step)))
        log.write_bytes(gzip.compress(lines.encode()))
        data = read_step_logs([log])
        assert data.dropped_warm_up == 1
        (found,) = data.steps
        assert found.seconds == pytest.approx(seconds)
    shape = found.shape(("sliding", 4))
    # By hand, from the definitions of docs/spec.md: 7*0 + 7*8/2 and 4*3 + 4*5/2 pairs; in a window
    # of four tokens a query sees at most four keys.
    assert {name: getattr(shape, name) for name in STEP_SUMS} == {
        "prefill_seqs": 2,
        "prefill_tokens": 11,
        "prefill_attention_pairs": 28 + 22,
        "prefill_context_tokens": 14,
        "decode_seqs": 1,
        "decode_context_tokens": 6,
        "sampled_seqs": 1,
        "prefill_window_pairs": (1 + 2 + 3 + 4 * 4) + 4 * 4,
        "prefill_window_tokens": 7 + (3 + 4),
        "decode_window_tokens": 4,
    }
    assert found.longest_context == 7


def test_results_without_lengths_ask_for_them(calibrated: Path) -> None:
    with pytest.raises(CalibrationError, match="--batch-size"):
        read_bench_result(DATA / "bench_latency.json")
    with pytest.raises(CalibrationError, match="--input-len and --output-len"):
        read_bench_result(DATA / "bench_throughput.json")
    asked = AskedLengths(input_len=100, output_len=100)
    with pytest.raises(CalibrationError, match="total_num_tokens=4640"):
        read_bench_result(DATA / "bench_throughput.json", asked)
    asked = AskedLengths(input_len=200, output_len=32)
    bench = read_bench_result(DATA / "bench_throughput.json", asked)
    assert len(bench.arrival_ns) == 20
    assert not bench.through_server
    calibration, _ = load_calibration(calibrated)
    config = measured_config(calibration, SUBJECT[1], "cpu", {})
    offline = calibration.model_copy(update={"server_step_factor": 1.0, "front_end": None})
    assert predict_means(config, offline, bench_workload(bench))["duration"] > 0


def test_serve_results_give_the_means_that_vllm_printed() -> None:
    printed = json.loads((DATA / "bench_serve_A.json").read_text())
    bench = read_bench_result(DATA / "bench_serve_A.json")
    for name in ("ttft", "itl", "e2el"):
        assert bench.means_ms[name] == pytest.approx(printed[f"mean_{name}_ms"], rel=1e-3)
    assert bench.output_tokens.sum() == printed["total_output_tokens"]


def test_a_closed_loop_counts_from_when_requests_wanted_to_be_sent(tmp_path: Path) -> None:
    data = json.loads((DATA / "bench_serve_A.json").read_text())
    wanted = read_bench_result(DATA / "bench_serve_A.json").arrival_ns
    held_s = np.cumsum(np.full(60, 0.5))
    order = np.argsort(data["start_times"])
    starts, waits = np.array(data["start_times"]), np.zeros(60)
    waits[order] = held_s
    data |= {
        "max_concurrency": 4,
        "start_times": (starts + waits).tolist(),
        "queue_times": waits.tolist(),
    }
    path = tmp_path / "closed.json"
    path.write_text(json.dumps(data))
    bench = read_bench_result(path)
    assert bench.max_concurrency == 4
    assert bench.arrival_ns == pytest.approx(wanted, rel=0, abs=1000)
    path.write_text(json.dumps(data | {"queue_times": waits.tolist()[:-1]}))
    with pytest.raises(CalibrationError, match="queue_times must be a list"):
        read_bench_result(path)


def test_serve_results_without_arrays_stand_for_equal_requests(tmp_path: Path) -> None:
    data = json.loads((DATA / "bench_serve_A.json").read_text())
    short = {key: value for key, value in data.items() if not isinstance(value, list)}
    path = tmp_path / "short.json"
    path.write_text(json.dumps(short))
    bench = read_bench_result(path)
    assert bench.means_ms["ttft"] == data["mean_ttft_ms"]
    assert set(bench.prompt_tokens) == {round(data["total_input_tokens"] / 60)}
    mean_gap_s = bench.arrival_ns[-1] / 59 / 1e9
    assert mean_gap_s == pytest.approx(1 / 3, rel=0.1)
    assert "without --save-detailed" in bench.warnings[0]


def test_aiperf_and_guidellm_exports(tmp_path: Path) -> None:
    aiperf = tmp_path / "profile_export.jsonl"
    rows = []
    for start_ns, ttft, itl in ((2_000_000_000, 30.0, 10.0), (1_000_000_000, 50.0, 20.0)):
        metrics = {
            "input_sequence_length": {"value": 100, "unit": "tokens"},
            "output_sequence_length": {"value": 3, "unit": "tokens"},
            "time_to_first_token": {"value": ttft, "unit": "ms"},
            "inter_token_latency": {"value": itl, "unit": "ms"},
            "request_latency": {"value": ttft + 2 * itl, "unit": "ms"},
        }
        rows.append({"metadata": {"request_start_ns": start_ns}, "metrics": metrics})
    rows.append({"metadata": {"request_start_ns": 5}, "metrics": {}, "error": {"code": 500}})
    aiperf.write_text("\n".join(map(json.dumps, rows)))
    guide = tmp_path / "benchmarks.json"
    requests = [
        {
            "request_start_time": start,
            "prompt_tokens": 100,
            "output_tokens": 3,
            "time_to_first_token_ms": ttft,
            "request_latency": latency,
        }
        for start, ttft, latency in ((2.0, 30.0, 0.05), (1.0, 50.0, 0.09))
    ]
    listed = {"requests": {"successful": requests, "errored": [{}]}}
    guide.write_text(json.dumps({"benchmarks": [listed]}))
    for path in (aiperf, guide):
        bench = read_bench_result(path)
        assert bench.arrival_ns.tolist() == [0, 1_000_000_000]
        assert bench.means_ms == pytest.approx({"ttft": 40.0, "itl": 15.0, "e2el": 70.0})
        assert bench.failed == 1


def test_a_calibration_survives_its_file(calibrated: Path, tmp_path: Path) -> None:
    calibration, _ = load_calibration(calibrated)
    calibration.write(tmp_path / "copy.json")
    assert CalibrationFile.read(tmp_path / "copy.json")[0] == calibration
