"""Recorded truth: calibrations from measurements of real vLLM predict loads of its server."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from llm_inference_simulator.calibration import (
    CalibrationFile,
    RooflineParameters,
    load_calibration,
)
from llm_inference_simulator.calibration.bench_results import read_bench_result
from llm_inference_simulator.calibration.identification import doubts
from llm_inference_simulator.calibration.roof_solver import Observations, Ties
from llm_inference_simulator.calibration.step_data import read_step_logs
from llm_inference_simulator.calibration.step_work import cost_vector, step_work
from llm_inference_simulator.calibrators import calibrate_from_bench, calibrate_from_steps
from llm_inference_simulator.calibrators.from_bench import (
    bench_workload,
    measured_config,
    predict_means,
)
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import VLLMRooflineModel
from llm_inference_simulator.validation import predict, read_runs
from vllm_benchmarks.data_collector import read_points, write_step_log
from vllm_benchmarks.roofline_estimator import estimate_from_server

DATA = Path(__file__).parents[2] / "benchmark_data"
RAW = DATA / "raw" / "vllm_cpu_avx2"
STEPS = DATA / "processed" / "vllm_cpu_avx2" / "steps.jsonl.gz"
MODEL = str(RAW / "model_config.json")
ENGINE = {
    "max_num_seqs": 32,
    "max_num_batched_tokens": 1024,
    "max_model_len": 2048,
    "enable_prefix_caching": False,
    "async_scheduling": False,
}


QUIET = DATA / "raw" / "vllm_cpu_quiet"
QUIET_STEPS = DATA / "processed" / "vllm_cpu_quiet" / "steps.jsonl.gz"


def errors(calibration: CalibrationFile, load: str) -> dict[str, float]:
    bench = read_bench_result(RAW / f"bench_serve_{load}.json")
    config = measured_config(calibration, MODEL, "cpu", ENGINE)
    predicted = predict_means(config, calibration, bench_workload(bench))
    return {name: predicted[name] / value - 1 for name, value in bench.means_ms.items()}


def test_steps_and_one_light_run_predict_other_loads() -> None:
    made = calibrate_from_steps([STEPS], model=MODEL, xpu="cpu", bootstrap_samples=20).calibration
    # This processor has no matrix unit for bf16: arithmetic bounds decode too.
    assert made.assumed["decode_effective_bandwidth_gbps"] == "the least that arithmetic hides"
    config = measured_config(made, MODEL, "cpu", {})
    corrected, correction = calibrate_from_bench(made, [RAW / "bench_serve_rate_1.json"], config)
    assert max(map(abs, correction.errors[0].values())) < 0.02
    assert corrected.front_end is not None
    assert errors(corrected, "rate_3") == pytest.approx({"ttft": 0, "itl": 0, "e2el": 0}, abs=0.05)
    assert errors(corrected, "light") == pytest.approx({"ttft": 0, "itl": 0, "e2el": 0}, abs=0.1)


def from_answers(points: Path) -> CalibrationFile:
    data = read_points(points)
    # The model's path in the file is relative to the checkout.
    header = data.header.model_copy(update={"model": MODEL})
    return estimate_from_server(
        points,
        data.model_copy(update={"header": header}),
        engine=EngineConfig(),
        bootstrap_samples=20,
        progress=lambda _: None,
    ).calibration


def test_a_servers_answers_alone_predict_a_load() -> None:
    made = from_answers(RAW / "points_server.jsonl")
    assert made.front_end is not None
    assert 2 < made.front_end.request_latency_ms < 12
    assert errors(made, "rate_3") == pytest.approx({"ttft": 0, "itl": 0, "e2el": 0}, abs=0.1)


def whole_errors(calibration: CalibrationFile, file: Path) -> dict[str, float]:
    """Signed errors of means and tails, as shares of the measured values."""
    blocks = {"block_size": 32, "num_gpu_blocks_override": 16384}
    engine = {**ENGINE, **blocks}
    (run,) = read_runs(file, {"model": MODEL, "xpu": "cpu", "engine": engine})
    priced = VLLMRooflineModel(
        MODEL, "cpu", calibration=calibration, engine=run.config.engine, max_model_len=2048
    )
    predicted = predict(run, priced)
    return {name: predicted[name] / value - 1 for name, value in run.measured.items()}


MEANS = {"ttft_mean", "itl_mean", "e2e_mean"}
TAILS = {"ttft_p90", "e2e_p90"}


def within(found: dict[str, float], names: set[str], limit: float) -> bool:
    return max(abs(found[name]) for name in names) <= limit


@pytest.mark.parametrize("load", ["medium", "saturated"])
@pytest.mark.parametrize("server", [QUIET, QUIET / "third_server"])
def test_loads_on_a_quiet_machine(server: Path, load: str) -> None:
    made = calibrate_from_steps(
        [QUIET_STEPS], model=MODEL, xpu="cpu", bootstrap_samples=20
    ).calibration
    config = measured_config(made, MODEL, "cpu", {})
    corrected, _ = calibrate_from_bench(made, [server / "bench_serve_correction.json"], config)
    found = whole_errors(corrected, server / f"bench_serve_{load}.json")
    assert within(found, MEANS, 0.1), found
    assert within(found, TAILS, 0.15), found


def test_a_servers_answers_alone_predict_loads_from_light_to_saturated() -> None:
    made = from_answers(QUIET / "points_server.jsonl")
    first, third = QUIET / "first_server", QUIET / "third_server"
    for folder, load in (
        (first, "light"), (QUIET, "medium"), (QUIET, "saturated"), (first, "saturated"),
        (third, "correction"), (third, "light"), (third, "medium"), (third, "saturated"),
    ):  # fmt: skip
        found = whole_errors(made, folder / f"bench_serve_{load}.json")
        assert within(found, MEANS, 0.1), (load, found)
        assert within(found, TAILS, 0.15), (load, found)


@pytest.mark.parametrize(("raw", "steps"), [(RAW, STEPS), (QUIET, QUIET_STEPS)])
def test_processed_steps_come_from_the_raw_points(raw: Path, steps: Path, tmp_path: Path) -> None:
    log = tmp_path / "steps.jsonl.gz"
    write_step_log(read_points(raw / "points_offline.jsonl"), log)
    # Compressed bytes differ between versions of zlib.
    assert gzip.decompress(log.read_bytes()) == gzip.decompress(steps.read_bytes())


@pytest.mark.parametrize("name", ["vllm_cpu", "vllm_cpu_avx2", "vllm_cpu_quiet"])
def test_the_shipped_calibrations_load_and_say_what_they_are(name: str) -> None:
    calibration, _ = load_calibration(DATA / "calibration" / f"{name}.json")
    assert calibration.xpu == "cpu"
    assert calibration.held_out_error is not None
    assert calibration.held_out_error.mean_absolute_percent < 10
    assert calibration.provenance["data_sha256"]


def test_a_bandwidth_that_bounds_nothing_casts_no_doubt_on_arithmetic() -> None:
    parameters = RooflineParameters(
        prefill_effective_tflops=0.0085,
        prefill_attention_effective_tflops=0.031,
        prefill_effective_bandwidth_gbps=1e3,
        decode_effective_tflops=0.0095,
        decode_attention_effective_tflops=0.0101,
        decode_effective_bandwidth_gbps=2.5e3,
        prefill_step_overhead_us=5900.0,
        decode_step_overhead_us=4100.0,
        sequence_overhead_us=250.0,
    )
    model = VLLMRooflineModel(MODEL, "cpu", calibration=parameters)
    steps = read_step_logs([QUIET_STEPS]).steps
    noise = np.exp(np.random.default_rng(0).normal(0, 0.05, len(steps)))
    cost, work = cost_vector(parameters), step_work(steps, model.breakdown_step)
    seen = Observations(work=work, seconds=work.seconds(cost) * noise, weights=np.ones(len(steps)))
    shapes: dict[tuple[int, ...], int] = {}
    cells = np.array([shapes.setdefault(step.cell, len(shapes)) for step in steps])
    found = {doubt.name for doubt in doubts(seen, cells, Ties.none(), cost)}
    assert {name for name in found if "tflops" in name} == set()
    assert "decode_effective_bandwidth_gbps" in found
