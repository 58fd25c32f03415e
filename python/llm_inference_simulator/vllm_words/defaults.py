"""What vLLM 0.32.0 takes where its command line leaves a setting open.

The sizes of a batch follow the accelerator's memory (``EngineArgs.get_batch_defaults`` of vLLM), so
a line means other settings on other accelerators.
"""

from __future__ import annotations

from typing import Any

from llm_inference_simulator.catalog.xpu_spec import XpuSpec

_GIB = 2**30
GPU_MEMORY_UTILIZATION = 0.92
LARGE_GPU_BYTES = 70 * _GIB
LARGEST_GPU_BYTES = 160 * _GIB
_TPU_TOKENS = {"tpu-v6e": 1024, "tpu-v5e": 512, "tpu-v5p": 256}


def engine_defaults(
    xpu: XpuSpec,
    *,
    ranks: int = 1,
    throughput_mode: bool = False,
    longest_prompt: int | None = None,
    max_num_batched_tokens: int | None = None,
) -> dict[str, Any]:
    """Settings of an engine of ``ranks`` accelerators by our names, which are vLLM's.

    ``throughput_mode`` doubles the sizes of a batch (``--performance-mode throughput``).
    ``longest_prompt`` is given where prompts are not split over steps: a step then takes one whole.
    ``max_num_batched_tokens`` is what the line says of it: no more requests than that run.
    """
    tokens, requests = _batch_sizes(xpu, ranks)
    if throughput_mode:
        tokens, requests = 2 * tokens, 2 * requests
    tokens = max(tokens, longest_prompt or 0)
    return {
        "gpu_memory_utilization": GPU_MEMORY_UTILIZATION,
        "max_num_batched_tokens": tokens,
        "max_num_seqs": min(requests, max_num_batched_tokens or tokens),
    }


def _batch_sizes(xpu: XpuSpec, ranks: int) -> tuple[int, int]:
    """(tokens, requests) of a step of ``vllm serve``."""
    name = xpu.name.casefold()
    if name == "cpu":
        return 2048 * ranks, 128 * ranks
    if name in _TPU_TOKENS:
        return _TPU_TOKENS[name], 256
    if xpu.usable_memory_bytes >= LARGEST_GPU_BYTES:
        return 16384, 1024
    if xpu.usable_memory_bytes >= LARGE_GPU_BYTES and "a100" not in name:
        return 8192, 1024
    return 2048, 256
