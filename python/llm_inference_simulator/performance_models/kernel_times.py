"""Kernel times of one model's shapes, read out of an accelerator's measured tables.

A time between measured shapes is the roofline's time over the *efficiency* there (roofline time
over measured time), which is interpolated linearly in the logarithm of both: efficiencies vary
slowly where times vary over decades. Beyond the table the nearest efficiency is kept, so that the
roofline's slope takes over. Along the sums of a step (tokens, batch, context) times are linear
between measured points; they are made monotone first, because outliers and tile edges are not
what a step should be scheduled by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration.kernel_tables import KernelTable, KernelTables
from llm_inference_simulator.catalog import XpuSpec
from llm_inference_simulator.performance_models.composition import Attention, Experts, Gemm

Provenance = Literal["measured", "interpolated", "fitted", "extrapolated", "analytic"]
PROVENANCES: tuple[Provenance, ...] = (
    "measured",
    "interpolated",
    "fitted",
    "extrapolated",
    "analytic",
)
"""From what is surest on; ``fitted``: a constant estimated on whole runs."""

Floats = NDArray[np.float64]

OUTLIER = 1.5
"""A point this many times above what both neighbours say is an outlier."""

BITS_PER_WEIGHT = {
    "bfloat16": 16.0,
    "fp8": 8.0,
    "fp8_block": 8.0,
    "int8": 8.0,
    "int4": 4.125,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
}


class Curve(NamedTuple):
    """Seconds by one sum of the step."""

    x: Floats
    seconds: Floats
    provenance: Provenance


class Grid(NamedTuple):
    """Seconds by two sums of the step."""

    x: Floats
    y: Floats
    seconds: Floats
    provenance: Provenance


class Blend(NamedTuple):
    """A weighted choice of table columns, and where that puts the shape."""

    columns: list[tuple[int, float]]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """Times of kernels on one accelerator."""

    tables: KernelTables
    xpu: XpuSpec

    def gemm(self, shape: Gemm, largest: int) -> Curve | None:
        """Seconds by tokens up to at least ``largest``; None where no table can tell."""
        table, format_ = self._gemm_table(shape.format)
        if table is None:
            return None
        shapes = table.axes[0]
        blend = _bilinear(
            [tuple(pair) for pair in shapes],  # type: ignore[arg-type]
            (shape.n, shape.k),
        )
        tokens = np.array(table.axes[1], dtype=np.float64)
        roof = functools.partial(self.gemm_roof, format_=format_)

        def column(index: int) -> Floats:
            n, k = shapes[index]  # type: ignore[misc]
            return _filled(roof(tokens, n, k) / table.latency_ns[index] * 1e9, tokens)

        efficiency = _blended(column, blend)
        own = functools.partial(self.gemm_roof, format_=shape.format)
        seconds = own(tokens, shape.n, shape.k) / efficiency
        provenance = blend.provenance if format_ == shape.format else "extrapolated"
        return _curve(tokens, seconds, largest, provenance)

    def gemm_roof(self, tokens: Floats, n: float, k: float, format_: str) -> Floats:
        """Seconds at the accelerator's peaks: two operations a weight and token, weights once."""
        width = BITS_PER_WEIGHT[format_] / 8
        compute = 2 * tokens * n * k / self._flops(format_)
        memory = (n * k * width + 2 * tokens * (n + k)) / self.xpu.memory_bytes_per_s
        return np.maximum(compute, memory)

    def _flops(self, format_: str) -> float:
        native = {"fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "nvfp4": "fp4"}.get(format_)
        own = None if native is None else self.xpu.peak_flops(native)  # type: ignore[arg-type]
        return own or self.xpu.bf16_flops

    def _gemm_table(self, format_: str) -> tuple[KernelTable | None, str]:
        """The table of a format, else that of 16 bits, whose efficiency then stands in."""
        table = self.tables.get("gemm", format_)
        if table is not None and table.points > 5000:
            return table, format_
        return self.tables.get("gemm", "bfloat16"), "bfloat16"

    def attention(self, shape: Attention, kv_dtype: str) -> Grid | None:
        """Seconds by (sequences, keys each reads) of decoding, or (chunks, tokens each) of prompts.

        A window is looked up where it was measured; else its layers read as many keys as the
        window, at the price of full attention.
        """
        kernel = f"{shape.phase}_attention"
        table, window, same = self._attention_table(kernel, kv_dtype, shape.head_dim, shape.window)
        if table is None:
            return None
        head_dim = int(table.attributes[1])
        pairs: list[tuple[int, int]] = [tuple(pair) for pair in table.axes[0]]  # type: ignore[misc]
        blend, scale = _heads(pairs, shape.num_query_heads, shape.num_key_value_heads)
        batch = np.array(table.axes[1], dtype=np.float64)
        length = np.array(table.axes[2], dtype=np.float64)
        bytes_ = 1 if kv_dtype == "fp8" else 2

        def roof(seqs: Floats, heads: tuple[float, float], width: int) -> Floats:
            return self._attention_roof(
                shape.phase, seqs[:, None], length[None, :], heads, width, window, bytes_
            )

        def column(index: int) -> Floats:
            measured = table.latency_ns[index]
            if shape.phase == "prefill":
                measured = measured[:, :, 0]
            efficiency = roof(batch, pairs[index], head_dim) / measured * 1e9
            return _filled_rows(efficiency, length, batch)

        efficiency = _blended(column, blend)
        # Fewer heads in more sequences are the same work: batch b of the table stands for b/scale.
        own = batch / scale
        heads = (shape.num_query_heads, shape.num_key_value_heads)
        seconds = roof(own, heads, shape.head_dim) / efficiency
        seconds = _monotone_rows(_without_outliers(seconds))
        provenance = blend.provenance if same else "extrapolated"
        if shape.phase == "decode" and shape.window and window:
            length, seconds = _cut_at_window(length, seconds, shape.window)
        return _extended(own, length, seconds, provenance)

    def _attention_table(
        self, kernel: str, kv_dtype: str, head_dim: int, window: int
    ) -> tuple[KernelTable | None, int, bool]:
        """The nearest table, the window that it has, and whether it is the very one."""
        for wanted in dict.fromkeys((window, 0)):
            own = self.tables.get(kernel, kv_dtype, head_dim, wanted)
            if own is not None:
                return own, wanted, wanted == window
        others = [table for table in self.tables.of(kernel) if table.attributes[2] == 0]
        if not others:
            return None, 0, False

        def distance(table: KernelTable) -> tuple[bool, float]:
            dtype, width, _ = table.attributes
            return dtype != kv_dtype, abs(math.log(int(width) / head_dim))

        return min(others, key=distance), 0, False

    def _attention_roof(
        self,
        phase: str,
        seqs: Floats,
        length: Floats,
        heads: tuple[float, float],
        head_dim: int,
        window: int,
        kv_bytes: int,
    ) -> Floats:
        query, cached = heads[0] * head_dim, 2 * heads[1] * head_dim * kv_bytes
        reach = np.minimum(length, window) if window else length
        pairs = reach * (reach + 1) / 2 + (length - reach) * reach if phase == "prefill" else reach
        tokens = length if phase == "prefill" else np.ones_like(length)
        compute = 4 * query * seqs * pairs / self.xpu.bf16_flops
        keys = length if phase == "prefill" else reach
        memory = seqs * (keys * cached + 4 * tokens * query) / self.xpu.memory_bytes_per_s
        return np.maximum(compute, memory)

    def latent_attention(
        self, phase: str, num_heads: float, format_: str, kv_dtype: str
    ) -> Grid | None:
        """Seconds of a whole module of latent attention, as :meth:`attention` counts."""
        kernel = f"mla_{phase}"
        table, same = None, False
        for wanted in dict.fromkeys((format_, "fp8_block" if format_ == "fp8" else format_)):
            table = table or self.tables.get(kernel, wanted, kv_dtype)
            same = table is not None
        table = table or self.tables.get(kernel, "bfloat16", kv_dtype)
        table = table or self.tables.get(kernel, "bfloat16", "bfloat16")
        if table is None:
            return None
        heads = [pair[0] for pair in table.axes[0]]  # type: ignore[index]
        batch = np.array(table.axes[1], dtype=np.float64)
        length = np.array(table.axes[2], dtype=np.float64)
        blend = _linear(heads, num_heads)
        work = batch[:, None] * (length[None, :] if phase == "prefill" else np.ones((1, 1)))

        def column(index: int) -> Floats:
            # Time over a unit of work; the module's projections make it no plain roofline.
            per_token = work / table.latency_ns[index] * 1e9
            return _filled_rows(per_token, length, batch)

        seconds = work / _blended(column, blend)
        seconds = _monotone_rows(_without_outliers(seconds))
        return _extended(batch, length, seconds, blend.provenance if same else "extrapolated")

    def experts(self, shape: Experts, distribution: str, largest: int) -> Curve | None:
        """Seconds of a layer's routed experts by tokens of one engine."""
        table, same = self._experts_table(shape.format, distribution)
        if table is None:
            return None
        shapes: list[tuple[int, ...]] = [tuple(entry) for entry in table.axes[0]]  # type: ignore[arg-type]
        own = (
            shape.hidden_size,
            shape.intermediate_size,
            shape.top_k,
            shape.num_experts,
            shape.tensor_parallel_size,
            shape.expert_parallel_size,
        )
        nearest = min(range(len(shapes)), key=lambda index: _expert_distance(shapes[index], own))
        tokens = np.array(table.axes[1], dtype=np.float64)
        theirs = str(table.attributes[0])
        efficiency = _filled(
            self._experts_roof(tokens, shapes[nearest], theirs) / table.latency_ns[nearest] * 1e9,
            tokens,
        )
        seconds = self._experts_roof(tokens, own, shape.format) / efficiency
        provenance: Provenance = "measured" if same and shapes[nearest] == own else "extrapolated"
        curve = _curve(tokens, seconds, largest * shape.engines, provenance)
        return Curve(curve.x / shape.engines, curve.seconds, provenance)

    def _experts_table(self, format_: str, distribution: str) -> tuple[KernelTable | None, bool]:
        # The tables' "fp8" is ModelOpt's per-tensor kernel; checkpoints with scales by channel or
        # block run the Triton kernel of "fp8_block".
        names = {"fp8": ("fp8_block", "fp8")}.get(format_, (format_,))
        for name in (*names, "bfloat16"):
            for spread in (distribution, "power_law_1.2", "power_law_1.01", "balanced"):
                table = self.tables.get("experts", name, spread)
                if table is not None:
                    return table, name in names
        return None, False

    def _experts_roof(self, tokens: Floats, shape: tuple[int, ...], format_: str) -> Floats:
        hidden, whole, top_k, experts, tensor_parallel, expert_parallel = shape
        width = whole / tensor_parallel
        awake = experts / expert_parallel * (1 - (1 - top_k / experts) ** tokens)
        visits = tokens * top_k / expert_parallel
        compute = 6 * visits * hidden * width / self._flops(format_)
        weights = awake * 3 * hidden * width * BITS_PER_WEIGHT[format_] / 8
        memory = (weights + 2 * visits * (2 * hidden + 3 * width)) / self.xpu.memory_bytes_per_s
        return np.maximum(compute, memory)

    def collective(self, kernel: str, ranks: int, launch: str | None = None) -> Curve | None:
        """Seconds by bytes; None where the group's size was not measured."""
        table = self.tables.get(kernel, *(() if launch is None else (launch,)))
        if table is None or ranks not in table.axes[0]:
            return None
        measured = table.latency_ns[table.axes[0].index(ranks)]
        known = ~np.isnan(measured)
        size = np.array(table.axes[1], dtype=np.float64)[known]
        return _curve(size, measured[known] / 1e9, 0, "measured")


def _expert_distance(theirs: tuple[int, ...], own: tuple[int, ...]) -> float:
    """How unlike two expert layers are, in factors of their sizes on one accelerator."""

    def sizes(shape: tuple[int, ...]) -> tuple[float, ...]:
        hidden, whole, top_k, experts, tensor_parallel, expert_parallel = shape
        local = experts / expert_parallel
        return (hidden, whole / tensor_parallel, top_k, local, expert_parallel, tensor_parallel)

    weights = (1.0, 1.0, 1.0, 1.0, 0.5, 0.1)
    pairs = zip(sizes(theirs), sizes(own), weights, strict=True)
    return sum(weight * abs(math.log(left / right)) for left, right, weight in pairs)


def _linear(knots: Sequence[float], value: float) -> Blend:
    """Weights of the neighbours of ``value``, linear in its logarithm."""
    if value in knots:
        return Blend([(knots.index(value), 1.0)], "measured")
    order = sorted(range(len(knots)), key=lambda index: knots[index])
    if value <= knots[order[0]] or value >= knots[order[-1]]:
        return Blend([(order[0 if value <= knots[order[0]] else -1], 1.0)], "extrapolated")
    right = next(place for place, index in enumerate(order) if knots[index] > value)
    low, high = order[right - 1], order[right]
    share = math.log(value / knots[low]) / math.log(knots[high] / knots[low])
    return Blend([(low, 1 - share), (high, share)], "interpolated")


def _bilinear(shapes: Sequence[tuple[int, int]], value: tuple[float, float]) -> Blend:
    """Weights of the corners around a shape, linear in the logarithms of its two sizes."""
    place = {shape: index for index, shape in enumerate(shapes)}
    axes = [sorted({shape[side] for shape in shapes}) for side in (0, 1)]
    sides = [_linear(axis, size) for axis, size in zip(axes, value, strict=True)]
    corners = [
        ((axes[0][first], axes[1][second]), share * other)
        for first, share in sides[0].columns
        for second, other in sides[1].columns
    ]
    known = [(place[corner], weight) for corner, weight in corners if corner in place]
    provenance = max((side.provenance for side in sides), key=PROVENANCES.index)
    total = sum(weight for _, weight in known)
    if total > 0:
        if total < 1 - 1e-12:
            provenance = "extrapolated"
        return Blend([(index, weight / total) for index, weight in known], provenance)

    def distance(shape: tuple[int, int]) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(shape, value, strict=True))

    return Blend([(min(place.items(), key=lambda item: distance(item[0]))[1], 1.0)], "extrapolated")


