"""Blocks of hybrid and latent caches, by hand from the rules of vLLM 0.15.1."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator.capacity import (
    kv_bytes_per_token_per_rank,
    kv_dtype_bytes,
    kv_layout,
    plan_memory,
)
from llm_inference_simulator.catalog.model_config import parse_model_config
from llm_inference_simulator.catalog.models import list_models, load_model
from llm_inference_simulator.catalog.xpus import load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import read_mapping

KIB = 1024


@pytest.mark.parametrize(
    ("model", "tp", "groups", "block_kib"),
    [
        # layers of a group · 16 tokens · bytes of a token in a layer
        ("llama-3.1-8b", 1, {"full": 1}, 32 * 16 * 4),
        ("gpt-oss-20b", 1, {"sliding": 1, "full": 1}, 12 * 16 * 2),
        ("gpt-oss-120b", 1, {"sliding": 1, "full": 1}, 18 * 16 * 2),
        ("gemma-2-9b", 1, {"sliding": 1, "full": 1}, 21 * 16 * 8),
        ("gemma-3-27b", 1, {"sliding": 6, "full": 1}, 10 * 16 * 8),  # 52 in 6 groups, padded
        ("llama-4-scout", 2, {"chunked": 3, "full": 1}, 12 * 16 * 2),
        ("mistral-7b-v0.1", 1, {"sliding": 1}, 32 * 16 * 4),
    ],
)
def test_groups_of_layers(model: str, tp: int, groups: dict[str, int], block_kib: int) -> None:
    layout = kv_layout(load_model(model), EngineConfig(), tp)
    kinds = [group.kind for group in layout.groups]
    assert {kind: kinds.count(kind) for kind in kinds} == groups
    assert layout.block_bytes == block_kib * KIB


def test_layers_with_smaller_pages_get_longer_blocks() -> None:
    # Gemma 4: sliding layers 8 heads of 256, global ones 2 of 512: half the bytes a token.
    layout = kv_layout(load_model("gemma-4"), EngineConfig(), 1)
    sizes = [(group.kind, group.block_size) for group in layout.groups]
    assert sorted(sizes) == [("full", 32)] + 5 * [("sliding", 16)]
    assert layout.block_bytes == 5 * 16 * 2 * 8 * 256 * 2


def test_blocks_of_a_sequence_by_kind() -> None:
    engine = EngineConfig(max_num_batched_tokens=2048)
    gpt_oss = kv_layout(load_model("gpt-oss-20b"), engine, 1)
    # A window of 128: 127 tokens before a step of 2048, in 136 blocks, one more if not aligned.
    assert gpt_oss.blocks_of(131_072) == 8192 + 136 + 1
    assert gpt_oss.blocks_of(160) == 10 + 10 + 1
    scout = kv_layout(load_model("llama-4-scout"), engine, 2)
    assert scout.blocks_of(4096) == 4 * 256  # shorter than a chunk of 8192
    assert scout.blocks_of(131_072) == 8192 + 3 * (8192 + 2048) // 16


@given(tokens=st.integers(1, 200_000), more=st.integers(0, 50_000))
def test_longer_sequences_take_no_fewer_blocks(tokens: int, more: int) -> None:
    layout = kv_layout(load_model("gemma-3-27b"), EngineConfig(), 1)
    assert layout.blocks_of(tokens) <= layout.blocks_of(tokens + more)
    # At least the full group, at most every group whole and one block for each window's start.
    whole = -(-tokens // 16)
    assert whole <= layout.blocks_of(tokens) <= 7 * whole + 6


@pytest.mark.parametrize("length", [4096, 32_768, 131_072])
@pytest.mark.parametrize("model", ["gpt-oss-20b", "gemma-3-27b", "llama-3.1-8b"])
def test_the_engines_blocks_hold_the_sequences_that_the_pool_holds(model: str, length: int) -> None:
    engine = EngineConfig(max_model_len=length)
    plan = plan_memory(load_model(model), load_xpu("h100"), engine, 1)
    layout = kv_layout(load_model(model), engine, 1)
    in_pool = (plan.pool_blocks - 1) // layout.blocks_of(length)
    assert (plan.num_gpu_blocks - 1) // (length // 16) == in_pool
    assert plan.pool_blocks == plan.kv_cache_bytes // plan.block_bytes


def test_one_kind_of_layers_needs_no_conversion() -> None:
    plan = plan_memory(load_model("llama-3.1-8b"), load_xpu("h100"), EngineConfig(), 1)
    assert (plan.blocks_per_token_block, plan.num_gpu_blocks) == (1, plan.pool_blocks)


def test_pages_that_do_not_divide_are_refused() -> None:
    data = {"global_head_dim": 320, "num_global_key_value_heads": 2}
    file = next(entry.config_file for entry in list_models() if entry.name == "gemma-4-26b-a4b")
    config = read_mapping(file, "model configuration")
    config["text_config"] = {**config["text_config"], **data}
    spec = parse_model_config(config, name="odd", source="odd")
    with pytest.raises(ConfigError, match=r"'odd' .* no common block size makes equal"):
        kv_layout(spec, EngineConfig(), 1)


@pytest.mark.parametrize("tp", [1, 2, 8, 16])
@pytest.mark.parametrize(
    ("model", "kv_cache_dtype", "layer_bytes"),
    [
        ("deepseek-v3", "auto", (512 + 64) * 2),
        ("deepseek-v3", "fp8", 512 + 64),
        # Sparse attention: 512 in FP8, 4 float32 scales, 64 in 16 bits; 128 index keys and a scale.
        ("deepseek-v3.2", "auto", (512 + 64) * 2 + 128 + 4),
        ("deepseek-v3.2", "fp8", 512 + 16 + 128 + 128 + 4),
    ],
)
def test_latent_caches_are_whole_on_every_rank(
    model: str, kv_cache_dtype: Any, layer_bytes: int, tp: int
) -> None:
    engine = EngineConfig(kv_cache_dtype=kv_cache_dtype, block_size=64)
    assert kv_bytes_per_token_per_rank(load_model(model), engine, tp) == 61 * layer_bytes
    assert kv_layout(load_model(model), engine, tp).block_bytes == 64 * 61 * layer_bytes


def test_latent_attention_runs_in_blocks_of_64_tokens() -> None:
    model, xpu = load_model("deepseek-v2-lite"), load_xpu("h100")
    warned = plan_memory(model, xpu, EngineConfig(), 1).warnings
    assert any("--block-size 64" in warning for warning in warned)
    assert plan_memory(model, xpu, EngineConfig(block_size=64), 1).warnings == ()


def test_a_checkpoint_with_scales_has_an_fp8_cache_unless_told_otherwise() -> None:
    model = load_model("llama-3.3-70b-nvfp4")
    assert kv_dtype_bytes(EngineConfig(), model) == 1
    assert kv_dtype_bytes(EngineConfig(kv_cache_dtype="bfloat16"), model) == 2
    assert kv_dtype_bytes(EngineConfig(), load_model("llama-3.3-70b")) == 2
