"""Turns a model's operations into the functions of a step that the core adds up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.capacity import DTYPE_BYTES
from llm_inference_simulator.performance_models.hardware import RooflineHardware
from llm_inference_simulator.performance_models.interpolation import (
    Curve,
    Floats,
    Grid,
    Provenance,
)
from llm_inference_simulator.performance_models.kernel_times import KernelTimes, causal_pairs
from llm_inference_simulator.performance_models.operations import (
    Attention,
    Collective,
    Composition,
    Experts,
    Gemm,
    LatentAttention,
    Operation,
    Terms,
)

Function = Literal["tokens", "seqs", "sampled", "decode", "decode_window", "prefill"]

MEASURED_LATENT_ATTENTION = (7168, 1536, 512, 128, 64, 128)
"""Sizes of DeepSeek-V3's module, which the tables of whole modules measure."""

PROFILED_KERNELS = {
    "norms": "layernorm",
    "qk_norm": "qk_norm",
    "rotary_embedding": "rotary_emb",
    "mlp_activation": "act_fn",
    "shared_expert_activation": "act_fn",
}
"""Elementwise operations by their names in profiles."""

SATURATING_QUERIES = 12_000
"""Query rows (tokens times heads) of a prompt chunk below which attention to cached keys takes no
less time: too few tiles to fill the accelerator. The knee in the attention times of a 2,048-token
chunk grid on RTX PRO 6000 (188 units, 64 rows each; benchmark_data/README.md, kernel profiles)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One component's seconds as a function of a step, as the core reads it."""

    name: str
    function: Function
    x: list[float]
    y: list[float]
    values: list[float]
    provenance: Provenance
    bound: Literal["communication", "overhead"] | None = None
    shared: bool = False
    """Whether it serves the tokens of all engines that share the experts."""
    seconds_per_pair: float = 0.0
    saturating_tokens: float = 0.0
    seconds_per_key: float = 0.0
    window: int = 0


