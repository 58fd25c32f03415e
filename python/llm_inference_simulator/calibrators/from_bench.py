"""Correct a calibration for the server in front of the engine, from runs of a load generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.calibration.bench_results import (
    AskedLengths,
    BenchResult,
    read_bench_result,
)
from llm_inference_simulator.calibration.server_fit import ServerCorrection, fit_server
from llm_inference_simulator.calibrators.from_steps import combined_sha256
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models import VLLMRooflineModel
from llm_inference_simulator.simulation import simulate
from llm_inference_simulator.workload import Workload


def calibrate_from_bench(
    calibration: CalibrationFile,
    files: Sequence[Path],
    config: SimulatorConfig,
    *,
    asked: AskedLengths | None = None,
) -> tuple[CalibrationFile, ServerCorrection]:
    """Add the server's step factor and front end to ``calibration``.

    ``files`` are results of light runs, one is enough. ``config`` describes the engine that was
    benchmarked (see :func:`measured_config`); its workload is replaced by the runs' own requests.
    Raises :class:`CalibrationError`.
    """
    benches = [read_bench_result(file, asked) for file in files]
    workloads = [bench_workload(bench) for bench in benches]

    def predict(run: int, step_factor: float, request_latency_ms: float) -> Mapping[str, float]:
        return predict_means(
            config, _corrected(calibration, step_factor), workloads[run], request_latency_ms
        )

    correction = fit_server(benches, predict)
    sources = (*calibration.data, *(bench.source for bench in benches))
    corrected = calibration.model_copy(
        update={
            "server_step_factor": correction.step_factor,
            "front_end": correction.front_end or calibration.front_end,
            "data": sources,
            "provenance": {
                **calibration.provenance,
                "data_sha256": combined_sha256(sources),
                "server_correction": [
                    {
                        "source": bench.kind,
                        "requests": len(bench.arrival_ns),
                        "failed_requests": bench.failed,
                        "measured_means_ms": bench.means_ms,
                        "errors_after_correction": errors,
                    }
                    for bench, errors in zip(benches, correction.errors, strict=True)
                ],
            },
        }
    )
    return corrected, correction


def measured_config(
    calibration: CalibrationFile, model: str, xpu: str, engine: Mapping[str, Any]
) -> SimulatorConfig:
    """The engine that was measured, as a configuration; ``engine`` overrides its settings."""
    return SimulatorConfig.from_dict(
        {
            "model": model,
            "xpu": xpu,
            "cluster": {"tensor_parallel_size": calibration.tensor_parallel_size or 1},
            "engine": {**calibration.engine_settings(), **engine},
        },
        source="engine of the benchmark",
    )


def predict_means(
    config: SimulatorConfig,
    calibration: CalibrationFile,
    workload: Workload,
    request_latency_ms: float | None = None,
) -> dict[str, float]:
    """Simulate a run's requests; means in milliseconds, named as ``BenchResult.means_ms``.

    ``request_latency_ms`` replaces the front end of the calibration; None: keep that.
    """
    if request_latency_ms is not None:
        front_end = {"request_latency_ms": request_latency_ms, "response_latency_ms": 0.0}
        config = SimulatorConfig.from_dict({**config.to_dict(), "front_end": front_end})
    priced = VLLMRooflineModel(
        config.model,
        config.xpu,
        config.cluster.tensor_parallel_size,
        calibration=calibration,
        engine=config.engine,
    )
    summary = simulate(config, workload=workload, performance_model=priced).summary()
    if summary["completed"] < len(workload):
        raise CalibrationError(
            f"the simulated engine rejects {len(workload) - summary['completed']} requests of the "
            "benchmark: give the engine's settings (--max-model-len, --num-gpu-blocks-override)"
        )
    means = {name: summary[f"mean_{name}_ms"] for name in ("ttft", "itl", "tpot", "e2el")}
    return {**means, "duration": 1e3 * summary["duration"]}


def bench_workload(bench: BenchResult) -> Workload:
    """The requests of a run as a workload."""
    return Workload.from_columns(
        bench.arrival_ns,
        bench.prompt_tokens,
        bench.output_tokens,
        max_concurrency=bench.max_concurrency,
        description=f"requests of {bench.source.file}",
    )


def _corrected(calibration: CalibrationFile, step_factor: float) -> CalibrationFile:
    return calibration.model_copy(update={"server_step_factor": step_factor})