def _heads(pairs: Sequence[tuple[int, int]], queries: float, keys: float) -> tuple[Blend, float]:
    """Columns for a number of heads, and how many table sequences stand for one.

    Key-value heads that were not measured are spread over more sequences: attention of s sequences
    with h heads is that of 2s sequences with h/2.
    """
    if (queries, keys) in pairs:
        return Blend([(list(pairs).index((int(queries), int(keys))), 1.0)], "measured"), 1.0
    measured = sorted({pair[1] for pair in pairs})
    base = max((count for count in measured if count <= keys), default=measured[0])
    # Multi-head tables (as many key-value heads as queries) say nothing of groups.
    grouped = [count for count in measured if any(p[1] == count and p[0] != count for p in pairs)]
    if base not in grouped and queries != keys and grouped:
        base = max((count for count in grouped if count <= keys), default=grouped[0])
    scale = keys / base
    candidates = [(index, pair[0]) for index, pair in enumerate(pairs) if pair[1] == base]
    blend = _linear([count for _, count in candidates], queries / scale)
    columns = [(candidates[index][0], weight) for index, weight in blend.columns]
    provenance = blend.provenance
    if scale != 1.0 and provenance == "measured":
        provenance = "interpolated"
    return Blend(columns, provenance), scale


def _blended(column: Callable[[int], Floats], blend: Blend) -> Floats:
    """Weighted geometric mean of columns."""
    logs = [weight * np.log(column(index)) for index, weight in blend.columns]
    return np.exp(functools.reduce(np.add, logs))


