"""One page about a calibration: parameters, error, warnings and pictures, in a single file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.calibrators import StepCalibration
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_text
from vllm_benchmarks.pictures import draw

_STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:56em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;"
    "text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "img{max-width:100%}.w{color:#a40}"
)


def write_summary(path: Path, made: StepCalibration) -> tuple[str, ...]:
    """Write the page; returns warnings (no pictures without matplotlib)."""
    pictures = draw(made.fit)
    calibration = made.calibration
    title = f"Calibration of {calibration.model} on {calibration.xpu}"
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>",
        _facts(calibration),
        "<h2>Parameters</h2>",
        _parameters(calibration),
        *(f"<p class=w>{html.escape(warning)}</p>" for warning in made.fit.warnings),
    ]
    for name, picture in (pictures or {}).items():
        data = base64.b64encode(picture).decode()
        parts.append(f'<h2>{name}</h2><img alt="{name}" src="data:image/png;base64,{data}">')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_text(path) as file:
            file.write("\n".join(parts) + "\n")
    except OSError as error:
        raise ConfigError(
            f"summary {path} cannot be written: {error.strerror}; give another --data-dir"
        ) from None
    if pictures is None:
        return (
            f"{path} has no pictures: install matplotlib (pip install "
            "'llm-inference-simulator[pictures]')",
        )
    return ()


def _facts(calibration: CalibrationFile) -> str:
    error, covered = calibration.held_out_error, calibration.calibrated_range
    rows = {
        "date": calibration.provenance.get("date"),
        "steps": calibration.provenance.get("steps"),
        "disturbed steps, left out": calibration.provenance.get("outlier_steps"),
        "tensor_parallel_size": calibration.tensor_parallel_size,
        "dtype": calibration.dtype,
        "quantization": calibration.quantization,
    }
    if covered is not None:
        rows["measured up to"] = (
            f"{covered.prefill_tokens:,} prompt tokens a step, {covered.sequences:,} requests, "
            f"context {covered.context_tokens:,}"
        )
    if error is not None:
        rows["error on steps held out"] = (
            f"{error.mean_absolute_percent:.1f} % in the mean, {error.p90_absolute_percent:.1f} % "
            f"at p90, bias {error.bias_percent:+.1f} %"
        )
    if calibration.front_end is not None:
        rows["front end"] = f"{calibration.front_end.request_latency_ms:.2f} ms"
    for name, value in calibration.environment.items():
        if not isinstance(value, dict):
            rows[name] = value
    return _table([(name, str(value)) for name, value in rows.items() if value is not None])


def _parameters(calibration: CalibrationFile) -> str:
    rows = []
    for name, value in calibration.roofline_params.model_dump(exclude_none=True).items():
        interval = calibration.intervals.get(name)
        if interval is None:
            sure = f"assumed {calibration.assumed.get(name, '')}"
        else:
            sure = f"{calibration.confidence:.0%}: {interval.low:,.4g} to {interval.high:,.4g}"
        rows.append((name, f"{value:,.4g}", sure))
    for phase, knee in calibration.knees_flop_per_byte.items():
        rows.append((f"knee of {phase}, operations per byte", f"{knee:,.4g}", ""))
    return _table(rows)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = []
    for name, *values in rows:
        cells = "".join(f"<td class=n>{html.escape(value)}</td>" for value in values)
        lines.append(f"<tr><th>{html.escape(name)}</th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
