"""What measured tables say of shapes they lack: windows, fewer heads, other formats, sparsity."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.shipped import shipped_calibration
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import OpTablePerformanceModel


def op_table(model: str, xpu: str, tp: int = 1, **options: Any) -> OpTablePerformanceModel:
    calibration = shipped_calibration(xpu)
    assert calibration is not None
    return OpTablePerformanceModel(model, xpu, tp, calibration=calibration, **options)


def component(model: OpTablePerformanceModel, name: str, step: StepShape) -> float:
    return model.breakdown_step(step)[name].seconds


def test_an_unmeasured_window_shortens_prompts_as_much_as_their_work() -> None:
    model = op_table("gemma-3-27b", "h100-sxm")
    parts = model.breakdown_prefill(1, 16_384)
    windowed, full = parts["attention_prefill_window"], parts["attention_prefill"]
    # 52 of 62 layers see 1,024 keys, and 10 see all.
    per_layer = windowed.seconds / 52 / (full.seconds / 10)
    pairs = (1024 * 1025 / 2 + (16_384 - 1024) * 1024) / (16_384 * 16_385 / 2)
    assert per_layer == pytest.approx(pairs, rel=0.15)


@pytest.mark.parametrize("cached", [4096, 16_384])
def test_half_the_heads_take_less_time_on_a_cached_prefix(cached: int) -> None:
    model = [op_table("gemma-3-27b", "h100-sxm", tp) for tp in (1, 2)]
    new = 4096
    pairs = new * (new + 1) // 2 + new * cached
    step = StepShape(
        prefill_seqs=1,
        prefill_tokens=new,
        prefill_attention_pairs=pairs,
        prefill_context_tokens=new + cached,
        prefill_window_pairs=new * 1024,
        prefill_window_tokens=new + 1023,
        sampled_seqs=1,
    )
    one, two = (component(m, "attention_prefill", step) for m in model)
    assert two == pytest.approx(one / 2, rel=0.1)


def test_a_checkpoints_own_kv_format_chooses_the_table() -> None:
    step = StepShape(decode_seqs=32, decode_context_tokens=32 * 8192, sampled_seqs=32)
    auto = op_table("llama-3.3-70b-nvfp4", "rtx-pro-6000")
    given = op_table(
        "llama-3.3-70b-nvfp4", "rtx-pro-6000", engine=EngineConfig(kv_cache_dtype="fp8")
    )
    assert component(auto, "attention_decode", step) == component(given, "attention_decode", step)


def test_sparse_prompts_do_not_pay_for_dense_attention() -> None:
    dense, sparse = (op_table(name, "h200-sxm", 8) for name in ("deepseek-v3", "deepseek-v3.2"))
    tokens = 32_768
    part = sparse.breakdown_prefill(1, tokens)["attention_prefill"]
    assert part.provenance == "analytic"
    assert part.seconds < dense.breakdown_prefill(1, tokens)["attention_prefill"].seconds / 4
    names = set(sparse.breakdown_prefill(1, tokens))
    assert {"query_projection", "output_projection", "latent_expansion"} <= names
    assert sparse.breakdown_decode(1, 4096)["attention_decode"].provenance == "extrapolated"


def test_imbalance_lengthens_the_experts_prompts() -> None:
    even, uneven = (
        op_table(
            "qwen3-30b-a3b",
            "h100-sxm",
            4,
            engine=EngineConfig(enable_expert_parallel=True),
            expert_load_imbalance=factor,
        )
        for factor in (1.0, 3.0)
    )
    one, three = (m.breakdown_prefill(4, 2048)["experts_up"].seconds for m in (even, uneven))
    assert one < three <= 3 * one * (1 + 1e-9)
    assert three > 2 * one


def test_an_unmeasured_all_reduce_takes_the_asked_way() -> None:
    ring, tree, auto = (
        op_table("llama-2-7b", "h100-sxm", 16, all_reduce=way).breakdown_decode(1, 1024)[
            "all_reduce"
        ]
        for way in ("ring", "tree", "auto")
    )
    assert ring.provenance == "analytic"
    # One token: 2(t - 1) hops against 2 log2 t.
    assert ring.seconds / tree.seconds == pytest.approx(15 / math.log2(16), rel=0.1)
    assert auto.seconds == tree.seconds
