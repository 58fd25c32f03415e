"""Tensor-parallel sizes that vLLM accepts for a model."""

from __future__ import annotations

from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.errors import ConfigError


def valid_tensor_parallel_sizes(model: ModelSpec, *, whole_experts: bool = False) -> list[int]:
    """Sizes that vLLM accepts.

    Heads and MLP divide, KV heads divide or are copied evenly, and each rank's share of a quantised
    width is a multiple of the blocks or groups of weights that share a scale. With
    ``whole_experts`` (expert parallelism) nothing is asked of the experts' width.
    """
    return [
        size
        for size in range(1, model.num_attention_heads + 1)
        if _divides(model, size, whole_experts) and _misaligned(model, size, whole_experts) is None
    ]


def check_tensor_parallel_size(
    model: ModelSpec, tensor_parallel_size: int, *, whole_experts: bool = False
) -> None:
    """Refuse a size that vLLM would refuse; the message lists the valid ones."""
    valid = ", ".join(map(str, valid_tensor_parallel_sizes(model, whole_experts=whole_experts)))
    if tensor_parallel_size < 1 or not _divides(model, tensor_parallel_size, whole_experts):
        raise ConfigError(
            f"tensor_parallel_size={tensor_parallel_size} does not divide model {model.name!r} "
            f"({model.num_attention_heads} attention heads, {model.num_key_value_heads} KV heads, "
            f"MLP of {model.intermediate_size}): use one of {valid}"
        )
    misaligned = _misaligned(model, tensor_parallel_size, whole_experts)
    if misaligned is not None:
        raise ConfigError(
            f"tensor_parallel_size={tensor_parallel_size} does not suit the quantised weights of "
            f"model {model.name!r}: {misaligned}: use one of {valid}"
        )


def _divides(model: ModelSpec, size: int, whole_experts: bool) -> bool:
    if model.num_attention_heads % size or model.intermediate_size % size:
        return False
    if model.moe is not None and not whole_experts and model.moe.intermediate_size % size:
        return False
    if model.mla is not None:
        return True
    groups = {model.num_key_value_heads}
    if model.global_heads is not None:
        groups.add(model.global_heads.num_key_value_heads)
    return all(heads % size == 0 or size % heads == 0 for heads in groups)


def _misaligned(model: ModelSpec, size: int, whole_experts: bool) -> str | None:
    """Which share of a width breaks a block of weights, if one does (vLLM checks only when split).

    mxfp4 and nvfp4 are left out: their kernels pad.
    """
    quantization = model.quantization
    if quantization is None or size == 1 or quantization.format in ("mxfp4", "nvfp4"):
        return None
    block = quantization.block_width or quantization.group_size
    if block is None:
        return None
    widths = {}
    if model.moe is None or not all(model.moe.layers) or model.moe.dense_beside_experts:
        widths["mlp"] = model.intermediate_size
    if model.moe is not None:
        if not whole_experts:
            widths["experts"] = model.moe.intermediate_size
        widths["shared_experts"] = model.moe.shared_intermediate_size
    for component, width in widths.items():
        if component in quantization.components and (width // size) % block:
            return (
                f"a rank's {width // size} of the {width} columns of {component} are no multiple "
                f"of the {block} weights that share a scale"
            )
    return None