def _filled(values: Floats, x: Floats) -> Floats:
    """Fill gaps linearly in the logarithms of both; hold the outermost value beyond."""
    known = ~np.isnan(values)
    if known.all():
        return values
    return np.exp(np.interp(np.log(x), np.log(x[known]), np.log(values[known])))


def _filled_rows(values: Floats, y: Floats, x: Floats) -> Floats:
    """Fill each row, then rows without any point from their neighbours."""
    rows = np.array([_filled(row, y) if (~np.isnan(row)).any() else row for row in values])
    empty = np.isnan(rows).all(axis=1)
    if empty.any():
        rows = np.array([_filled(column, x) for column in rows.T]).T
    return rows


def _without_outliers(values: Floats) -> Floats:
    """Replace points far above what both neighbours along the last axis say."""
    cleaned = values.copy()
    between = np.sqrt(values[..., :-2] * values[..., 2:])
    neighbours = np.maximum(values[..., :-2], values[..., 2:])
    middle = values[..., 1:-1]
    outlier = (middle > OUTLIER * between) & (middle > OUTLIER * neighbours)
    cleaned[..., 1:-1] = np.where(outlier, between, middle)
    return cleaned


def monotone(values: Floats) -> Floats:
    """Least-squares rising fit (pool adjacent violators): means over runs that would fall."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, weight = blocks.pop()
            before = blocks[-1]
            total = before[1] + weight
            before[0] = (before[0] * before[1] + mean * weight) / total
            before[1] = total
    return np.concatenate([np.full(int(weight), mean) for mean, weight in blocks])


def _monotone_rows(values: Floats) -> Floats:
    """Rise along both axes: a rising fit of rising rows keeps the rows rising."""
    rows = np.array([monotone(row) for row in values])
    columns = np.array([monotone(column) for column in rows.T]).T
    # Rounding of means may undo a tie by an ulp.
    return np.maximum.accumulate(np.maximum.accumulate(columns, axis=0), axis=1)


def _curve(x: Floats, seconds: Floats, largest: float, provenance: Provenance) -> Curve:
    """A rising curve, continued in proportion from its last point to twice what may be asked."""
    rising = monotone(_without_outliers(seconds))
    end = 2 * max(float(x[-1]), largest)
    return Curve(np.append(x, end), np.append(rising, rising[-1] * end / x[-1]), provenance)


def _cut_at_window(length: Floats, seconds: Floats, window: int) -> tuple[Floats, Floats]:
    """Seconds by keys read: longer contexts read the window's."""
    inside, beyond = length < window, length > window
    plateau = np.median(seconds[:, beyond], axis=1) if beyond.any() else seconds[:, -1]
    plateau = np.maximum(plateau, seconds[:, inside].max(axis=1, initial=0.0))
    cut = np.column_stack([seconds[:, inside], plateau])
    return np.append(length[inside], float(window)), _monotone_rows(cut)


def _extended(x: Floats, y: Floats, seconds: Floats, provenance: Provenance) -> Grid:
    """One more knot on each axis: both times go on in proportion to the work."""
    x, y = np.append(x, 2 * x[-1]), np.append(y, 2 * y[-1])
    slope = np.maximum(seconds[:, -1] - seconds[:, -2], 0) / (y[-2] - y[-3])
    beyond = seconds[:, -1] + slope * (y[-1] - y[-2])
    wider = np.column_stack([seconds, np.maximum.accumulate(beyond)])
    return Grid(x, y, np.vstack([wider, 2 * wider[-1]]), provenance)
