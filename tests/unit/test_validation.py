"""Measured runs are read as they were made, predicted, and set against the prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.parameters import CalibrationFile, RooflineParameters
from llm_inference_simulator.config import FrontEndConfig, PerformanceModelConfig
from llm_inference_simulator.errors import CalibrationError, ConfigError, WorkloadError
from llm_inference_simulator.performance_models import BasePerformanceModel
from llm_inference_simulator.simulation import simulate
from llm_inference_simulator.validation import (
    METRICS,
    MetricError,
    error_statistics,
    fitted_runs,
    latency_metrics,
    predict,
    read_runs,
    simulate_run,
    validate,
)

OUTPUT = 5


def record(**given: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": "one",
        "model": "Qwen/Qwen2.5-7B-Instruct",
        "hardware": "H100",
        "tensor_parallel_size": 1,
        "precision": "FP16",
        "max_num_batched_tokens": 2048,
        "max_num_seqs": 128,
        "max_model_len": 4096,
        "block_size": 16,
        "gpu_memory_utilization": 0.9,
        "workload": "chat",
        "stages": [[2, 30], [6.5, 20]],
        "sys": 100,
        "question": 180,
        "output": OUTPUT,
        "input_mean": 300,
        "prefix_groups": 3,
        "prompts_per_group": 4,
        "measured_ms": {"e2e_mean": 60.0, "ttft_mean": 20.0, "itl_mean": 10.0},
        "num_gpu_blocks": 5000,
    }
    made |= given
    return {key: value for key, value in made.items() if value is not ...}


def write(tmp_path: Path, data: Any, name: str = "runs.json") -> Path:
    file = tmp_path / name
    file.write_text(json.dumps(data))
    return file


class TenMilliseconds(BasePerformanceModel):
    """Every step takes 10 ms, whatever is in it."""

    def estimate_step_time(self, step: StepShape) -> float:
        """As the base class says."""
        del step
        return 0.01


def test_a_record_becomes_a_server_and_a_load_in_stages(tmp_path: Path) -> None:
    by_stage = [{"e2e_mean": 50.0}, {"e2e_mean": 64.0}]
    (run,) = read_runs(write(tmp_path, [record(measured_ms_by_stage=by_stage)]))
    config, load = run.config, run.workload
    assert (config.model, config.xpu) == ("qwen2.5-7b", "h100-sxm")
    assert config.engine.num_gpu_blocks_override == 5000
    assert config.engine.async_scheduling
    assert config.engine.quantization is None
    assert run.stage_bounds_ns.tolist() == [0, 30_000_000_000, 50_000_000_000]
    assert [stage.measured for stage in run.stages] == by_stage
    assert run.notes == ()
    assert set(load.prompt_tokens.tolist()) == {300}
    assert set(load.output_tokens.tolist()) == {OUTPUT}
    assert load.segments is not None
    # Three prefixes and twelve whole prompts.
    assert len(np.unique(load.segments.ids)) == 3 + 12


def test_precision_and_blocks_of_a_record(tmp_path: Path) -> None:
    runs = read_runs(
        write(
            tmp_path,
            [
                record(precision="FP8", num_gpu_blocks=..., num_gpu_blocks_either=[900, 800]),
                record(
                    id="two",
                    model="RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic",
                    precision="FP8",
                    num_gpu_blocks=...,
                ),
            ],
        )
    )
    assert runs[0].config.engine.quantization == "fp8"
    assert runs[0].config.engine.num_gpu_blocks_override == 800
    assert "the fewest, 800" in runs[0].notes[0]
    assert runs[1].config.engine.quantization is None  # the model's own
    assert "was not logged" in runs[1].notes[0]


def test_latencies_of_another_output_length_are_noted(tmp_path: Path) -> None:
    measured = {"e2e_mean": 120.0, "ttft_mean": 20.0, "itl_mean": 10.0}
    (run,) = read_runs(write(tmp_path, [record(measured_ms=measured)]))
    assert "fits 11 output tokens, not output=5" in run.notes[0]


def test_settings_replace_what_a_record_says(tmp_path: Path) -> None:
    file = write(tmp_path, [record()])
    (run,) = read_runs(file, {"engine": {"max_num_seqs": 7}, "xpu": "a100", "seed": 3})
    assert run.config.engine.max_num_seqs == 7
    assert run.config.engine.max_num_batched_tokens == 2048
    assert (run.config.xpu, run.config.seed) == ("a100", 3)


def test_a_prediction_follows_from_the_price_of_a_step(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, [record()]))
    found = simulate_run(run, TenMilliseconds())
    assert found.completed == found.requests == len(run.workload)
    for metrics in (found.metrics, *found.stages):
        assert list(metrics) == list(METRICS)
        assert metrics["itl_mean"] == pytest.approx(10.0, abs=1e-6)
        assert metrics["e2e_mean"] == pytest.approx(metrics["ttft_mean"] + 40.0, abs=1e-6)
        # At once where the engine is idle; otherwise a step, or two decided ahead, come before.
        assert 10.0 <= metrics["ttft_mean"] <= 30.0
    # The stages' means, weighted by their requests, are the whole run's.
    weights = np.diff(np.searchsorted(run.workload.arrival_ns, run.stage_bounds_ns))
    means = [stage["ttft_mean"] for stage in found.stages]
    assert found.metrics["ttft_mean"] == pytest.approx(np.average(means, weights=weights))


def test_a_prediction_is_what_a_run_of_its_configuration_reports(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, [record()]))
    summary = simulate(run.config).summary()
    keys = ("mean_e2el", "p90_e2el", "p99_e2el", "mean_ttft", "p90_ttft", "p99_ttft", "mean_tpot")
    reported = {metric: summary[f"{key}_ms"] for metric, key in zip(METRICS, keys, strict=True)}
    assert predict(run) == pytest.approx(reported, rel=1e-12)


def test_the_front_end_adds_to_every_first_token(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, [record()]))
    bare = predict(run, TenMilliseconds())
    front_end = FrontEndConfig(request_latency_ms=3.0, response_latency_ms=4.0)
    through = predict(run, TenMilliseconds(), front_end)
    for metric in METRICS:
        added = 0.0 if metric == "itl_mean" else 7.0
        assert through[metric] == pytest.approx(bare[metric] + added, abs=1e-6)
    assert predict(run, TenMilliseconds()) == bare


def test_a_run_that_nothing_completes_is_refused(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, [record()]), {"engine": {"max_model_len": 64}})
    with pytest.raises(WorkloadError, match="no request of the run completes"):
        predict(run)


def test_metrics_by_hand() -> None:
    found = latency_metrics(
        np.array([10.0, 20.0, 30.0]), np.array([10.0, 60.0, 230.0]), np.array([1, 5, 11])
    )
    assert found["itl_mean"] == pytest.approx((10.0 + 20.0) / 2)
    assert found["ttft_p90"] == pytest.approx(28.0)
    assert found["e2e_mean"] == pytest.approx(100.0)
    none = np.array([])
    assert latency_metrics(none, none, none.astype(np.int64)) == {}


def test_error_statistics_by_hand() -> None:
    errors = [MetricError("itl_mean", 10.0, predicted) for predicted in (9.0, 12.0, 14.0)]
    (found,) = error_statistics(errors).values()
    assert found["count"] == 3
    assert found["mean"] == pytest.approx(70 / 3)
    assert found["median"] == pytest.approx(20.0)
    assert found["p90"] == pytest.approx(36.0)
    assert found["bias"] == pytest.approx(50 / 3)


def calibration(tmp_path: Path, provenance: dict[str, Any]) -> PerformanceModelConfig:
    parameters = RooflineParameters(
        prefill_effective_tflops=500.0,
        prefill_effective_bandwidth_gbps=2500.0,
        decode_effective_tflops=300.0,
        decode_effective_bandwidth_gbps=2500.0,
    )
    file = tmp_path / "calibration.json"
    CalibrationFile(roofline_params=parameters, provenance=provenance).write(file)
    return PerformanceModelConfig(calibration_data=str(file))


def test_fitted_runs_are_summarised_apart(tmp_path: Path) -> None:
    slower = {"e2e_mean": 1e6}
    records = [record(), record(id="two"), record(id="three", measured_ms=slower)]
    performance = calibration(tmp_path, {"fitted_runs": ["three"]})
    found = validate(read_runs(write(tmp_path, records)), performance)
    summary = found.to_dict()["summary"]
    assert [each["runs"] for each in summary.values()] == [2, 1]
    assert summary["held_out"]["by_model"]["qwen2.5-7b"]["itl_mean"]["count"] == 2
    fitted = summary["used_for_fitting"]["overall"]
    assert list(fitted) == ["e2e_mean"]
    assert fitted["e2e_mean"]["bias"] < -99


def test_a_broken_list_of_fitted_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="fitted_runs=3 is not a list"):
        fitted_runs(calibration(tmp_path, {"fitted_runs": 3}), "h100-sxm")


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        ([], ["holds no run"]),
        ([1], ["unknown shape", "measured_ms", "--save-detailed"]),
        ({"a": 1}, ["unknown shape"]),
        ([record(), {"request_throughput": 1, "mean_ttft_ms": 2}], ["unknown shape"]),
        ([record(sytem=3)], ["run one", "sytem"]),
        ([record(max_num_seqs=...)], ["max_num_seqs is missing"]),
        ([record(hardware="H10")], ["run one", "unknown accelerator 'H10'"]),
        ([record(model="Qwen/Qwen2.5-7B-Instuct")], ["unknown model", "Qwen2.5-7B-Instruct"]),
        ([record(precision="INT4")], ["precision='INT4'", "FP8"]),
        (
            [record(model="RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic")],
            ["precision=FP16", "stored in fp8"],
        ),
        ([record(measured_ms={})], ["measured_ms holds no latency"]),
        ([record(measured_ms={"e2e_meen": 3.0})], ["e2e_meen", "did you mean 'e2e_mean'"]),
        ([record(measured_ms={"e2e_mean": 0.0})], ["e2e_mean=0.0", "greater than 0"]),
        ([record(measured_ms_by_stage=[{"e2e_mean": 1.0}])], ["each of the 2 stages"]),
        (
            [record(measured_ms_by_stage=[{"e2e_mean": 1.0}, {"x": 1.0}])],
            ["measured_ms_by_stage[1]", "unknown key 'x'"],
        ),
        ([record(input_mean=100)], ["input_mean=100", "sys=100"]),
        ([record(stages=[[0, 5]])], ["every rate is 0"]),
        ([record(), record()], ["id='one' stands 2 times"]),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, data: Any, parts: list[str]) -> None:
    file = write(tmp_path, data)
    with pytest.raises(ConfigError) as caught:
        read_runs(file)
    for part in (str(file), *parts):
        assert part in str(caught.value)


def test_a_model_for_all_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        read_runs(write(tmp_path, [record()]), {"model": "llama-7b"})


SERVER = {"model": "qwen2.5-7b", "xpu": "h100"}


def bench(**given: Any) -> dict[str, Any]:
    """Three requests, the last sent first, and one without an answer."""
    made: dict[str, Any] = {
        "model_id": "my-served-name",
        "request_throughput": 1.0,
        "mean_ttft_ms": 1.0,
        "start_times": [100.5, 101.0, 0.0, 100.0],
        "input_lens": [30, 40, 99, 50],
        "output_lens": [3, 2, 0, 1],
        "ttfts": [0.1, 0.2, 0.0, 0.3],
        "itls": [[0.02, 0.04], [0.1], [], []],
    }
    made |= given
    return {key: value for key, value in made.items() if value is not ...}


def test_a_bench_result_is_replayed_as_it_was_sent(tmp_path: Path) -> None:
    (run,) = read_runs(write(tmp_path, bench(), "bench_a.json"), SERVER)
    load = run.workload
    assert run.id == "bench_a"
    assert load.arrival_ns.tolist() == [0, 500_000_000, 1_000_000_000]
    assert load.prompt_tokens.tolist() == [50, 30, 40]
    assert load.output_tokens.tolist() == [1, 3, 2]
    assert run.measured["ttft_mean"] == pytest.approx(200.0)
    assert run.measured["e2e_mean"] == pytest.approx((300 + 160 + 300) / 3)
    assert run.measured["itl_mean"] == pytest.approx((30 + 100) / 2)
    assert run.notes == ("1 requests failed when measured: left out",)
    assert predict(run, TenMilliseconds())["itl_mean"] == pytest.approx(10.0)


def test_a_closed_loop_is_replayed_as_one(tmp_path: Path) -> None:
    # Two places; what was measured as slow must not space out the requests of the prediction.
    closed = bench(
        max_concurrency=2,
        start_times=[10.0, 10.1, 50.0, 70.0],
        queue_times=[0.0, 0.0, 39.8, 59.7],
        output_lens=[11, 11, 11, 11],
        ttfts=[1.0, 1.0, 1.0, 1.0],
        itls=[[1.0] * 10] * 4,
    )
    (run,) = read_runs(write(tmp_path, closed), SERVER)
    assert run.workload.max_concurrency == 2
    assert run.workload.arrival_ns.tolist() == [0, 100_000_000, 200_000_000, 300_000_000]
    # Eleven steps of 10 ms each, in a fast server: nobody has to wait for a place.
    assert predict(run, TenMilliseconds())["e2e_p99"] == pytest.approx(115, abs=6)
    closed["queue_times"] = None
    (run,) = read_runs(write(tmp_path, closed), SERVER)
    assert run.workload.max_concurrency is None
    assert run.workload.arrival_ns[-1] == 60_000_000_000


def test_a_bench_result_names_a_known_model_itself(tmp_path: Path) -> None:
    file = write(tmp_path, bench(model_id="Qwen/Qwen2.5-7B-Instruct"))
    (run,) = read_runs(file, {"xpu": "h100"})
    assert run.config.model == "qwen2.5-7b"


def test_appended_results_are_runs_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "many.json"
    whole = bench(itls=[[], [], [], []])  # not streamed: no time between tokens
    file.write_text(json.dumps(bench()) + "\n" + json.dumps(whole) + "\n")
    runs = read_runs(file, SERVER)
    assert [run.id for run in runs] == ["many#1", "many#2"]
    assert "itl_mean" not in runs[1].measured
    assert "itl_mean is 0" in runs[1].notes[-1]


@pytest.mark.parametrize(
    ("data", "settings", "parts"),
    [
        (bench(), {}, ["give --model and --xpu"]),
        (bench(), {"model": "qwen2.5-7b"}, ["give --xpu"]),
        (bench(itls=...), SERVER, ["'itls' is missing", "--save-detailed"]),
        (bench(start_times=...), SERVER, ["'start_times' is missing", "--save-detailed"]),
        (bench(ttfts=[0.1]), SERVER, ["ttfts has 1 values but input_lens has 4"]),
        (bench(itls=[[]]), SERVER, ["itls has 1 values"]),
        (bench(ttfts=[0.1, "x", 0, 0]), SERVER, ["ttfts[1]='x'"]),
        (bench(itls=[[0.1, -1.0], [], [], []]), SERVER, ["itls[0][1]=-1.0"]),
        (bench(output_lens=[0, 0, 0, 0]), SERVER, ["no request has an answer"]),
    ],
)
def test_bad_bench_results_are_refused(
    tmp_path: Path, data: Any, settings: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_runs(write(tmp_path, data), settings)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[{", "not valid JSON"),
        ('{"a": 1}\n{"a": \n', "line 2: not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "damaged.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=part):
        read_runs(file)
