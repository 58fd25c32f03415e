"""Errors of the kernel tables' interpolation, on points that were kept out of them.

    python benchmarks/kernel_errors.py [--seed 0] [--profiles DIR]

For every shipped calibration a random tenth of the measured points of matrix products and attention
is removed, and predicted from the rest. With ``--profiles`` (the folder ``perf`` of LLMServingSim's
profiler) whole layers that were measured there, under another vLLM version, are predicted from the
tables of the same accelerator.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.kernel_tables import KernelTable, KernelTables
from llm_inference_simulator.calibration.shipped import open_calibration, shipped_names
from llm_inference_simulator.catalog import load_xpu
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from llm_inference_simulator.performance_models.kernel_times import KernelTimes, pairs_of
from llm_inference_simulator.performance_models.operations import Attention, Gemm

KERNELS = ("gemm", "prefill_attention", "decode_attention")
SHARE = 0.1

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profiles", type=Path)
    arguments = parser.parse_args()
    print(f"{'accelerator':14} {'kernel':26} {'points':>7} {'median':>8} {'p90':>8}")
    for name in shipped_names():
        for kernel, errors in kernel_errors(name, arguments.seed).items():
            _print(name, kernel, errors)
    if arguments.profiles:
        for name, errors in layer_errors(arguments.profiles / "RTXPRO6000", "rtx-pro-6000"):
            _print("rtx-pro-6000", name, errors)


def _print(xpu: str, what: str, errors: Floats) -> None:
    median, p90 = np.median(errors), np.quantile(errors, 0.9)
    print(f"{xpu:14} {what:26} {errors.size:7,} {median:8.2%} {p90:8.2%}")


def kernel_errors(name: str, seed: int) -> dict[str, Floats]:
    """|error| of the points kept out, by kernel (all formats together) and by format."""
    calibration = open_calibration(name)
    assert isinstance(calibration, KernelCalibration)
    random = np.random.default_rng(seed)
    kept, removed = [], []
    for table in calibration.tables:
        out = (random.random(table.latency_ns.shape) < SHARE) & ~np.isnan(table.latency_ns)
        if table.kernel not in KERNELS:
            out[:] = False
        removed.append((table, out))
        kept.append(dataclasses.replace(table, latency_ns=np.where(out, np.nan, table.latency_ns)))
    times = KernelTimes(KernelTables(kept), load_xpu(name))
    found: dict[str, list[float]] = defaultdict(list)
    for table, out in removed:
        if table.kernel not in KERNELS or not out.any():
            continue
        predicted = _gemms(times, table, out) if table.kernel == "gemm" else None
        errors = predicted if predicted is not None else _attentions(times, table, out)
        family = "gemm" if table.kernel == "gemm" else "attention"
        found[family] += errors
        if family != table.kernel:
            found[f"  {table.kernel}"] += errors
        found[f"  {table.kernel} {table.attributes[0]}"] += errors
    return {
        kernel: np.array(errors)
        for kernel, errors in sorted(found.items(), key=lambda item: item[0].strip())
    }


def _gemms(times: KernelTimes, table: KernelTable, out: Mask) -> list[float]:
    errors: list[float] = []
    tokens = np.array(table.axes[1], dtype=float)
    for column, (n, k) in enumerate(pairs_of(table)):
        if not out[column].any():
            continue
        curve = times.gemm(Gemm(n, k, str(table.attributes[0])), 1)
        assert curve is not None
        predicted = np.interp(tokens[out[column]], curve.x, curve.seconds) * 1e9
        errors += np.abs(predicted / table.latency_ns[column][out[column]] - 1).tolist()
    return errors


def _attentions(times: KernelTimes, table: KernelTable, out: Mask) -> list[float]:
    phase = "prefill" if table.kernel == "prefill_attention" else "decode"
    kv_dtype, head_dim, window = table.attributes
    errors: list[float] = []
    for column, (queries, keys) in enumerate(pairs_of(table)):
        measured, missing = table.latency_ns[column], out[column]
        if phase == "prefill":
            measured, missing = measured[:, :, 0], missing[:, :, 0]
        shape = Attention(queries, keys, int(head_dim), int(window), phase)  # type: ignore[arg-type]
        grid = times.attention(shape, str(kv_dtype))
        assert grid is not None
        for i, j in zip(*np.nonzero(missing), strict=True):
            length = float(table.axes[2][j])  # type: ignore[arg-type]
            if phase == "decode" and window:
                length = min(length, float(window))  # longer contexts read the window
            place = np.searchsorted(grid.y, length)
            errors.append(abs(grid.seconds[i, place] * 1e9 / measured[i, j] - 1))
    return errors


def layer_errors(folder: Path, xpu: str) -> Iterator[tuple[str, Floats]]:
    """|error| of whole layers: matrices, elementwise kernels and attention of one kind of step."""
    for dense in sorted(folder.rglob("dense.csv")):
        if not (dense.parent / "moe.csv").exists() and "A3B" not in str(dense):
            ranks = int(dense.parent.name.removeprefix("tp"))
            model = "-".join(dense.parent.parts[-3:-2]).lower()
            yield f"layer {model} tp{ranks}", _layers(dense, xpu, model, ranks)


def _layers(dense: Path, xpu: str, name: str, ranks: int) -> Floats:
    model = OpTablePerformanceModel(
        name, xpu, ranks, calibration=str(xpu_file(xpu)), max_model_len=32768
    )
    layer: dict[int, float] = defaultdict(float)
    for row in csv.DictReader(dense.open()):
        if row["layer"] not in ("embedding", "final_layernorm"):
            # Two norms a layer; every other kernel once.
            count = 2 if row["layer"] == "layernorm" else 1
            layer[int(row["tokens"])] += count * float(row["time_us"])
    errors = []
    for row in csv.DictReader((dense.parent / "attention.csv").open()):
        chunk, cached, seqs, context = (
            int(row[key]) for key in ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
        )
        if (chunk > 0) == (seqs > 0) or chunk + seqs not in layer:
            continue
        measured = layer[chunk + seqs] + float(row["time_us"])
        step = StepShape.prefill(1, chunk, cached) if chunk else StepShape.decode(seqs, context)
        once = ("embedding", "lm_head", "all_reduce", "logits_all_gather", "overhead", "penalties")
        seconds = sum(
            part.seconds for part in model.breakdown_step(step).values() if part.name not in once
        )
        errors.append(abs(seconds / model.model.num_layers * 1e6 / measured - 1))
    return np.array(errors)


def xpu_file(xpu: str) -> Path:
    """The shipped calibration's file."""
    from llm_inference_simulator.calibration.shipped import shipped_calibration

    path = shipped_calibration(xpu)
    assert path is not None
    return path


if __name__ == "__main__":
    main()
