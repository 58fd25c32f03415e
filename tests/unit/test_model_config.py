"""Reading config.json: every key that matters, and every way it can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.catalog.model_config import parse_model_config, read_model_config
from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.catalog.models import list_models
from llm_inference_simulator.errors import ConfigError

CONFIGS = {entry.name: entry.config_file for entry in list_models()}


def config(name: str, **changes: Any) -> dict[str, Any]:
    """A shipped config.json with some keys changed."""
    data: dict[str, Any] = json.loads(CONFIGS[name].read_text())
    return {**data, **changes}


def without(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key not in names}


def parse(data: dict[str, Any]) -> ModelSpec:
    return parse_model_config(data, name="test", source="test")


def test_head_dim_is_not_hidden_over_heads() -> None:
    assert parse(config("qwen3-32b")).head_dim == 128  # 5120 / 64 would be 80


def test_nested_text_config_is_read() -> None:
    spec = parse(config("llama-4-scout"))
    assert (spec.num_layers, spec.model_type) == (48, "llama4_text")


def test_gemma_3_reads_the_keys_that_its_published_file_leaves_to_the_class() -> None:
    full = config("gemma-3-27b")
    full["text_config"] = without(full["text_config"], "vocab_size", "max_position_embeddings")
    assert parse(full).parameters() == parse(config("gemma-3-27b")).parameters()


@pytest.mark.parametrize(
    ("name", "changes", "context"),
    [
        ("llama-3.1-8b", {}, 131_072),  # llama3 scaling: already the scaled length
        ("deepseek-v3", {}, 163_840),  # yarn: 4096 · 40
        ("llama-7b", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 4096),
        ("llama-7b", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, 8192),
        ("llama-7b", {"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, 2048),
        ("gemma-3-27b", {}, 131_072),  # its linear factor is applied already
        ("gemma-4-26b-a4b", {}, 262_144),
    ],
)
def test_context_follows_the_rules_of_vllm(
    name: str, changes: dict[str, Any], context: int
) -> None:
    assert parse(config(name, **changes)).max_position_embeddings == context


def test_window_patterns() -> None:
    gemma3 = parse(config("gemma-3-27b"))
    assert gemma3.attention_kinds[:6] == ("sliding",) * 5 + ("full",)
    gemma2 = parse(config("gemma-2-9b"))
    assert gemma2.attention_kinds[:2] == ("sliding", "full")
    scout = parse(config("llama-4-scout"))
    assert scout.attention_kinds[:4] == ("chunked",) * 3 + ("full",)
    assert (scout.window, scout.windowed_layers) == (8192, 36)
    qwen = parse(config("qwen2.5-7b", use_sliding_window=True, max_window_layers=20))
    assert (qwen.windowed_layers, qwen.window) == (8, 131_072)
    assert parse(config("qwen2.5-7b")).window is None


def test_which_layers_are_moe() -> None:
    deepseek = parse(config("deepseek-v3"))
    assert deepseek.moe is not None
    assert deepseek.moe.layers[:4] == (False, False, False, True)
    qwen = parse(config("qwen3-30b-a3b", mlp_only_layers=[0], decoder_sparse_step=2))
    assert qwen.moe is not None
    assert qwen.moe.layers[:4] == (False, True, False, True)


def test_what_stays_unquantised() -> None:
    mxfp4 = parse(config("gpt-oss-20b")).quantization
    assert mxfp4 is not None
    assert (mxfp4.format, mxfp4.bits, mxfp4.overhead_bits) == ("mxfp4", 4, 0.25)
    assert "attention" not in mxfp4.components
    scout = parse(config("llama-4-scout-fp8")).quantization
    assert scout is not None
    assert scout.components == ("mlp", "experts", "shared_experts")
    assert not scout.weight_only


def test_enumerated_ignored_layers_count_as_the_whole_component() -> None:
    ignored = [f"model.layers.{layer}.self_attn.{p}_proj" for layer in range(32) for p in "qkvo"]
    data = config("llama-3.1-8b", quantization_config={"quant_method": "fp8", "ignore": ignored})
    quantization = parse(data).quantization
    assert quantization is not None
    assert "attention" not in quantization.components
    data["quantization_config"]["ignore"] = ignored[:8]
    with pytest.raises(ConfigError, match=r"attention .* in some layers only \(2 of 32\)"):
        parse(data)


def test_a_part_of_a_component_left_unquantised_is_refused() -> None:
    section = {"quant_method": "fp8", "ignored_layers": ["model.layers.3.self_attn.o_proj"]}
    with pytest.raises(ConfigError, match=r"only o_proj of attention in layer 3 are left"):
        parse(config("llama-3.1-8b", quantization_config=section))


def test_awq_counts_scales_and_zero_points() -> None:
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
    quantization = parse(config("llama-3.1-8b", quantization_config=awq)).quantization
    assert quantization is not None
    assert quantization.format == "int4"
    assert quantization.weight_only
    assert quantization.overhead_bits == 20 / 128


def test_model_opt_keeps_quantisation_in_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config("llama-3.3-70b")))
    section = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(section))
    spec = read_model_config(tmp_path)
    assert spec.quantization is not None
    assert spec.quantization.format == "nvfp4"
    # 68.45e9 quantised at 4.5 bits and 2.1e9 at 16 bits: 42.7 GB in all.
    assert spec.weight_bytes() / 1e9 == pytest.approx(42.7, rel=0.003)


LLAMA = config("llama-7b")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (without(LLAMA, "num_hidden_layers"), "'num_hidden_layers' (or n_layer) is missing"),
        (without(LLAMA, "model_type"), "key 'model_type' is missing"),
        ({**LLAMA, "model_type": "lama"}, "did you mean 'llama'?"),
        ({**LLAMA, "model_type": "qwen3_next"}, "unknown model_type 'qwen3_next'"),
        ({**LLAMA, "hidden_size": None}, "hidden_size=None must be a whole number"),
        ({**LLAMA, "hidden_size": "4096"}, "hidden_size='4096' must be a whole number"),
        ({**LLAMA, "hidden_size": 4096.0}, "hidden_size=4096.0 must be a whole number"),
        ({**LLAMA, "hidden_size": -1}, "hidden_size=-1 must be at least 1"),
        ({**LLAMA, "vocab_size": True}, "vocab_size=True must be a whole number"),
        ({**LLAMA, "hidden_size": 4097}, "give head_dim"),
        ({**LLAMA, "num_key_value_heads": 5}, "not a multiple of num_key_value_heads=5"),
        ({**LLAMA, "tie_word_embeddings": None}, "tie_word_embeddings=None must be true or false"),
        ({**LLAMA, "torch_dtype": "fp7"}, "torch_dtype='fp7'"),
        ({**LLAMA, "num_local_experts": 8}, "announces experts"),
        ({**LLAMA, "linear_attn_config": {}}, "linear attention"),
        ({**LLAMA, "ssm_state_size": 128}, "Mamba layers"),
        ({**LLAMA, "layer_types": ["full_attention"]}, "1 entries"),
        ({**LLAMA, "layer_types": ["linear_attention"] * 32}, "'linear_attention' is not"),
        ({**LLAMA, "rope_scaling": {"rope_type": "zoom", "factor": 2}}, "rope_type='zoom'"),
        ({**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 0}}, "factor=0"),
        ({**LLAMA, "quantization_config": {"quant_method": "nf4"}}, "unknown quant_method 'nf4'"),
        ({**LLAMA, "quantization_config": {}}, "key 'quant_method' is missing"),
        (
            {**LLAMA, "quantization_config": {"quant_method": "gptq", "bits": 3}},
            "3-bit weights are not understood",
        ),
        (config("mixtral-8x7b", num_experts_per_tok=9), "top-k of 9 exceeds the 8 experts"),
        (config("gpt-oss-20b", layer_types=None), "'layer_types' is missing"),
    ],
)
def test_wrong_configurations_are_refused_by_name(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert message in str(caught.value)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"model_type": "llama", ')
    with pytest.raises(ConfigError, match="is not valid JSON"):
        read_model_config(file)
