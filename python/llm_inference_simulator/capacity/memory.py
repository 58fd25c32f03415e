"""What an accelerator holds beside the KV blocks: weights, the profiling run's peak, the runtime.

Read from vLLM 0.15.1 (``memory_profiling``, ``profile_run``, ``_dummy_sampler_run``, the fused
experts' workspaces) and PyTorch's CUDA sort. :data:`RUNTIME_BYTES` and :data:`COLLECTIVE_BYTES` are
fitted, and the copy of the rotary tables in :func:`activation_bytes` is inferred.
"""

from __future__ import annotations

import math

from llm_inference_simulator.catalog.model_spec import (
    WEIGHT_FORMATS,
    ModelSpec,
    MoeSpec,
    QuantizationSpec,
    weight_bytes,
)
from llm_inference_simulator.catalog.vision import VisionSpec
from llm_inference_simulator.catalog.weights import model_weights
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError

DTYPE_BYTES = 2
"""Of an unquantised weight or activation: every ``dtype`` that an engine may have has 16 bits."""

RUNTIME_BYTES = 560_000_000
"""CUDA modules and library workspaces outside PyTorch's pool, and the error of the total that the
driver reports. CUDA graphs are not in it: vLLM 0.15 captures them afterwards, in the memory that
``gpu_memory_utilization`` leaves. Fitted to the dense runs of vLLM 0.15.1 on one H100, whose
remainders are 271, 547 and 863 MB."""

COLLECTIVE_BYTES = 140_000_000
"""Buffers of NCCL and of the custom all-reduce in a tensor-parallel group. Fitted to the runs on
two and four H100, whose remainders, :data:`RUNTIME_BYTES` included, are 638 to 904 MB."""

SAMPLED_BYTES_PER_LOGIT = 27
"""While sampling masks the sorted logits: logits in 16 and in 32 bits (2 + 4), sorted values and
64-bit indices (4 + 8), their probabilities (4), a mask (1) and the values put back in order (4)."""

FULL_SORT_ROWS = 2
SEGMENTED_SORT_ROWS = 128
"""Rows from which PyTorch's CUDA sort takes all rows as one long one, and each on its own."""

FULL_SORT_BYTES_PER_LOGIT = 50
"""Its inputs and outputs (18, as above), pairs of row and index before and after the radix sort
(8 + 8), the keys (4), and the radix sort's second buffers for both (4 + 8)."""

SEGMENTED_SORT_BYTES_PER_LOGIT = 38
"""Its inputs and outputs (18), indices to begin with (8), the radix sort's second buffers
(4 + 8)."""

MOE_CHUNK_TOKENS = 16_384
"""Most tokens that the fused experts take at once (vLLM's VLLM_FUSED_MOE_CHUNK_SIZE)."""


def resolve_quantization(model: ModelSpec, engine: EngineConfig) -> QuantizationSpec | None:
    """Format of the weights: the model's own, or what the engine quantises them to when loading."""
    wanted, own = engine.quantization, model.quantization
    if wanted is None or (own is not None and own.format == wanted):
        return own
    if own is not None:
        raise ConfigError(
            f"quantization={wanted!r} contradicts model {model.name!r}, whose weights are stored "
            f"as {own.format}: leave it out or choose an unquantised version of the model"
        )
    return WEIGHT_FORMATS[wanted]


def weight_bytes_per_rank(
    model: ModelSpec,
    engine: EngineConfig,
    tensor_parallel_size: int,
    expert_ranks: int | None = None,
) -> int:
    """Bytes of weights on the fullest accelerator of a tensor-parallel group.

    Language model, vision tower and the rotary positions' cosines and sines, which every rank keeps
    for the model's whole context whatever ``max_model_len`` is. With expert parallelism over
    ``expert_ranks`` a rank holds whole experts; where they do not divide, the fullest rank has one
    more than the others.
    """
    quantization = resolve_quantization(model, engine)
    total = float(model.rotary_elements * DTYPE_BYTES)
    for weight in model_weights(model):
        if weight.elements:
            held = weight.elements_per_rank(tensor_parallel_size, expert_ranks)
            total += weight_bytes(weight, DTYPE_BYTES, quantization) * held / weight.elements
    if model.vision is not None:
        total += model.vision.parameters * DTYPE_BYTES / tensor_parallel_size
    return math.ceil(total)


