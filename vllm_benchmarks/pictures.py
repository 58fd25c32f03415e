"""Pictures of a calibration as PNG: the roof, predicted against measured, and what is left."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_inference_simulator.calibration.step_fit import StepFit
from llm_inference_simulator.calibration.step_work import cost_vector

_PHASES = (("prefill", True, "tab:blue"), ("decode", False, "tab:orange"))


def draw(fit: StepFit) -> Mapping[str, bytes] | None:
    """PNG pictures by title; None without matplotlib."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        return None
    mpl.use("Agg")
    return {
        "Roofline": _picture(_roof, fit),
        "Predicted against measured": _picture(_agreement, fit),
        "Residuals": _picture(_residuals, fit),
    }


def _picture(plot: Any, fit: StepFit) -> bytes:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    plot(axes, fit)
    axes.grid(visible=True, which="both", alpha=0.2)
    file = io.BytesIO()
    # No version or date in the file: equal fits are equal pictures.
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
    return file.getvalue()


def _roof(axes: Any, fit: StepFit) -> None:
    """Operations a second, overheads taken off, by operations per byte."""
    work, cost = fit.work, cost_vector(fit.parameters)
    operations = work.linear_operations.sum(axis=1) + work.other_operations.sum(axis=1)
    traffic = work.linear_bytes.sum(axis=1) + work.other_bytes.sum(axis=1)
    busy = fit.measured_s - work.communication_s - cost[6] - cost[7] * work.sequences
    intensity = 1e3 * operations / traffic
    for phase, with_prefill, colour in _PHASES:
        chosen = (work.with_prefill == with_prefill) & (busy > 0)
        for bound, marker in ((True, "o"), (False, "x")):
            rows = chosen & (fit.compute_bound == bound)
            axes.scatter(
                intensity[rows],
                operations[rows] / busy[rows],
                s=14,
                color=colour,
                marker=marker,
                alpha=0.5,
                label=f"{phase}, bound by {'arithmetic' if bound else 'memory'}",
            )
        first = 0 if with_prefill else 3
        span = np.geomspace(intensity.min(), intensity.max(), 200)
        roof = np.minimum(1 / cost[first], span / 1e3 / cost[first + 2])
        axes.plot(span, roof, color=colour, label=f"{phase}, fitted roof")
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="TFLOPS")
    axes.legend(fontsize=7)


def _agreement(axes: Any, fit: StepFit) -> None:
    measured, predicted = 1e3 * fit.measured_s, 1e3 * fit.predicted_s
    for phase, with_prefill, colour in _PHASES:
        rows = (fit.work.with_prefill == with_prefill) & ~fit.outliers
        axes.scatter(
            measured[rows], predicted[rows], s=10, color=colour, alpha=0.4, label=f"with {phase}"
        )
    axes.scatter(
        measured[fit.outliers],
        predicted[fit.outliers],
        s=20,
        color="black",
        marker="x",
        label="disturbed, not fitted to",
    )
    span = [measured.min(), measured.max()]
    axes.plot(span, span, color="black", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms")
    axes.legend(fontsize=7)


def _residuals(axes: Any, fit: StepFit) -> None:
    left = 100 * (fit.predicted_s / fit.measured_s - 1)
    kept = ~fit.outliers
    for phase, with_prefill, colour in _PHASES:
        rows = (fit.work.with_prefill == with_prefill) & kept
        axes.scatter(
            1e3 * fit.measured_s[rows],
            left[rows],
            s=10,
            color=colour,
            alpha=0.4,
            label=f"with {phase}",
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xscale="log", xlabel="measured, ms", ylabel="predicted too long by, %")
    axes.legend(fontsize=7)
