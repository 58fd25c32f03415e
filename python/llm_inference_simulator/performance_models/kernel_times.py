"""Kernel times of one model's shapes, read out of an accelerator's measured tables."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llm_inference_simulator.calibration.kernel_tables import KernelTable, KernelTables
from llm_inference_simulator.catalog import XpuSpec
from llm_inference_simulator.performance_models.hardware import known_figure
from llm_inference_simulator.performance_models.interpolation import (
    Blend,
    Columns,
    Curve,
    Floats,
    Grid,
    Provenance,
    bilinear_blend,
    blended,
    curve_through,
    cut_at_window,
    extended,
    filled,
    linear_blend,
    monotone_rows,
    without_outliers,
)
from llm_inference_simulator.performance_models.operations import Attention, Experts, Gemm

BITS_PER_WEIGHT = {
    "bfloat16": 16.0,
    "fp8": 8.0,
    "fp8_block": 8.0,
    "int8": 8.0,
    "int4": 4.125,
    "mxfp4": 4.25,
    "nvfp4": 4.5,
}


class _AttentionSizes(NamedTuple):
    """What decides an attention kernel's work, beside sequences and lengths."""

    phase: str
    num_query_heads: float
    num_key_value_heads: float
    head_dim: int
    window: int
    kv_bytes: int


def causal_pairs(length: Floats, reach: Floats) -> Floats:
    """Query-key pairs of prompts of ``length`` tokens that see ``reach`` keys at most."""
    return np.asarray(reach * (reach + 1) / 2 + (length - reach) * reach)


