"""Step times from kernel tables, looked up one kernel at a time: what the compiled model equals.

Written for clarity: no compiled curves, a rising fit by its min-max formula, a linear search for
every neighbour. Tables here have every shape that the model needs, so no shape is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.kernel_tables import KernelTables


def rising(values: Sequence[float]) -> list[float]:
    """Least-squares rising fit: the largest over starts of the least over ends of the means."""
    n = len(values)

    def mean(start: int, end: int) -> float:
        return sum(values[start : end + 1]) / (end + 1 - start)

    return [
        max(min(mean(start, end) for end in range(k, n)) for start in range(k + 1))
        for k in range(n)
    ]


def cleaned(values: Sequence[float]) -> list[float]:
    """Points 1.5 times above what both neighbours say become the neighbours' geometric mean."""
    found = list(values)
    for i in range(1, len(values) - 1):
        left, middle, right = values[i - 1 : i + 2]
        between = (left * right) ** 0.5
        if middle > 1.5 * between and middle > 1.5 * max(left, right):
            found[i] = between
    return found


def line(x: float, x0: float, y0: float, x1: float, y1: float) -> float:
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def on_curve(x: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """Linear between knots, flat before the first, in proportion beyond the last."""
    if x <= knots[0]:
        return values[0]
    for i in range(len(knots) - 1):
        if x <= knots[i + 1]:
            return line(x, knots[i], values[i], knots[i + 1], values[i + 1])
    return values[-1] * x / knots[-1]


def gemm_seconds(tables: KernelTables, n: int, k: int, tokens: int) -> float:
    table = tables.get("gemm", "bfloat16")
    assert table is not None
    column = table.latency_ns[table.axes[0].index((n, k))] / 1e9
    knots = [float(value) for value in table.axes[1] if isinstance(value, int)]
    return on_curve(tokens, knots, rising(cleaned(column.tolist())))


def decode_seconds(tables: KernelTables, heads: tuple[int, int], seqs: int, mean: float) -> float:
    """Bilinear in sequences and mean context, inside the table."""
    table = tables.get("decode_attention", "bfloat16", 128, 0)
    assert table is not None
    rows = table.latency_ns[table.axes[0].index(heads)] / 1e9
    by_row = [rising(cleaned(row.tolist())) for row in rows]
    by_column = np.array([rising(list(column)) for column in zip(*by_row, strict=True)]).T
    x = [float(value) for value in table.axes[1] if isinstance(value, int)]
    y = [float(value) for value in table.axes[2] if isinstance(value, int)]
    i = max(i for i in range(len(x) - 1) if x[i] <= seqs)
    mean = max(mean, y[0])
    j = max(j for j in range(len(y) - 1) if y[j] <= mean)
    low = line(mean, y[j], by_column[i, j], y[j + 1], by_column[i, j + 1])
    high = line(mean, y[j], by_column[i + 1, j], y[j + 1], by_column[i + 1, j + 1])
    return line(seqs, x[i], low, x[i + 1], high)


def mean_context(step: StepShape) -> float:
    return step.decode_context_tokens / step.decode_seqs
