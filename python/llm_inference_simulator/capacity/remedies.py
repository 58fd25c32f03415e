"""Which single change would make a model fit; each is tried before it is named."""

from __future__ import annotations

import math
from typing import Any

from llm_inference_simulator.capacity.parallelism import valid_tensor_parallel_sizes
from llm_inference_simulator.capacity.plan import fits, longest_sequence
from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.catalog.xpu_spec import XpuSpec
from llm_inference_simulator.config import EngineConfig

MAX_UTILIZATION = 0.98
"""Largest ``gpu_memory_utilization`` worth suggesting."""

PLAUSIBLE_TP_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Tensor-parallel sizes that a remedy may name."""


def remedies(
    model: ModelSpec, xpu: XpuSpec, engine: EngineConfig, tensor_parallel_size: int, engines: int
) -> list[str]:
    """Changes that help, the gentlest first; empty where no single one does."""
    memory = xpu.usable_memory_bytes

    def fits_with(**changes: Any) -> bool:
        changed = engine.model_copy(update=changes)
        return fits(model, memory, changed, tensor_parallel_size, engines)

    found = []
    if engine.max_model_len is not None:
        longest = longest_sequence(model, memory, engine, tensor_parallel_size, engines)
        if longest:
            found.append(f"--max-model-len {longest}")
    share = _least_utilization(model, xpu, engine, tensor_parallel_size, engines)
    if share is not None:
        found.append(f"--gpu-memory-utilization {share:g}")
    if engine.kv_cache_dtype != "fp8" and fits_with(kv_cache_dtype="fp8"):
        found.append("--kv-cache-dtype fp8")
    if model.quantization is None and engine.quantization is None:
        for name in ("fp8", "int4"):
            if fits_with(quantization=name):
                found.append(f"--quantization {name}")
                break
    valid = valid_tensor_parallel_sizes(model, whole_experts=engine.enable_expert_parallel)
    for size in PLAUSIBLE_TP_SIZES:
        allowed = size > tensor_parallel_size and size in valid
        if allowed and fits(model, memory, engine, size, engines):
            found.append(f"--tensor-parallel-size {size}")
            break
    larger = _smallest_sufficient(model, xpu, engine, tensor_parallel_size, engines)
    if larger is not None:
        found.append(f"a larger accelerator (--xpu {larger})")
    return found


def _least_utilization(
    model: ModelSpec, xpu: XpuSpec, engine: EngineConfig, tensor_parallel_size: int, engines: int
) -> float | None:
    """Smallest utilisation, in whole percent, that suffices."""
    start = math.floor(engine.gpu_memory_utilization * 100) + 1
    for percent in range(start, round(MAX_UTILIZATION * 100) + 1):
        changed = engine.model_copy(update={"gpu_memory_utilization": percent / 100})
        if fits(model, xpu.usable_memory_bytes, changed, tensor_parallel_size, engines):
            return percent / 100
    return None


def _smallest_sufficient(
    model: ModelSpec, xpu: XpuSpec, engine: EngineConfig, tensor_parallel_size: int, engines: int
) -> str | None:
    """The catalogue's accelerator with the least memory on which the model fits."""
    from llm_inference_simulator.catalog.xpus import list_xpus

    larger = [
        candidate
        for candidate in list_xpus()
        if candidate.usable_memory_bytes > xpu.usable_memory_bytes
        and fits(model, candidate.usable_memory_bytes, engine, tensor_parallel_size, engines)
    ]
    best = min(larger, key=lambda candidate: candidate.usable_memory_bytes, default=None)
    return None if best is None else best.name
