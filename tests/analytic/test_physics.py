"""What must hold of step times whatever the code looks like: arithmetic from first principles."""

from __future__ import annotations

import dataclasses

import pytest

from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.performance_models import RooflinePerformanceModel


def test_llama_2_70b_decode_at_batch_1_is_bound_by_reading_the_weights() -> None:
    model = RooflinePerformanceModel("llama2-70b", "h100-sxm", 8)
    parts = model.breakdown_decode(1, 1024)
    for name in ("qkv_projection", "output_projection", "mlp_up", "mlp_down", "lm_head"):
        assert parts[name].bound == "memory", name
    # 68.98e9 parameters less the embedding (32000 x 8192), in 16 bits, over 8 accelerators of
    # 3.35e12 x 0.8 bytes/s: what reading the weights takes.
    reading_s = (68.98e9 - 32000 * 8192) * 2 / 8 / (3.35e12 * 0.8)
    projections = ("qkv_projection", "output_projection", "mlp_up", "mlp_down", "lm_head")
    kernels_s = 3e-6 * (4 * 80 + 1)
    measured_s = sum(parts[name].seconds for name in projections) - kernels_s
    assert measured_s == pytest.approx(reading_s, rel=0.01)
    memory_s = sum(part.seconds for part in parts.values() if part.bound == "memory")
    compute_s = sum(part.seconds for part in parts.values() if part.bound == "compute")
    assert compute_s == 0
    assert memory_s > 0.5 * model.estimate_decode_time(1, 1024)


@pytest.mark.parametrize(("name", "tensor_parallel_size"), [("llama-3.1-8b", 1), ("llama2-70b", 8)])
def test_prefill_of_8k_tokens_is_compute_bound(name: str, tensor_parallel_size: int) -> None:
    parts = RooflinePerformanceModel(name, "h100-sxm", tensor_parallel_size).breakdown_prefill(
        1, 8192
    )
    for component in ("qkv_projection", "attention_prefill", "mlp_up", "mlp_down"):
        assert parts[component].bound == "compute", component
    compute_s = sum(part.seconds for part in parts.values() if part.bound == "compute")
    assert compute_s > 0.5 * sum(part.seconds for part in parts.values())


def test_prefill_operations_are_two_a_parameter_and_token_plus_attention() -> None:
    spec = load_model("llama-3.1-8b")
    parts = RooflinePerformanceModel(spec, "h100-sxm").breakdown_prefill(1, 2048)
    operations = sum(
        part.operations
        for name, part in parts.items()
        if "projection" in name or "mlp_up" in name or "mlp_down" in name
    )
    in_layers = 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336)
    assert operations == pytest.approx(2 * in_layers * 2048)
    pairs = 2048 * 2049 / 2
    assert parts["attention_prefill"].operations == pytest.approx(32 * 4 * pairs * 32 * 128)


def test_doubling_the_bandwidth_halves_a_memory_bound_step() -> None:
    xpu = load_xpu("h100-sxm")
    assert xpu.memory_bytes_per_s is not None
    bare = dataclasses.replace(xpu, kernel_latency_us=0.0, step_overhead_us=0.0)
    twice = dataclasses.replace(bare, memory_bytes_per_s=2 * xpu.memory_bytes_per_s)
    before = RooflinePerformanceModel("llama-3.1-8b", bare).estimate_decode_time(1, 1000)
    after = RooflinePerformanceModel("llama-3.1-8b", twice).estimate_decode_time(1, 1000)
    assert after == pytest.approx(before / 2, rel=1e-9)


def test_gqa_reads_as_much_cache_as_its_heads() -> None:
    """Llama-2-70B has 8 KV heads for 64 query heads: an eighth of what MHA would read."""
    grouped = load_model("llama2-70b")
    multi_head = dataclasses.replace(grouped, num_key_value_heads=64)
    read = [
        RooflinePerformanceModel(model, "h100-sxm", 8)
        .breakdown_decode(1, 100_000)["attention_decode"]
        .bytes
        for model in (grouped, multi_head)
    ]
    assert read[1] / read[0] == pytest.approx(8, rel=1e-3)
    assert read[0] == pytest.approx(80 * 100_000 * 2 * 1 * 128 * 2, rel=1e-3)


def test_the_breakdown_sums_to_the_estimate() -> None:
    model = RooflinePerformanceModel("llama2-70b", "a100-80-sxm", 4)
    for parts, estimate in (
        (model.breakdown_decode(32, 700), model.estimate_decode_time(32, 700)),
        (model.breakdown_prefill(3, 900), model.estimate_prefill_time(3, 900)),
    ):
        assert sum(part.seconds for part in parts.values()) == pytest.approx(estimate, rel=1e-12)


def test_tensor_parallelism_pays_for_its_communication() -> None:
    one = RooflinePerformanceModel("llama2-7b", "h100-sxm", 1)
    two = RooflinePerformanceModel("llama2-7b", "h100-sxm", 2)
    assert "all_reduce" not in one.breakdown_decode(1, 100)
    assert two.breakdown_decode(1, 100)["all_reduce"].seconds > 0
    ratio = one.estimate_prefill_time(1, 4096) / two.estimate_prefill_time(1, 4096)
    assert 1.5 < ratio < 2


def test_a_mixture_reads_the_experts_it_wakes() -> None:
    """Mixtral-8x7B: 12.9e9 of its 46.7e9 parameters at batch 1, nearly all of them at batch 64."""
    spec = load_model("mixtral-8x7b")
    model = RooflinePerformanceModel(spec, "h100-sxm", 2)
    embedding = 32000 * 4096
    for batch, parameters in ((1, spec.active_parameter_count), (64, spec.parameter_count)):
        parts = model.breakdown_decode(batch, 1)
        names = (
            "qkv_projection",
            "output_projection",
            "router",
            "experts_up",
            "experts_down",
            "lm_head",
        )
        moved = 2 * sum(parts[name].bytes for name in names)
        # Two ranks hold the router whole and share the rest; activations are a few megabytes.
        assert moved == pytest.approx(2 * (parameters - embedding), rel=0.01)


def test_fp8_weights_halve_the_bytes_and_double_the_rate() -> None:
    from llm_inference_simulator.config import EngineConfig

    plain = RooflinePerformanceModel("llama-3.1-8b", "h100-sxm")
    fp8 = RooflinePerformanceModel(
        "llama-3.1-8b", "h100-sxm", engine=EngineConfig(quantization="fp8")
    )
    assert fp8.formats.of("mlp").bytes_per_weight == plain.formats.of("mlp").bytes_per_weight / 2
    xpu = load_xpu("h100-sxm")
    assert xpu.fp8_flops is not None
    fraction = xpu.compute_efficiency_of("fp8")
    assert fraction is not None
    assert fp8.hardware.prefill.linear_flops == xpu.fp8_flops * fraction
    on_a100 = RooflinePerformanceModel(
        "llama-3.1-8b", "a100", engine=EngineConfig(quantization="fp8")
    )
    assert on_a100.hardware.prefill.linear_flops == on_a100.hardware.prefill.attention_flops
    assert "no fp8 matrix units" in on_a100.warnings[0]