def pairs_of(table: KernelTable) -> list[tuple[int, int]]:
    """The first axis of a table whose columns have two sizes."""
    return [(value[0], value[1]) for value in table.axes[0] if isinstance(value, tuple)]


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
        shapes = pairs_of(table)
        blend = bilinear_blend(shapes, (shape.n, shape.k))
        tokens = np.array(table.axes[1], dtype=np.float64)
        roof = functools.partial(self.gemm_roof, format_=format_)

        def column(index: int) -> Floats:
            return np.asarray(roof_column(index) / table.latency_ns[index] * 1e9)

        def roof_column(index: int) -> Floats:
            n, k = shapes[index]
            return roof(tokens, n, k)

        efficiency = blended(Columns(shapes, column, roof_column), blend)
        own = functools.partial(self.gemm_roof, format_=shape.format)
        seconds = own(tokens, shape.n, shape.k) / efficiency
        provenance = blend.provenance if format_ == shape.format else "extrapolated"
        return curve_through(tokens, seconds, largest, provenance)

    def gemm_roof(self, tokens: Floats, n: float, k: float, format_: str) -> Floats:
        """Seconds at the accelerator's peaks: two operations a weight and token, weights once."""
        width = BITS_PER_WEIGHT[format_] / 8
        compute = 2 * tokens * n * k / self._flops(format_)
        memory = (n * k * width + 2 * tokens * (n + k)) / self._bandwidth
        return np.maximum(compute, memory)

    @property
    def _bandwidth(self) -> float:
        return known_figure(self.xpu, self.xpu.memory_bytes_per_s)

    @property
    def _dense_flops(self) -> float:
        return known_figure(self.xpu, self.xpu.bf16_flops)

    def _flops(self, format_: str) -> float:
        native = {"fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "nvfp4": "fp4"}.get(format_)
        own = None if native is None else self.xpu.peak_flops(native)  # type: ignore[arg-type]
        return own or self._dense_flops

    def _gemm_table(self, format_: str) -> tuple[KernelTable | None, str]:
        """The table of a format, else that of 16 bits, whose efficiency then stands in."""
        for name in {"fp8_block": ("fp8_block", "fp8")}.get(format_, (format_,)):
            table = self.tables.get("gemm", name)
            if table is not None:
                return table, name
        return self.tables.get("gemm", "bfloat16"), "bfloat16"

    def attention(self, shape: Attention, kv_dtype: str) -> Grid | None:
        """Seconds by (sequences, keys each reads) of decoding, or (chunks, tokens each) of prompts.

        A window is looked up where it was measured; else its layers see as many keys as the
        window, at the efficiency of full attention.
        """
        kernel = f"{shape.phase}_attention"
        table, window, same = self._attention_table(kernel, kv_dtype, shape.head_dim, shape.window)
        if table is None:
            return None
        head_dim = int(table.attributes[1])
        pairs = pairs_of(table)
        blend, scale = _heads(pairs, shape.num_query_heads, shape.num_key_value_heads)
        batch = np.array(table.axes[1], dtype=np.float64)
        length = np.array(table.axes[2], dtype=np.float64)
        bytes_ = 1 if kv_dtype == "fp8" else 2

        def roof(seqs: Floats, heads: tuple[float, float], width: int, reach: int) -> Floats:
            sizes = _AttentionSizes(shape.phase, *heads, width, reach, bytes_)
            return self._attention_roof(sizes, seqs[:, None], length[None, :])

        def column(index: int) -> Floats:
            measured = table.latency_ns[index]
            if shape.phase == "prefill":
                measured = measured[:, :, 0]
            return np.asarray(roof_column(index) / measured * 1e9)

        def roof_column(index: int) -> Floats:
            return roof(batch, pairs[index], head_dim, window)

        efficiency = blended(Columns(pairs, column, roof_column), blend)
        # Fewer heads in more sequences are the same work: batch b of the table stands for b/scale.
        own = batch / scale
        heads = (shape.num_query_heads, shape.num_key_value_heads)
        # Decoding reads the table at the window instead, where efficiency was measured.
        reach = shape.window if shape.phase == "prefill" else window
        seconds = roof(own, heads, shape.head_dim, reach) / efficiency
        seconds = monotone_rows(without_outliers(seconds))
        provenance = blend.provenance if same else "extrapolated"
        if shape.phase == "decode" and shape.window and window:
            length, seconds = cut_at_window(length, seconds, shape.window)
        grid = extended(own, length, seconds, provenance)
        if shape.phase == "prefill" and len(table.axes[3]) > 1:
            nearest, _ = max(blend.columns, key=lambda column: column[1])
            per_pair, saturating = _cached_slopes(table, nearest)
            more = shape.num_query_heads / pairs[nearest][0]
            grid = grid._replace(cached=(per_pair * more, saturating / more))
        return grid

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

    def _attention_roof(self, sizes: _AttentionSizes, seqs: Floats, length: Floats) -> Floats:
        query = sizes.num_query_heads * sizes.head_dim
        cached = 2 * sizes.num_key_value_heads * sizes.head_dim * sizes.kv_bytes
        reach = np.minimum(length, sizes.window) if sizes.window else length
        if sizes.phase == "prefill":
            pairs, tokens, keys = causal_pairs(length, reach), length, length
        else:
            pairs, tokens, keys = reach, np.ones_like(length), reach
        compute = 4 * query * seqs * pairs / self._dense_flops
        memory = seqs * (keys * cached + 4 * tokens * query) / self._bandwidth
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
        blend = linear_blend(heads, num_heads)
        work = batch[:, None] * (length[None, :] if phase == "prefill" else np.ones((1, 1)))

        def column(index: int) -> Floats:
            # Work over time; the module's projections make it no plain roofline.
            return np.asarray(work / table.latency_ns[index] * 1e9)

        def work_column(_: int) -> Floats:
            return np.broadcast_to(work, table.latency_ns.shape[1:])

        columns = Columns([(count, 1) for count in heads], column, work_column)
        seconds = work / blended(columns, blend)
        seconds = monotone_rows(without_outliers(seconds))
        return extended(batch, length, seconds, blend.provenance if same else "extrapolated")

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
        roof = self._experts_roof(tokens, shapes[nearest], theirs)
        efficiency = filled(roof / table.latency_ns[nearest] * 1e9, tokens)
        seconds = self._experts_roof(tokens, own, shape.format, shape.imbalance) / efficiency
        provenance: Provenance = "measured" if same and shapes[nearest] == own else "extrapolated"
        curve = curve_through(tokens, seconds, largest * shape.engines, provenance)
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

    def _experts_roof(
        self, tokens: Floats, shape: tuple[int, ...], format_: str, imbalance: float = 1.0
    ) -> Floats:
        hidden, whole, top_k, experts, tensor_parallel, expert_parallel = shape
        width = whole / tensor_parallel
        awake = experts / expert_parallel * (1 - (1 - top_k / experts) ** tokens)
        visits = imbalance * tokens * top_k / expert_parallel
        compute = 6 * visits * hidden * width / self._flops(format_)
        weights = awake * 3 * hidden * width * BITS_PER_WEIGHT[format_] / 8
        memory = (weights + 2 * visits * (2 * hidden + 3 * width)) / self._bandwidth
        return np.maximum(compute, memory)

    def elementwise(self, name: str, width: float, largest: int) -> Curve | None:
        """Seconds by tokens of a kernel that passes over ``width`` numbers a token."""
        tables = [t for t in self.tables.of("elementwise") if t.attributes[0] == name]
        if not tables:
            return None
        table = min(tables, key=lambda t: abs(math.log(int(t.attributes[1]) / width)))
        ratio = width / int(table.attributes[1])
        # As many numbers take as long, however they are divided into tokens.
        tokens = np.array(table.axes[0], dtype=np.float64)
        curve = curve_through(tokens, table.latency_ns / 1e9, largest * ratio, "measured")
        return Curve(curve.x / ratio, curve.seconds, "measured" if ratio == 1 else "interpolated")

    def collective(self, kernel: str, ranks: int, launch: str | None = None) -> Curve | None:
        """Seconds by bytes; None where the group's size was not measured."""
        table = self.tables.get(kernel, *(() if launch is None else (launch,)))
        if table is None or ranks not in table.axes[0]:
            return None
        measured = table.latency_ns[table.axes[0].index(ranks)]
        known = ~np.isnan(measured)
        size = np.array(table.axes[1], dtype=np.float64)[known]
        return curve_through(size, measured[known] / 1e9, 0, "measured")


def _cached_slopes(table: KernelTable, column: int) -> tuple[float, float]:
    """(seconds of a pair, saturating tokens) from the longest chunk and the shortest one."""
    tokens, cached = np.array(table.axes[2], float), np.array(table.axes[3], float)
    measured = table.latency_ns[column, 0] / 1e9
    known = ~np.isnan(measured[:, 0]) & ~np.isnan(measured[:, -1])
    slopes = (measured[known, -1] - measured[known, 0]) / (cached[-1] - cached[0])
    per_pair = float(slopes[-1] / tokens[known][-1])
    return per_pair, float(slopes[0] / per_pair)


def _expert_distance(theirs: tuple[int, ...], own: tuple[int, ...]) -> float:
    """How unlike two expert layers are, in factors of their sizes on one accelerator."""

    def sizes(shape: tuple[int, ...]) -> tuple[float, ...]:
        hidden, whole, top_k, experts, tensor_parallel, expert_parallel = shape
        local = experts / expert_parallel
        return (hidden, whole / tensor_parallel, top_k, local, expert_parallel, tensor_parallel)

    weights = (1.0, 1.0, 1.0, 1.0, 0.5, 0.1)
    pairs = zip(sizes(theirs), sizes(own), weights, strict=True)
    return sum(weight * abs(math.log(left / right)) for left, right, weight in pairs)


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
    blend = linear_blend([count for _, count in candidates], queries / scale)
    columns = [(candidates[index][0], weight) for index, weight in blend.columns]
    provenance = blend.provenance
    if scale != 1.0 and provenance == "measured":
        provenance = "interpolated"
    return Blend(columns, provenance), scale