@dataclass(frozen=True, slots=True)
class TermBuilder:
    """The terms of one model on one accelerator."""

    composition: Composition
    times: KernelTimes
    hardware: RooflineHardware
    """Rates for what no table covers."""
    exchange_was_measured: bool
    """Whether an all-to-all runs inside a node, as the measured ones."""
    overheads: HostOverheads
    kv_dtype: str
    distribution: str
    """How tokens spread over experts."""
    largest_step: int
    """Tokens of the largest step."""
    penalties: bool
    """Whether requests have repetition penalties."""

    def terms(self, *, mixed: bool) -> list[Term]:
        """Terms of steps with prompt tokens, or of pure decode steps."""
        measured = self._measured_modules(mixed=mixed)
        found: list[Term] = []
        for operation in self.composition.operations:
            if operation.module in measured or (operation.runs == "prefill" and not mixed):
                continue
            found.extend(self._of(operation, mixed=mixed))
        found.extend(self._overhead())
        return found

    def _measured_modules(self, *, mixed: bool) -> set[str]:
        """Operations whose measured time contains that of others."""
        modules = set()
        for operation in self.composition.operations:
            if isinstance(operation.shape, LatentAttention) and self._latent(
                operation.shape, mixed=mixed
            ):
                modules.add("latent_attention")
            if isinstance(operation.shape, Experts) and self._experts(operation.shape):
                modules.add(operation.name)
        return modules

    def _of(self, operation: Operation, *, mixed: bool) -> Iterator[Term]:
        shape = operation.shape
        if isinstance(shape, Gemm):
            curve = self.times.gemm(shape, self.largest_step)
            yield self._by_tokens(operation, curve)
        elif isinstance(shape, Experts):
            yield self._by_tokens(operation, self._experts(shape))
        elif isinstance(shape, Collective):
            yield self._collective(operation, shape, mixed=mixed)
        elif isinstance(shape, Attention):
            yield self._attention(operation, self.times.attention(shape, self.kv_dtype), shape)
        elif isinstance(shape, LatentAttention):
            yield self._latent_term(operation, shape, mixed=mixed)
        else:
            yield self._elementwise(operation)

    def _elementwise(self, operation: Operation) -> Term:
        name = PROFILED_KERNELS.get(operation.name.removesuffix("_global"))
        width = dict(operation.bytes).get("tokens", 0.0) / DTYPE_BYTES
        if name is None or width == 0:
            return self._analytic(operation)
        return self._by_tokens(operation, self.times.elementwise(name, width, self.largest_step))

    def _experts(self, shape: Experts) -> Curve | None:
        return self.times.experts(shape, self.distribution, self.largest_step)

    def _latent(self, shape: LatentAttention, *, mixed: bool) -> Grid | None:
        # Dense prompts were measured, which is not what a sparse module computes.
        if shape.sizes != MEASURED_LATENT_ATTENTION or (shape.sparse and mixed):
            return None
        grid = self.times.latent_attention(
            shape.phase, shape.num_heads, shape.format, self.kv_dtype
        )
        if grid is not None and shape.sparse:
            return grid._replace(provenance="extrapolated")
        return grid

    def _by_tokens(self, operation: Operation, curve: Curve | None) -> Term:
        if curve is None:
            return self._analytic(operation)
        return Term(
            name=operation.name,
            function="sampled" if operation.runs == "sampling" else "tokens",
            x=curve.x.tolist(),
            y=[],
            values=(operation.repeat * curve.seconds).tolist(),
            provenance=curve.provenance,
            shared=operation.shared,
        )

    def _collective(self, operation: Operation, shape: Collective, *, mixed: bool) -> Term:
        # Steps with prompt tokens do not run as one CUDA graph: their all-reduces are launched.
        launch = None
        if operation.kind == "all_reduce":
            launch = "eager" if mixed else "graph"
        curve = None
        if operation.kind != "all_to_all" or self.exchange_was_measured:
            curve = self.times.collective(operation.kind, shape.ranks, launch)
        if curve is None or shape.bytes_per_token == 0:
            return replace(self._analytic(operation), bound="communication")
        factor = self.overheads.all_reduce_factor if operation.kind == "all_reduce" else 1.0
        tokens = curve.x / shape.bytes_per_token
        term = self._by_tokens(operation, Curve(tokens, factor * curve.seconds, curve.provenance))
        return replace(term, bound="communication")

    def _attention(self, operation: Operation, grid: Grid | None, shape: Attention) -> Term:
        if grid is None:
            return self._analytic(operation)
        return self._surface(operation, grid, shape.window, shape.num_query_heads)

    def _latent_term(self, operation: Operation, shape: LatentAttention, *, mixed: bool) -> Term:
        grid = self._latent(shape, mixed=mixed)
        if grid is None:
            return self._analytic(operation)
        if mixed and shape.phase == "decode":
            # The chunks' module has paid for the projections' weights already.
            grid = grid._replace(seconds=grid.seconds - grid.seconds[0, 0])
        window = self.composition.attention_window
        return self._surface(operation, grid, window[1] if window else 0, shape.num_heads)

    def _surface(
        self, operation: Operation, grid: Grid, window: int, num_query_heads: float
    ) -> Term:
        repeat = operation.repeat
        term = Term(
            name=operation.name,
            function="decode",
            x=grid.x.tolist(),
            y=grid.y.tolist(),
            values=(repeat * grid.seconds).ravel().tolist(),
            provenance=grid.provenance,
        )
        features = dict(operation.bytes)
        if operation.runs == "decode":
            windowed = "decode_window_tokens" in features
            return replace(term, function="decode_window" if windowed else "decode")
        windowed = "prefill_window_pairs" in dict(operation.operations)
        # Where all units work: the longest single chunk that was measured.
        chunk = float(grid.y[-2])
        reach = min(chunk, window) if windowed else chunk
        pairs = float(causal_pairs(np.array(chunk), np.array(reach)))
        cached = features.get("prefill_window_tokens", features.get("prefill_context_tokens", 0.0))
        per_pair, saturating = grid.cached or (
            grid.seconds_of_one(-2) / pairs,
            SATURATING_QUERIES / num_query_heads,
        )
        return replace(
            term,
            function="prefill",
            seconds_per_pair=repeat * per_pair,
            saturating_tokens=saturating,
            seconds_per_key=repeat * cached / self.hardware.prefill.memory_bandwidth,
            window=window if windowed else 0,
        )

    def _overhead(self) -> Iterator[Term]:
        constants = {"overhead": self.overheads.step_overhead_us}
        if self.penalties:
            constants["penalties"] = self.overheads.penalties_step_us
        for name, microseconds in constants.items():
            yield Term(
                name=name,
                function="seqs",
                x=[1.0, 2.0],
                y=[],
                values=[microseconds / 1e6] * 2,
                provenance="fitted",
                bound="overhead",
            )

    def _analytic(self, operation: Operation) -> Term:
        """Price an operation that no table has by the roofline, sampled at powers of two."""
        sums = {name for name, _ in (*operation.operations, *operation.bytes)} - {"one"}
        if operation.runs == "sampling" or sums <= {"tokens", "experts"}:
            return self._analytic_curve(operation)
        if operation.runs == "decode":
            return self._analytic_decode(operation)
        return self._analytic_prefill(operation)

    def _analytic_curve(self, operation: Operation) -> Term:
        x = 2.0 ** np.arange(0, 22)
        mixture = self.composition.mixture
        awake = np.zeros_like(x)
        if mixture is not None:
            missed = 1 - mixture.experts_per_token / mixture.num_experts
            awake = mixture.num_experts * (1 - missed ** (x * mixture.engines))
        sums = {"one": np.ones_like(x), "tokens": x, "sampled_seqs": x, "experts": awake}
        return Term(
            name=operation.name,
            function="sampled" if operation.runs == "sampling" else "tokens",
            x=x.tolist(),
            y=[],
            values=np.maximum.accumulate(self._seconds(operation, sums.__getitem__)).tolist(),
            provenance="analytic",
            shared=operation.shared,
        )

    def _analytic_decode(self, operation: Operation) -> Term:
        batch, keys = 2.0 ** np.arange(0, 13), 2.0 ** np.arange(0, 21)
        seqs = np.broadcast_to(batch[:, None], (batch.size, keys.size))
        context = batch[:, None] * keys[None, :]
        sums = {
            "one": np.ones_like(context),
            "decode_seqs": seqs,
            "decode_context_tokens": context,
            "decode_window_tokens": context,
        }
        features = {name for name, _ in (*operation.operations, *operation.bytes)}
        return Term(
            name=operation.name,
            function="decode_window" if "decode_window_tokens" in features else "decode",
            x=batch.tolist(),
            y=keys.tolist(),
            values=self._seconds(operation, sums.__getitem__).ravel().tolist(),
            provenance="analytic",
        )

    def _analytic_prefill(self, operation: Operation) -> Term:
        chunks, tokens = 2.0 ** np.arange(0, 11), 2.0 ** np.arange(0, 18)
        features = dict((*operation.operations, *operation.bytes))
        windowed = any(name.startswith("prefill_window") for name in features)
        bound = self.composition.attention_window
        window = float(bound[1]) if windowed and bound is not None else np.inf
        reach = np.minimum(tokens, window)
        pairs = causal_pairs(np.asarray(tokens, dtype=np.float64), reach)
        shape = (chunks.size, tokens.size)
        keys = chunks[:, None] * tokens[None, :]
        sums = {
            "one": np.ones(shape),
            "prefill_tokens": keys,
            "prefill_context_tokens": keys,
            "prefill_window_tokens": keys,
            "prefill_attention_pairs": chunks[:, None] * pairs[None, :],
            "prefill_window_pairs": chunks[:, None] * pairs[None, :],
        }

        def rate(terms: Terms, names: tuple[str, ...], per_second: float) -> float:
            return operation.repeat * sum(v for name, v in terms if name in names) / per_second

        contexts = ("prefill_context_tokens", "prefill_window_tokens")
        flops = self._flops(operation)
        return Term(
            name=operation.name,
            function="prefill",
            x=chunks.tolist(),
            y=tokens.tolist(),
            values=self._seconds(operation, sums.__getitem__).ravel().tolist(),
            provenance="analytic",
            seconds_per_pair=rate(
                operation.operations, ("prefill_attention_pairs", "prefill_window_pairs"), flops
            ),
            saturating_tokens=0.0,
            seconds_per_key=max(
                rate(operation.operations, contexts, flops),
                rate(operation.bytes, contexts, self.hardware.prefill.memory_bandwidth),
            ),
            window=0 if np.isinf(window) else int(window),
        )

    def _flops(self, operation: Operation) -> float:
        rates = self.hardware.prefill
        return rates.linear_flops if operation.kind == "linear_kernel" else rates.attention_flops

    def _seconds(self, operation: Operation, sums: Callable[[str], Floats]) -> Floats:
        """Roofline seconds of all runs of an operation in a step."""

        def total(terms: Terms) -> Floats:
            parts = [value * sums(name) for name, value in terms]
            return np.sum(parts, axis=0) if parts else np.zeros_like(sums("one"))

        if operation.kind in ("all_reduce", "all_gather", "all_to_all"):
            return self._link_seconds(operation, total(operation.bytes))
        compute = total(operation.operations) / self._flops(operation)
        memory = total(operation.bytes) / self.hardware.prefill.memory_bandwidth
        latency = self.overheads.kernel_latency_us / 1e6
        return operation.repeat * (np.maximum(compute, memory) + latency)

    def _link_seconds(self, operation: Operation, sent: Floats) -> Floats:
        """The faster of the algorithms that the group may take, as the core's roofline has it."""
        ranks, hardware = self.composition.ranks, self.hardware
        ring, tree = (
            (2 * (ranks - 1) / ranks, 2 * (ranks - 1)),
            (2.0, 2 * math.ceil(math.log2(ranks))),
        )
        ways = {
            "all_reduce": {"ring": [ring], "tree": [tree], "auto": [ring, tree]}[
                hardware.all_reduce
            ],
            "all_gather": [(1.0, ranks - 1)],
            "all_to_all": [(1.0, 1)],
        }[operation.kind]
        bandwidth, latency_s = hardware.link_bandwidth, hardware.link_latency_s
        if operation.kind == "all_to_all":
            bandwidth = hardware.exchange_bandwidth or bandwidth
            latency_s = hardware.exchange_latency_s or latency_s
        seconds = [wire * sent / bandwidth + hops * latency_s for wire, hops in ways]
        return np.asarray(operation.repeat * np.minimum.reduce(seconds))
