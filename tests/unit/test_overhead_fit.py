"""Overheads from whole runs: constants that are known come back, and errors of runs left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.calibration import FrontEndLatency
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.calibration.shipped import open_calibration
from llm_inference_simulator.cli import main
from llm_inference_simulator.config import PerformanceModelConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from llm_inference_simulator.validation import (
    MeasuredRun,
    leave_one_out,
    read_runs,
    simulate_run,
    summarise,
    validate,
)
from llm_inference_simulator.validation.overhead_fit import fit_overheads
from tests.unit.test_validation import record, write

E2E_RUNS = Path(__file__).parents[3] / "shared" / "data" / "e2e" / "vllm_0.15.1_runs.json"
TRUTH = {
    "kernel_latency_us": 2.5,
    "all_reduce_factor": 1.6,
    "penalties_step_us": 900.0,
    "request_latency_ms": 11.0,
}
QWEN, LLAMA = "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"
"""Qwen2.5's checkpoints ask for a repetition penalty, Llama's do not."""


def kernels(values: dict[str, float] | None = None) -> KernelCalibration:
    """An H100's tables with the given constants, or none."""
    shipped = open_calibration("h100-sxm")
    assert isinstance(shipped, KernelCalibration)
    host = dict(values or {})
    latency = host.pop("request_latency_ms", None)
    return replace(
        shipped,
        overheads=HostOverheads(**host),
        front_end=None if latency is None else FrontEndLatency(request_latency_ms=latency),
        provenance={},
    )


def runs(tmp_path: Path, **changed: Any) -> list[MeasuredRun]:
    """Short runs of two models in groups of one and two, lightly and more heavily loaded."""
    records = [
        record(
            id=f"{model}-{size}-{rate}",
            model=model,
            tensor_parallel_size=size,
            stages=[[rate, 12]],
            output=60,
            num_gpu_blocks=...,
            **changed,
        )
        for model in (QWEN, LLAMA)
        for size in (1, 2)
        for rate in (2, 8)
    ]
    return read_runs(write(tmp_path, records))


def priced(run: MeasuredRun, calibration: KernelCalibration) -> dict[str, float]:
    engine = run.config.engine
    model = OpTablePerformanceModel(
        run.config.model,
        run.config.xpu,
        run.config.cluster.tensor_parallel_size,
        calibration=calibration,
        engine=engine,
        max_model_len=engine.max_model_len,
    )
    return dict(simulate_run(run, model).metrics)


def test_constants_that_made_the_runs_come_back(tmp_path: Path) -> None:
    truth = kernels(TRUTH)
    measured = [replace(run, measured=priced(run, truth)) for run in runs(tmp_path)]
    # From wrong constants, which the fit is to replace.
    start = kernels({"kernel_latency_us": 9.0, "request_latency_ms": 90.0})
    fit = fit_overheads(measured, start)
    for name, value in TRUTH.items():
        assert fit.values[name] == pytest.approx(value, rel=0.06), name
        assert fit.spread[name] < 0.06 * value, name
    for name, value in truth.overheads.model_dump().items():
        assert getattr(fit.calibration.overheads, name) == pytest.approx(value, rel=0.06), name
    assert fit.calibration.front_end is not None
    assert fit.calibration.front_end.request_latency_ms == pytest.approx(11.0, rel=0.02)
    assert fit.calibration.provenance["fitted_runs"] == [run.id for run in measured]
    for errors in (*fit.fitted, *fit.held_out):
        for error in errors.whole:
            # A few TTFTs jump by a whole step where an arrival falls before or after its start.
            most = {"itl_mean": 1.0, "e2e_mean": 1.0, "ttft_mean": 5.0}.get(error.metric)
            if most is not None:
                assert abs(error.error_percent) < most, (errors.run.id, error.metric)
    assert all(errors.used_for_fitting for errors in fit.fitted)
    assert not any(errors.used_for_fitting for errors in fit.held_out)


def test_a_run_left_out_does_not_choose_its_own_constants(tmp_path: Path) -> None:
    """One run is ten times slower, which constants of the others cannot explain."""
    measured = [replace(run, measured=priced(run, kernels(TRUTH))) for run in runs(tmp_path)]
    odd = {name: 10 * value for name, value in measured[0].measured.items()}
    measured[0] = replace(measured[0], measured=odd)
    fit = fit_overheads(measured, kernels())
    (error,) = [e for e in fit.held_out[0].whole if e.metric == "itl_mean"]
    assert error.error_percent == pytest.approx(-90, abs=2)
    assert max(fit.spread[name] / TRUTH[name] for name in TRUTH) > 0.1  # it moved the others


def test_too_few_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="4 runs cannot tell 4 constants: give more runs"):
        fit_overheads(runs(tmp_path)[:4], kernels())


def test_a_run_without_a_metric_is_refused(tmp_path: Path) -> None:
    incomplete = runs(tmp_path, measured_ms={"e2e_mean": 600.0, "ttft_mean": 20.0})
    with pytest.raises(CalibrationError, match=r"run .* of .*runs.json lacks itl_mean"):
        fit_overheads(incomplete, kernels())


def test_runs_on_another_accelerator_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="measured on xpu=h100-sxm, not on a100-80-sxm"):
        fit_overheads(runs(tmp_path, hardware="A100"), kernels())


def test_leaving_out_needs_one_accelerator_and_kernel_tables(tmp_path: Path) -> None:
    mixed = runs(tmp_path)[:3] + [
        replace(run, id=f"b{run.id}") for run in runs(tmp_path, hardware="A100")[:3]
    ]
    with pytest.raises(CalibrationError, match="one accelerator, not of a100-80-sxm, h100-sxm"):
        leave_one_out(mixed)
    with pytest.raises(CalibrationError, match="which xpu=h100-sxm lacks here"):
        leave_one_out(runs(tmp_path), PerformanceModelConfig(performance_model="roofline"))


def test_leaving_out_on_the_command_line_takes_no_front_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path, [record()]))
    assert main(["validate", file, "--leave-one-out", "--request-latency-ms", "3"]) == 2
    err = capsys.readouterr().err
    assert "--leave-one-out fits the front end's latencies itself" in err
    assert main(["validate", file, "--leave-one-out"]) == 2
    assert "1 runs cannot tell 4 constants" in capsys.readouterr().err


@pytest.mark.skipif(not E2E_RUNS.exists(), reason="measured runs not beside this checkout")
def test_recorded_runs_are_predicted_by_the_shipped_constants() -> None:
    """They were fitted to these runs: a check that nothing moved, no measure of accuracy."""
    found = validate(read_runs(E2E_RUNS))
    summary = summarise(found.fitted)
    assert summary is not None
    for metric, most in (("e2e_mean", 3.0), ("itl_mean", 3.0), ("ttft_mean", 8.0)):
        assert summary["overall"][metric]["count"] == 13
        assert summary["overall"][metric]["mean"] <= most, metric


@pytest.mark.slow
@pytest.mark.skipif(not E2E_RUNS.exists(), reason="measured runs not beside this checkout")
def test_recorded_runs_are_predicted_by_constants_of_the_others() -> None:
    found = leave_one_out(read_runs(E2E_RUNS))
    assert found.left_out
    assert len(found.held_out) == 13
    summary = summarise(found.held_out)
    assert summary is not None
    for metric, most in (("e2e_mean", 6.0), ("itl_mean", 6.0), ("ttft_mean", 12.0)):
        assert summary["overall"][metric]["count"] == 13
        assert summary["overall"][metric]["mean"] <= most, metric