def activation_bytes(model: ModelSpec, engine: EngineConfig, tensor_parallel_size: int) -> int:
    """Peak of vLLM's profiling run.

    It encodes as many of the largest images as the token budget allows, runs
    ``max_num_batched_tokens`` tokens through the layers and samples ``max_num_seqs`` of them, one
    after the other: the greatest of the three counts. The images' embeddings and the experts'
    workspaces, once allocated, stay for all of it.
    """
    tokens, tp = engine.max_num_batched_tokens, tensor_parallel_size
    rows = min(engine.max_num_seqs, tokens)
    hidden_states = tokens * model.hidden_size * DTYPE_BYTES
    phases = [
        # That the first pass holds a second copy of the rotary tables is inferred, not read: else
        # Llama 4 (10 million positions, 2.7 GB) would have 13 % more blocks than vLLM logged. The
        # other models' tables are too small to show it.
        (tokens * _layer_elements(model, tp) + model.rotary_elements) * DTYPE_BYTES,
        hidden_states
        + (rows * model.vocab_size * _bytes_per_logit(rows) if model.holds_lm_head else 0),
    ]
    lasting = 0.0
    if model.vision is not None:
        images = max(1, tokens // model.vision.prompt_tokens)
        phases.append(images * _encoder_elements(model.vision, tp) * DTYPE_BYTES)
        lasting += images * model.vision.prompt_tokens * model.hidden_size * DTYPE_BYTES
    if model.moe is not None:
        divided_by = 1 if engine.enable_expert_parallel else tp
        lasting += _workspace_elements(model, model.moe, tokens, divided_by) * DTYPE_BYTES
    return math.ceil(max(phases) + lasting)


def runtime_bytes(group_size: int) -> int:
    """What lies outside PyTorch's pool, in an engine of ``group_size`` accelerators."""
    return RUNTIME_BYTES + (COLLECTIVE_BYTES if group_size > 1 else 0)


def _bytes_per_logit(rows: int) -> int:
    """Peak of sampling ``rows`` rows, by the kernel that sorts them."""
    if rows >= SEGMENTED_SORT_ROWS:
        return SEGMENTED_SORT_BYTES_PER_LOGIT
    return FULL_SORT_BYTES_PER_LOGIT if rows >= FULL_SORT_ROWS else SAMPLED_BYTES_PER_LOGIT


def _layer_elements(model: ModelSpec, tp: int) -> float:
    """Activations of a token alive in the piece of a layer between two attentions.

    The piece's inputs (residual; queries, keys, values and attention's output) outlive it, since
    its caller holds them. Inside live the new residual and, if more, either the normed input with
    the outputs of gate and up, or those with their product.
    """
    queries = model.num_attention_heads * model.head_dim / tp
    keys = model.num_key_value_heads * model.head_dim / min(tp, model.num_key_value_heads)
    inputs = 2 if model.gated_mlp else 1
    width = model.intermediate_size / tp
    inner = max(model.hidden_size + inputs * width, (inputs + 1) * width)
    if model.moe is not None and all(model.moe.layers):
        inner = model.hidden_size + inputs * model.moe.shared_intermediate_size / tp
    return 2 * model.hidden_size + 2 * queries + 2 * keys + inner


def _workspace_elements(model: ModelSpec, moe: MoeSpec, tokens: int, divided_by: int) -> float:
    """The experts' two workspaces and their 16-bit output; the layers share them.

    An expert's width is ``divided_by`` the ranks that share it.
    """
    routed = min(tokens, MOE_CHUNK_TOKENS) * moe.top_k
    gate_up = 2 * moe.intermediate_size / divided_by
    workspaces = max(gate_up, model.hidden_size) + max(gate_up / 2, model.hidden_size)
    return routed * workspaces + tokens * model.hidden_size


def _encoder_elements(vision: VisionSpec, tp: int) -> float:
    """Activations of one image in the encoder's MLP: residual, normed input, both sides of GELU."""
    return vision.patches * (2 * vision.hidden_size + 2 * vision.intermediate_size / tp)
