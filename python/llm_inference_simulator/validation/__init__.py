"""Measured runs against predictions: read, predict, compare, summarise.

>>> from llm_inference_simulator.validation import predict, read_runs, validate
>>> runs = read_runs("runs.json")  # doctest: +SKIP
>>> predict(runs[0])["ttft_mean"]  # milliseconds  # doctest: +SKIP
>>> validate(runs).to_dict()["summary"]["held_out"]["overall"]  # doctest: +SKIP

A bench result holds no server: ``read_runs(path, {"model": …, "xpu": …, "engine": {…}})``.
"""

from llm_inference_simulator.validation.error_table import (
    STATISTICS,
    MetricError,
    RunErrors,
    compare,
    error_statistics,
    summarise,
)
from llm_inference_simulator.validation.measured import (
    METRICS,
    MeasuredRun,
    Stage,
    latency_metrics,
)
from llm_inference_simulator.validation.prediction import Prediction, predict, simulate_run
from llm_inference_simulator.validation.readers import read_runs
from llm_inference_simulator.validation.report import (
    Validation,
    fitted_runs,
    leave_one_out,
    validate,
)

__all__ = [
    "METRICS",
    "STATISTICS",
    "MeasuredRun",
    "MetricError",
    "Prediction",
    "RunErrors",
    "Stage",
    "Validation",
    "compare",
    "error_statistics",
    "fitted_runs",
    "latency_metrics",
    "leave_one_out",
    "predict",
    "read_runs",
    "simulate_run",
    "summarise",
    "validate",
]
