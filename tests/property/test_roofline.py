"""The roofline of random models against exact rational arithmetic, and what must be monotone."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator._core import CostModel, StepShape
from llm_inference_simulator.performance_models.core_roofline import (
    MixtureShape,
    PhaseRates,
    RooflineHardware,
    RooflineModelShape,
)

sizes = st.integers(1, 20_000)
rates = st.builds(
    PhaseRates,
    linear_flops=st.floats(1e11, 1e16),
    attention_flops=st.floats(1e11, 1e16),
    memory_bandwidth=st.floats(1e10, 1e14),
)
constants = st.floats(0, 1e-2)
hardware_of = st.builds(
    RooflineHardware,
    prefill=rates,
    decode=rates,
    kernel_latency_s=constants,
    step_overhead_s=constants,
    sequence_overhead_s=constants,
    link_bandwidth=st.floats(1e8, 1e13),
    link_latency_s=constants,
    all_reduce=st.sampled_from(["ring", "tree", "auto"]),
)


@st.composite
def models(draw: st.DrawFn) -> RooflineModelShape:
    ranks = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    kv_heads = draw(st.sampled_from([1, 2, 4, 8, 48]))
    layers = draw(st.integers(1, 130))
    return RooflineModelShape(
        num_layers=layers,
        hidden_size=draw(sizes),
        num_attention_heads=48 * draw(st.integers(1, 4)),
        num_key_value_heads=kv_heads,
        head_dim=draw(st.integers(1, 512)),
        intermediate_size=draw(sizes),
        gated_mlp=draw(st.booleans()),
        vocab_size=draw(st.integers(1, 300_000)),
        tensor_parallel_size=ranks,
        weight_bytes=draw(st.sampled_from([0.515625, 1.0, 2.0])),
        embedding_bytes=2.0,
        activation_bytes=2.0,
        kv_cache_bytes=draw(st.sampled_from([1.0, 2.0])),
        mixture=draw(st.none() | mixtures(layers)),
    )


@st.composite
def mixtures(draw: st.DrawFn, num_layers: int) -> MixtureShape:
    experts = draw(st.integers(1, 64))
    return MixtureShape(
        num_layers=draw(st.integers(1, num_layers)),
        num_experts=experts,
        experts_per_token=draw(st.integers(1, min(8, experts))),
        intermediate_size=draw(sizes),
        shared_intermediate_size=draw(st.just(0) | sizes),
        weight_bytes=draw(st.sampled_from([0.53125, 1.0, 2.0])),
    )


@st.composite
def steps(draw: st.DrawFn) -> StepShape:
    """Sums of a few chunks and decoding requests; some steps have only one kind."""
    chunks = draw(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 8192)), max_size=4))
    contexts = draw(st.lists(st.integers(1, 100_000), max_size=6, min_size=0 if chunks else 1))
    unfinished = draw(st.integers(0, len(chunks)))
    return StepShape(
        prefill_seqs=len(chunks),
        prefill_tokens=sum(new for _, new in chunks),
        prefill_attention_pairs=sum(new * old + new * (new + 1) // 2 for old, new in chunks),
        prefill_context_tokens=sum(old + new for old, new in chunks),
        decode_seqs=len(contexts),
        decode_context_tokens=sum(contexts),
        sampled_seqs=len(contexts) + len(chunks) - unfinished,
    )


def exact_seconds(model: RooflineModelShape, xpu: RooflineHardware, step: StepShape) -> Fraction:
    """docs/cost_model.md, line by line, in fractions."""
    t, layers = model.tensor_parallel_size, model.num_layers
    h, d = Fraction(model.hidden_size), Fraction(model.head_dim)
    q = Fraction(model.num_attention_heads, t) * d
    k = max(Fraction(1), Fraction(model.num_key_value_heads, t)) * d
    m = 2 if model.gated_mlp else 1
    i, v = Fraction(model.intermediate_size, t), Fraction(model.vocab_size, t)
    w, e = Fraction(model.weight_bytes), Fraction(model.embedding_bytes)
    a, b = Fraction(model.activation_bytes), Fraction(model.kv_cache_bytes)
    tokens, samples = step.prefill_tokens + step.decode_seqs, step.sampled_seqs
    rate = xpu.prefill if step.prefill_seqs else xpu.decode
    linear, other = Fraction(rate.linear_flops), Fraction(rate.attention_flops)

    def kernel(repeat: int, flops: Fraction | int, moved: Fraction, peak: Fraction) -> Fraction:
        work = max(flops / peak, moved / Fraction(rate.memory_bandwidth))
        return repeat * (work + Fraction(xpu.kernel_latency_s))

    def projection(inputs: Fraction, outputs: Fraction, repeat: int = layers) -> Fraction:
        moved = inputs * outputs * w + tokens * (inputs + outputs) * a
        return kernel(repeat, 2 * tokens * inputs * outputs, moved, linear)

    def mlp(width: Fraction, repeat: int) -> Fraction:
        if repeat == 0:
            return Fraction(0)
        moved = tokens * (m + 1) * width * a
        total = projection(h, m * width, repeat) + projection(width, h, repeat)
        return total + kernel(repeat, 4 * tokens * width, moved, other)

    def experts(mixture: MixtureShape) -> Fraction:
        repeat, e_count, n = mixture.num_layers, mixture.num_experts, mixture.experts_per_token
        x, stored = Fraction(mixture.intermediate_size, t), Fraction(mixture.weight_bytes)
        awake = e_count * (1 - Fraction(e_count - n, e_count) ** tokens)
        total = kernel(
            repeat, 2 * tokens * h * e_count, h * e_count * a + tokens * (h + e_count) * a, other
        )
        for inputs, outputs in ((h, m * x), (x, h)):
            moved = awake * inputs * outputs * stored + tokens * n * (inputs + outputs) * a
            total += kernel(repeat, 2 * tokens * n * inputs * outputs, moved, linear)
        total += kernel(repeat, 4 * tokens * n * x, tokens * n * (m + 1) * x * a, other)
        if mixture.shared_intermediate_size:
            total += mlp(Fraction(mixture.shared_intermediate_size, t), repeat)
        return total

    total = kernel(1, 0, 2 * tokens * h * a, other)
    total += kernel(2 * layers + 1, 4 * tokens * h, 4 * tokens * h * a, other)
    total += projection(h, q + 2 * k)
    total += kernel(layers, 0, 2 * tokens * k * (a + b), other)
    if step.prefill_tokens:
        moved = 2 * step.prefill_tokens * q * a + 2 * step.prefill_context_tokens * k * b
        total += kernel(layers, 4 * step.prefill_attention_pairs * q, moved, other)
    if step.decode_seqs:
        moved = 2 * step.decode_seqs * q * a + 2 * step.decode_context_tokens * k * b
        total += kernel(layers, 4 * step.decode_context_tokens * q, moved, other)
    total += projection(q, h)
    total += mlp(i, layers - (model.mixture.num_layers if model.mixture else 0))
    if model.mixture:
        total += experts(model.mixture)
    if samples:
        total += kernel(1, 2 * samples * h * v, h * v * e + samples * (h + v) * a, other)
    if t > 1:
        link, hop = Fraction(xpu.link_bandwidth), Fraction(xpu.link_latency_s)
        payload = tokens * h * a
        ring = Fraction(2 * (t - 1), t) * payload / link + 2 * (t - 1) * hop
        tree = 2 * payload / link + 2 * (t - 1).bit_length() * hop
        chosen = {"ring": ring, "tree": tree, "auto": min(ring, tree)}[xpu.all_reduce]
        total += (2 * layers + 1) * chosen
        if samples:
            total += samples * v * (t - 1) * a / link + (t - 1) * hop
    seqs = step.prefill_seqs + step.decode_seqs
    return total + Fraction(xpu.step_overhead_s) + seqs * Fraction(xpu.sequence_overhead_s)


@given(models(), hardware_of, steps())
def test_the_core_computes_the_formulas(
    model: RooflineModelShape, xpu: RooflineHardware, step: StepShape
) -> None:
    core = CostModel.roofline(model, xpu)
    exact = float(exact_seconds(model, xpu, step))
    assert core.step_seconds(step) == pytest.approx(exact, rel=1e-12)
    parts = core.breakdown(step)
    assert sum(part.seconds for part in parts) == pytest.approx(exact, rel=1e-12)
    assert len({part.name for part in parts}) == len(parts)


@given(models(), hardware_of, steps(), st.floats(1, 10))
def test_faster_hardware_is_never_slower(
    model: RooflineModelShape, xpu: RooflineHardware, step: StepShape, factor: float
) -> None:
    def scaled(rate: PhaseRates) -> PhaseRates:
        return dataclasses.replace(
            rate,
            linear_flops=rate.linear_flops * factor,
            memory_bandwidth=rate.memory_bandwidth * factor,
        )

    faster = dataclasses.replace(
        xpu,
        prefill=scaled(xpu.prefill),
        decode=scaled(xpu.decode),
        link_bandwidth=xpu.link_bandwidth * factor,
    )
    before = CostModel.roofline(model, xpu).step_seconds(step)
    assert CostModel.roofline(model, faster).step_seconds(step) <= before * (1 + 1e-12)


@given(models(), hardware_of, st.integers(1, 500), st.integers(1, 5000))
def test_a_larger_batch_never_costs_less(
    model: RooflineModelShape, xpu: RooflineHardware, batch: int, context: int
) -> None:
    core = CostModel.roofline(model, xpu)
    smaller = core.step_seconds(StepShape.decode(batch, context))
    assert core.step_seconds(StepShape.decode(batch + 1, context)) >= smaller * (1 - 1e-12)
    assert core.step_seconds(StepShape.decode(batch, context + 1)) >= smaller * (1 - 1e-12)
