"""Memory plans: hand-computed shares, blocks that vLLM logged, verdicts and their remedies."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llm_inference_simulator.capacity import (
    MemoryPlan,
    activation_bytes,
    kv_bytes_per_token_per_rank,
    plan_memory,
    valid_tensor_parallel_sizes,
    weight_bytes_per_rank,
)
from llm_inference_simulator.catalog.models import load_model
from llm_inference_simulator.catalog.xpus import load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError

KIB = 1024


def plan(model: str, xpu: str = "h100", tp: int = 1, **engine: Any) -> MemoryPlan:
    return plan_memory(load_model(model), load_xpu(xpu), EngineConfig(**engine), tp)


def verdict(model: str, xpu: str = "h100", tp: int = 1, **engine: Any) -> str:
    with pytest.raises(CapacityError) as caught:
        plan(model, xpu, tp, **engine)
    return str(caught.value)


# Every distinct run of the 13 measured on H100 SXM with vLLM 0.15.1: model, tensor-parallel size,
# max_num_batched_tokens, logged blocks. Which of the two counts of Llama-3.1-70B belongs to which
# run was not recorded: the smaller must be that of the larger step.
LOGGED_BLOCKS = [
    ("llama-4-scout-fp8", 2, 2048, 8_253),
    ("llama-3.1-70b", 4, 8192, 30_251),
    ("llama-3.1-70b", 4, 2048, 30_425),
    ("mistral-nemo", 2, 1024, 48_009),
    ("mistral-nemo", 1, 2048, 19_251),
    ("qwen2.5-7b", 1, 2048, 65_368),
    ("qwen2.5-7b", 1, 1024, 65_368),
    ("yi-34b", 2, 2048, 20_793),
    ("llama2-7b", 1, 2048, 7_462),
]


@pytest.mark.parametrize(("model", "tp", "batched_tokens", "logged"), LOGGED_BLOCKS)
def test_blocks_agree_with_vllm(model: str, tp: int, batched_tokens: int, logged: int) -> None:
    result = plan(
        model, tp=tp, max_num_batched_tokens=batched_tokens, max_num_seqs=128, max_model_len=4096
    )
    assert result.num_gpu_blocks == pytest.approx(logged, rel=0.01)


def test_parts_add_up() -> None:
    result = plan("llama-3.1-70b", tp=4)
    assert result.usable_bytes == int(0.9 * result.total_bytes)
    assert result.usable_bytes == (
        result.weight_bytes_per_rank
        + result.activation_bytes
        + result.runtime_bytes
        + result.kv_cache_bytes
    )
    assert result.num_gpu_blocks == result.kv_cache_bytes // result.block_bytes
    assert result.block_bytes == 16 * result.kv_bytes_per_token_per_rank == 16 * 80 * KIB
    assert result.max_concurrency == (result.num_gpu_blocks - 1) * 16 / 131_072


def test_peak_of_the_layers_by_hand() -> None:
    engine = EngineConfig(max_num_batched_tokens=8000, max_num_seqs=1)
    # Two residuals, queries and attention's output, keys and values, gate and up and their product.
    per_token = 2 * 4096 + (2 * 4096 + 2 * 4096 + 3 * 11_008) // 2
    rotary = 2048 * 128  # a copy of the table, 64 angles at each position
    assert activation_bytes(load_model("llama-7b"), engine, 2) == (8000 * per_token + rotary) * 2


@pytest.mark.parametrize(("rows", "per_logit"), [(200, 38), (128, 38), (127, 50), (100, 50)])
def test_peak_of_the_sampler_by_hand(rows: int, per_logit: int) -> None:
    engine = EngineConfig(max_num_batched_tokens=1000, max_num_seqs=rows)
    # Hidden states; logits and what PyTorch sorts them with, which takes more below 128 rows.
    expected = 1000 * 4096 * 2 + rows * 128_256 * per_logit
    assert activation_bytes(load_model("llama-3.1-8b"), engine, 1) == expected


def test_workspaces_of_the_experts_last_through_the_sampling() -> None:
    engine = EngineConfig(max_num_batched_tokens=1000, max_num_seqs=200)
    # Mixtral-8x7B: 2 · 14336 wide for each of 2 experts a token, then 14336, and the output.
    workspaces = 1000 * (2 * (28_672 + 14_336) + 4096) * 2
    layers = 1000 * (2 * 4096 + 2 * 4096 + 2 * 1024 + 4096) * 2
    sampler = 1000 * 4096 * 2 + 200 * 32_000 * 38
    expected = workspaces + max(layers, sampler)
    assert activation_bytes(load_model("mixtral-8x7b"), engine, 1) == expected


@pytest.mark.parametrize(
    ("model", "tp", "expected"),
    [
        ("llama-3.1-70b", 1, 320 * KIB),
        ("llama-3.1-70b", 8, 40 * KIB),
        ("llama-3.1-70b", 16, 40 * KIB),  # 8 KV heads: copied beyond
        ("deepseek-v3", 8, 61 * 576 * 2),  # the latent cache is not divided
    ],
)
def test_cache_is_divided_by_kv_heads(model: str, tp: int, expected: int) -> None:
    assert kv_bytes_per_token_per_rank(load_model(model), EngineConfig(), tp) == expected


def test_weights_are_divided_except_what_is_replicated() -> None:
    spec = load_model("llama-3.1-70b")
    norms = spec.parameters()["norms"]
    whole = 2 * spec.parameter_count
    rotary = 2 * 131_072 * 128  # sine and cosine of 64 angles at each position, on every rank
    assert weight_bytes_per_rank(spec, EngineConfig(), 1) == whole + rotary
    assert weight_bytes_per_rank(spec, EngineConfig(), 8) == (
        (whole - 2 * norms) / 8 + 2 * norms + rotary
    )
    kv_projections = 2 * 80 * 2 * 8192 * 1024  # divided by 8 KV heads even on 16 ranks
    assert weight_bytes_per_rank(spec, EngineConfig(), 16) == (
        (whole - 2 * norms - kv_projections) / 16 + kv_projections / 8 + 2 * norms + rotary
    )


def test_quantised_weights_leave_the_ends_in_16_bits() -> None:
    spec = load_model("llama-7b")
    counts = spec.parameters()
    matrices = counts["attention"] + counts["mlp"]
    others = spec.parameter_count - matrices + 2048 * 128  # the last: rotary positions
    for name, size in (("fp8", 1), ("int8", 1), ("int4", 4.125 / 8)):
        engine = EngineConfig(quantization=name)  # type: ignore[arg-type]
        assert weight_bytes_per_rank(spec, engine, 1) == matrices * size + 2 * others


def test_quantization_that_contradicts_the_model_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"quantization='int4' contradicts .* stored as fp8"):
        plan("qwen3-32b-fp8", quantization="int4")
    assert plan("qwen3-32b-fp8", quantization="fp8") == plan("qwen3-32b-fp8")


def test_fp8_cache_doubles_the_blocks() -> None:
    narrow, wide = plan("llama-7b", kv_cache_dtype="fp8"), plan("llama-7b")
    assert narrow.block_bytes * 2 == wide.block_bytes
    assert narrow.num_gpu_blocks == pytest.approx(2 * wide.num_gpu_blocks, abs=1)


def test_default_length_is_what_the_cache_holds() -> None:
    result = plan("llama-3.1-8b", "rtx4090")
    assert result.max_model_len == (result.num_gpu_blocks - 1) * 16 < 131_072
    assert "does not hold the model's context of 131072" in result.warnings[0]
    assert plan("llama2-7b").max_model_len == 4096
    assert plan("llama2-7b").warnings == ()


def test_weights_that_do_not_fit_are_a_verdict_with_remedies() -> None:
    message = verdict("llama2-70b")
    assert "59.59" in message  # GiB missing: 128.48 + 1.84 + 0.52 + a block - 71.26
    assert "--quantization fp8" in message
    assert "--tensor-parallel-size 2" in message
    assert "a larger accelerator (--xpu" in message
    plan("llama2-70b", tp=2)
    plan("llama2-70b", quantization="fp8")


def test_a_length_that_does_not_fit_names_the_longest_that_does() -> None:
    message = verdict("llama-3.1-8b", "rtx4090", max_model_len=131_072)
    longest = re.search(r"--max-model-len (\d+)", message)
    assert longest is not None
    length = int(longest[1])
    assert plan("llama-3.1-8b", "rtx4090", max_model_len=length).max_model_len == length
    assert "one sequence of max_model_len" in verdict(
        "llama-3.1-8b", "rtx4090", max_model_len=length + 16
    )


def test_utilisation_is_offered_where_it_suffices() -> None:
    message = verdict("llama2-13b", "l4", gpu_memory_utilization=0.5, quantization="fp8")
    share = re.search(r"--gpu-memory-utilization ([\d.]+)", message)
    assert share is not None
    plan("llama2-13b", "l4", gpu_memory_utilization=float(share[1]), quantization="fp8")
    worse = float(share[1]) - 0.01
    with pytest.raises(CapacityError):
        plan("llama2-13b", "l4", gpu_memory_utilization=worse, quantization="fp8")


def test_override_replaces_the_computed_blocks_and_is_noted() -> None:
    result = plan("llama2-7b", num_gpu_blocks_override=100)
    assert (result.num_gpu_blocks, result.max_model_len) == (100, 99 * 16)
    assert "num_gpu_blocks_override=100 replaces" in result.warnings[0]
    large = plan("llama2-7b", num_gpu_blocks_override=10**6)
    assert "would run out of memory" in large.warnings[0]
    given = plan("llama2-7b", num_gpu_blocks_override=100, max_model_len=4096)
    assert "longer requests are rejected" in given.warnings[1]


def test_tensor_parallel_sizes() -> None:
    assert valid_tensor_parallel_sizes(load_model("llama-3.1-70b")) == [1, 2, 4, 8, 16, 32, 64]
    assert valid_tensor_parallel_sizes(load_model("qwen2.5-7b")) == [
        1,
        2,
        4,
    ]  # 28 heads, but 18944 / 7 is no whole number
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=3 .* use one of 1, 2, 4, 8"):
        plan("llama-3.1-70b", tp=3)


def test_length_beyond_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_model_len=4097 exceeds .* at most 4096"):
        plan("llama2-7b", max_model_len=4097)


def test_whole_prompts_must_fit_a_step() -> None:
    with pytest.raises(ConfigError, match="--max-model-len 8192"):
        plan("llama-3.1-8b", enable_chunked_prefill=False)


def test_windows_are_noted_where_a_sequence_outgrows_them() -> None:
    (hybrid,) = plan("gpt-oss-20b", max_model_len=32_768).warnings
    assert "12 of 24 layers keep a window of 128" in hybrid
    assert "short ones take 2.00" in hybrid
    (windowed,) = plan("mistral-7b-v0.1", max_model_len=32_768).warnings
    assert "all 32 layers keep a window of 4096" in windowed
    assert plan("mistral-7b-v0.1", max_model_len=4096).warnings == ()


def test_an_override_sets_the_bytes_of_the_cache_too() -> None:
    result = plan("llama-3.1-8b", num_gpu_blocks_override=2000)
    assert result.kv_cache_bytes == 2000 * result.block_bytes


@pytest.mark.parametrize(("tp", "rank_kib"), [(4, 80), (8, 40), (16, 40)])
def test_the_models_bytes_a_token_do_not_depend_on_the_ranks(tp: int, rank_kib: int) -> None:
    result = plan("llama-3.1-70b", tp=tp)
    assert result.kv_bytes_per_token == 320 * KIB
    assert result.kv_bytes_per_token_per_rank == rank_kib * KIB
