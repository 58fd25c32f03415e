"""The roofline of random models against exact rational arithmetic, and what must be monotone."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator._core import CostModel, StepShape
from llm_inference_simulator.catalog.model_spec import (
    MlaSpec,
    ModelSpec,
    MoeSpec,
    QuantizationSpec,
)
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models.composition import attention_window, compose
from llm_inference_simulator.performance_models.hardware import PhaseRates, RooflineHardware
from llm_inference_simulator.performance_models.operations import Composition
from llm_inference_simulator.performance_models.weight_formats import WeightFormats
from tests.property.step_formulas import Setting, exact_seconds

LONGEST = 131_072

sizes = st.integers(1, 20_000)
constants = st.floats(0, 1e-2)
rates = st.builds(
    PhaseRates,
    linear_flops=st.floats(1e11, 1e16),
    attention_flops=st.floats(1e11, 1e16),
    memory_bandwidth=st.floats(1e10, 1e14),
    step_overhead_s=constants,
)
hardware_of = st.builds(
    RooflineHardware,
    prefill=rates,
    decode=rates,
    kernel_latency_s=constants,
    sequence_overhead_s=constants,
    link_bandwidth=st.floats(1e8, 1e13),
    link_latency_s=constants,
    all_reduce=st.sampled_from(["ring", "tree", "auto"]),
)
quantizations = st.builds(
    QuantizationSpec,
    method=st.just("fp8"),
    format=st.just("fp8"),
    bits=st.sampled_from([4, 8]),
    weight_only=st.just(False),
    overhead_bits=st.sampled_from([0.0, 0.125, 0.5]),
    components=st.sampled_from(
        [("experts",), ("attention", "mlp"), ("attention", "mlp", "experts", "shared_experts")]
    ),
)


@st.composite
def experts_of(draw: st.DrawFn, num_layers: int) -> MoeSpec:
    experts = draw(st.integers(1, 64))
    routed = draw(st.integers(1, num_layers))
    return MoeSpec(
        num_experts=experts,
        top_k=draw(st.integers(1, min(8, experts))),
        intermediate_size=draw(sizes),
        shared_intermediate_size=draw(st.just(0) | sizes),
        layers=tuple(layer < routed for layer in range(num_layers)),
        dense_beside_experts=draw(st.booleans()),
    )


@st.composite
def latent_attention(draw: st.DrawFn) -> MlaSpec:
    sparse = draw(st.booleans())
    return MlaSpec(
        kv_lora_rank=draw(st.integers(1, 1024)),
        q_lora_rank=draw(st.none() | st.integers(1, 2048)),
        qk_nope_head_dim=draw(st.integers(1, 256)),
        qk_rope_head_dim=draw(st.integers(1, 128)),
        v_head_dim=draw(st.integers(1, 256)),
        index_num_heads=draw(st.integers(1, 64)) if sparse else 0,
        index_head_dim=draw(st.integers(1, 256)) if sparse else 0,
        index_top_k=draw(st.integers(1, 4096)) if sparse else 0,
    )


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    layers = draw(st.integers(1, 60))
    kind: Literal["sliding", "chunked"] = draw(st.sampled_from(["sliding", "chunked"]))
    mla = draw(st.none() | latent_attention())
    windowed = draw(st.integers(0, layers)) if mla is None else 0
    return ModelSpec(
        name="random",
        source="random",
        model_type="random",
        num_layers=layers,
        hidden_size=draw(sizes),
        num_attention_heads=48 * draw(st.integers(1, 4)),
        num_key_value_heads=draw(st.sampled_from([1, 2, 4, 8, 48])),
        head_dim=draw(st.integers(1, 512)),
        intermediate_size=draw(sizes),
        gated_mlp=draw(st.booleans()),
        vocab_size=draw(st.integers(1, 300_000)),
        tie_word_embeddings=draw(st.booleans()),
        max_position_embeddings=LONGEST,
        dtype="bfloat16",
        attention_kinds=tuple(kind if layer < windowed else "full" for layer in range(layers)),
        window=draw(st.integers(1, 200_000)),
        qk_norm=draw(st.sampled_from(["none", "head"])),
        norms_per_layer=draw(st.sampled_from([2, 4])),
        final_norm=draw(st.booleans()),
        learned_positions=draw(st.sampled_from([0, 2048])),
        moe=draw(st.none() | experts_of(layers)),
        mla=mla,
    )


@st.composite
def settings(draw: st.DrawFn) -> tuple[Setting, Composition]:
    """A random model on random hardware, and its operations."""
    model, xpu = draw(models()), draw(hardware_of)
    quantization = draw(st.none() | quantizations)
    ranks = draw(st.sampled_from([1, 2, 3, 4, 8, 16]))
    expert_parallel = draw(st.booleans())
    engines = draw(st.integers(1, 4))
    imbalance = draw(st.sampled_from([1.0, 1.5]))
    kv_dtype: Literal["auto", "fp8"] = draw(st.sampled_from(["auto", "fp8"]))
    composition = compose(
        model,
        EngineConfig(kv_cache_dtype=kv_dtype, enable_expert_parallel=expert_parallel),
        WeightFormats(quantization, "bfloat16", "fp8"),
        ranks,
        max_model_len=LONGEST,
        expert_parallel=expert_parallel,
        engines=engines,
        expert_load_imbalance=imbalance,
    )
    window = attention_window(model, LONGEST)
    stored = Fraction(2)
    if quantization is not None:
        stored = Fraction(quantization.bits + quantization.overhead_bits) / 8
    setting = Setting(
        model=model,
        xpu=xpu,
        ranks=ranks,
        weight_bytes=stored,
        quantized=frozenset(quantization.components if quantization else ()),
        kv_bytes=1 if kv_dtype == "fp8" else 2,
        window=0 if window is None else window[1],
        expert_parallel=expert_parallel,
        engines=engines if expert_parallel else 1,
        imbalance=Fraction(imbalance),
    )
    return setting, composition


@st.composite
def steps(draw: st.DrawFn) -> StepShape:
    """Sums of a few chunks and decoding requests; some steps have only one kind."""
    chunks = draw(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 8192)), max_size=4))
    contexts = draw(st.lists(st.integers(1, 100_000), max_size=6, min_size=0 if chunks else 1))
    unfinished = draw(st.integers(0, len(chunks)))
    window = draw(st.integers(1, 50_000))
    return StepShape(
        prefill_seqs=len(chunks),
        prefill_tokens=sum(new for _, new in chunks),
        prefill_attention_pairs=sum(new * old + new * (new + 1) // 2 for old, new in chunks),
        prefill_context_tokens=sum(old + new for old, new in chunks),
        decode_seqs=len(contexts),
        decode_context_tokens=sum(contexts),
        sampled_seqs=len(contexts) + len(chunks) - unfinished,
        prefill_window_pairs=sum(new * min(old + new, window) for old, new in chunks),
        prefill_window_tokens=sum(min(old, window) + new for old, new in chunks),
        decode_window_tokens=sum(min(context, window) for context in contexts),
    )


@given(settings(), steps())
def test_the_core_computes_the_formulas(
    random: tuple[Setting, Composition], step: StepShape
) -> None:
    setting, composition = random
    core = CostModel.roofline(composition, setting.xpu)
    exact = float(exact_seconds(setting, step))
    assert core.step_seconds(step) == pytest.approx(exact, rel=1e-12)
    parts = core.breakdown(step)
    assert sum(part.seconds for part in parts) == pytest.approx(exact, rel=1e-12)
    assert len({part.name for part in parts}) == len(parts)


@given(settings(), steps(), st.floats(1, 10))
def test_faster_hardware_is_never_slower(
    random: tuple[Setting, Composition], step: StepShape, factor: float
) -> None:
    def scaled(rate: PhaseRates) -> PhaseRates:
        return dataclasses.replace(
            rate,
            linear_flops=rate.linear_flops * factor,
            memory_bandwidth=rate.memory_bandwidth * factor,
        )

    setting, composition = random
    xpu = setting.xpu
    faster = dataclasses.replace(
        xpu,
        prefill=scaled(xpu.prefill),
        decode=scaled(xpu.decode),
        link_bandwidth=xpu.link_bandwidth * factor,
    )
    before = CostModel.roofline(composition, xpu).step_seconds(step)
    assert CostModel.roofline(composition, faster).step_seconds(step) <= before * (1 + 1e-12)


@given(settings(), st.integers(1, 500), st.integers(1, 5000), st.integers(1, 6000))
def test_a_larger_batch_never_costs_less(
    random: tuple[Setting, Composition], batch: int, context: int, window: int
) -> None:
    setting, composition = random
    core = CostModel.roofline(composition, setting.xpu)

    def seconds(batch: int, context: int) -> float:
        return core.step_seconds(StepShape.decode(batch, context, ("sliding", window)))

    smaller = seconds(batch, context) * (1 - 1e-12)
    assert seconds(batch + 1, context) >= smaller
    assert seconds(batch, context + 1) >= smaller
