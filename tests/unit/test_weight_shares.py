"""Bytes of weights on a rank: quantised formats, experts by rank, vision towers, block limits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_inference_simulator.capacity import (
    check_tensor_parallel_size,
    plan_memory,
    valid_tensor_parallel_sizes,
    weight_bytes_per_rank,
)
from llm_inference_simulator.catalog.model_config import parse_model_config
from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.catalog.models import list_models, load_model
from llm_inference_simulator.catalog.weights import model_weights
from llm_inference_simulator.catalog.xpus import load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError

ENGINE = EngineConfig()


def model(name: str, quantization: dict[str, Any] | None = None, **keys: Any) -> ModelSpec:
    """A shipped model with some keys of its config.json changed."""
    file = next(entry.config_file for entry in list_models() if entry.name == name)
    data = {**json.loads(file.read_text()), **keys}
    if quantization is not None:
        data["quantization_config"] = quantization
    return parse_model_config(data, name=name, source=name)


def test_nvfp4_leaves_the_ends_in_16_bits() -> None:
    # 80 layers · (attention 8192 · (2 · 8192 + 2 · 1024) + MLP 3 · 8192 · 28672) in 4.5 bits.
    linear = 80 * (8192 * (2 * 8192 + 2 * 1024) + 3 * 8192 * 28_672)
    ends = 2 * 128_256 * 8192 + (2 * 80 + 1) * 8192
    expected = linear * 4.5 / 8 + 2 * (ends + 131_072 * 128)
    assert weight_bytes_per_rank(load_model("llama-3.3-70b-nvfp4"), ENGINE, 1) == expected


def test_mxfp4_of_gpt_oss_covers_the_experts_alone() -> None:
    spec = load_model("gpt-oss-20b")
    experts = 24 * 32 * 3 * 2880 * 2880
    others = spec.parameter_count - experts + spec.rotary_elements
    assert weight_bytes_per_rank(spec, ENGINE, 1) == experts * 4.25 / 8 + 2 * others


def test_awq_adds_a_zero_point_to_each_groups_scale() -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    spec, counts = model("llama-3.1-8b", awq), load_model("llama-3.1-8b").parameters()
    linear = counts["attention"] + counts["mlp"]
    others = spec.parameter_count - linear + spec.rotary_elements
    expected = linear * (4 + (16 + 4) / 128) / 8 + 2 * others
    assert weight_bytes_per_rank(spec, ENGINE, 1) == expected


def test_what_the_file_excludes_stays_in_16_bits() -> None:
    excluded = {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "exclude_modules": ["lm_head", "model.layers.*.self_attn*"],
    }
    spec = model("llama-3.1-8b", excluded)
    counts = spec.parameters()
    others = spec.parameter_count - counts["mlp"] + spec.rotary_elements
    expected = counts["mlp"] * 4.5 / 8 + 2 * others
    assert weight_bytes_per_rank(spec, ENGINE, 1) == expected


def int4_group(*targets: str, bits: int = 4) -> dict[str, Any]:
    return {"targets": list(targets), "weights": {"num_bits": bits, "type": "int"}}


@pytest.mark.parametrize(
    ("groups", "components"),
    [
        ([int4_group("Linear")], ("attention", "mlp", "experts", "shared_experts")),
        ([int4_group("re:.*self_attn.*_proj$")], ("attention",)),
        ([int4_group("re:.*mlp.*_proj$")], ("mlp", "experts", "shared_experts")),
        (
            [int4_group(r"re:.*self_attn\..*"), int4_group(r"re:.*mlp\.experts.*")],
            ("attention", "experts"),
        ),
    ],
)
def test_targets_say_what_is_quantised(groups: list[Any], components: tuple[str, ...]) -> None:
    section = {"quant_method": "compressed-tensors", "config_groups": dict(enumerate(groups))}
    quantization = model("mixtral-8x7b", section).quantization
    assert quantization is not None
    assert quantization.components == components


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([int4_group("re:.*q_proj")], r"leave out model\.layers\.0\.self_attn\.k_proj"),
        ([int4_group("re:.*mamba.*")], "name no known module"),
        ([int4_group("re:(")], "no regular expression"),
        ([int4_group("Conv2d")], "'Conv2d' is neither"),
        ([int4_group("re:.*attn.*"), int4_group("re:.*mlp.*", bits=8)], "different formats"),
    ],
)
def test_targets_that_cannot_be_priced_are_refused(groups: list[Any], words: str) -> None:
    section = {"quant_method": "compressed-tensors", "config_groups": dict(enumerate(groups))}
    with pytest.raises(ConfigError, match=words):
        model("mixtral-8x7b", section)


def test_llama_4_loads_its_vision_tower() -> None:
    spec = load_model("llama-4-scout")
    assert spec.vision is not None
    # 34 layers of 1408 · (4 · 1408 + 2 · 5632) and biases, adapter, projector: 0.87 billion.
    assert spec.vision.parameters == pytest.approx(0.872e9, rel=0.005)
    assert spec.vision.prompt_tokens == 17 * 144
    assert "vision" not in spec.parameters()


def test_gemma_4_takes_what_vllm_logged_when_loading() -> None:
    # "Model loading took 48.5 GiB memory" (google/gemma-4-26B-A4B on A100, vLLM 0.19).
    loaded = weight_bytes_per_rank(load_model("gemma-4"), ENGINE, 1)
    assert loaded / 2**30 == pytest.approx(48.5, abs=0.1)


def test_an_unknown_vision_tower_is_noted() -> None:
    spec = model("llama-3.1-8b", vision_config={"model_type": "mystery_vision"})
    warnings = plan_memory(spec, load_xpu("h100"), ENGINE, 1).warnings
    assert any("vision tower (mystery_vision)" in warning for warning in warnings)


@pytest.mark.parametrize(("name", "tp"), [("mixtral-8x7b", 4), ("gpt-oss-20b", 8)])
def test_experts_by_rank_weigh_as_much_as_by_width(name: str, tp: int) -> None:
    spec = load_model(name)
    by_width = weight_bytes_per_rank(spec, ENGINE, tp)
    by_rank = weight_bytes_per_rank(spec, ENGINE, tp, expert_ranks=tp)
    # By width every rank keeps the whole bias of the experts' outputs (gpt-oss only).
    biases = spec.moe.num_experts * spec.hidden_size if spec.moe and spec.moe.expert_bias else 0
    assert by_width - by_rank == 2 * spec.num_layers * biases * (tp - 1) / tp


def test_the_fullest_rank_counts_where_experts_do_not_divide() -> None:
    spec = load_model("mixtral-8x7b")  # 8 experts of 3 · 4096 · 14336 in 32 layers
    expert = 2 * 32 * 3 * 4096 * 14_336
    by_width = weight_bytes_per_rank(spec, ENGINE, 16)
    by_rank = weight_bytes_per_rank(spec, ENGINE, 16, expert_ranks=16)
    assert by_rank - by_width == expert * (1 - 8 / 16)


def test_data_parallel_engines_share_the_experts() -> None:
    """DeepSeek-V3 on eight H200, one engine each: 32 of 256 experts, the rest whole."""
    spec = load_model("deepseek-v3")
    engine = EngineConfig(enable_expert_parallel=True)
    plan = plan_memory(spec, load_xpu("h200-sxm"), engine, 1, engines=8)
    experts = sum(w.elements for w in model_weights(spec) if w.experts > 1)  # one byte each
    alone = weight_bytes_per_rank(spec, engine, 1)
    assert alone - plan.weight_bytes_per_rank == pytest.approx(7 / 8 * experts, rel=1e-3)
    with pytest.raises(CapacityError):
        plan_memory(spec, load_xpu("h200-sxm"), engine, 1)


def test_whole_experts_suit_sizes_that_split_ones_do_not() -> None:
    spec = model("qwen3-235b-a22b", {"quant_method": "fp8", "weight_block_size": [128, 128]})
    engine = EngineConfig(enable_expert_parallel=True)
    assert plan_memory(spec, load_xpu("h100-sxm"), engine, 8).num_gpu_blocks > 1


def test_fp8_blocks_limit_the_ranks() -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    spec = model("qwen3-235b-a22b", fp8)  # experts of 1536
    check_tensor_parallel_size(spec, 4)
    with pytest.raises(ConfigError, match=r"192 of the 1536 columns of experts .* 128 weights"):
        check_tensor_parallel_size(spec, 8)
    assert valid_tensor_parallel_sizes(spec) == [1, 2, 4]
    assert 8 in valid_tensor_parallel_sizes(load_model("qwen3-235b-a22b"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kv_cache_quant_algo": "NVFP4"}, "only FP8"),
        ({"kv_cache_scheme": {"num_bits": 4, "type": "float"}}, "only 8-bit float"),
    ],
)
def test_other_formats_of_the_cache_are_refused(changes: dict[str, Any], words: str) -> None:
    section = {"quant_method": "modelopt", "quant_algo": "FP8", **changes}
    with pytest.raises(ConfigError, match=words):
        model("llama-3.1-8b", section)
