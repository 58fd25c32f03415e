"""What a model's step is made of: every kernel, its operations and bytes, and its shape.

One description serves all performance models: the roofline prices operations and bytes, the
measured tables look the shapes up. docs/cost_model.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_inference_simulator.capacity import DTYPE_BYTES, kv_dtype_bytes
from llm_inference_simulator.catalog import ModelSpec
from llm_inference_simulator.catalog.pipeline import PipelineStage
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.attention_operations import attention
from llm_inference_simulator.performance_models.feed_forward_operations import feed_forward
from llm_inference_simulator.performance_models.latent_attention_operations import latent_attention
from llm_inference_simulator.performance_models.operations import (
    AttentionWindow,
    Collective,
    Composition,
    Gemm,
    Layout,
    Mixture,
    Operation,
)
from llm_inference_simulator.performance_models.weight_formats import WeightFormats

HANDED_ON_VECTORS = 2
"""Of a token, from stage to stage: hidden states and residual (vLLM's ``IntermediateTensors``)."""


def compose(
    model: ModelSpec,
    engine: EngineConfig,
    formats: WeightFormats,
    tensor_parallel_size: int,
    *,
    max_model_len: int,
    expert_parallel: bool = False,
    engines: int = 1,
    expert_load_imbalance: float = 1.0,
    stage: PipelineStage | None = None,
) -> Composition:
    """List the operations of a step of ``model``.

    ``engines`` data-parallel engines share the experts where ``expert_parallel`` spreads them;
    ``expert_load_imbalance`` is the busiest accelerator's share of the visits over the mean.
    ``stage`` leaves only what one stage of a pipeline runs.
    """
    part = model if stage is None else stage.part_of(model)
    layout = Layout(
        model=part,
        ranks=tensor_parallel_size,
        formats=formats,
        kv_bytes=kv_dtype_bytes(engine, model),
        window=attention_window(model, max_model_len),
        expert_parallel=expert_parallel,
        engines=engines if expert_parallel else 1,
        imbalance=expert_load_imbalance,
    )
    moe = part.moe
    return Composition(
        operations=tuple(_operations(layout, stage or PipelineStage(0, 1, range(0)))),
        mixture=None
        if moe is None
        else Mixture(
            num_experts=moe.num_experts, experts_per_token=moe.top_k, engines=layout.engines
        ),
        ranks=tensor_parallel_size,
        attention_window=layout.window,
        engines=layout.engines,
    )


def attention_window(model: ModelSpec, max_model_len: int) -> AttentionWindow | None:
    """What layers with a window see, if some sequence outgrows it.

    Sparse attention reads the ``index_top_k`` best keys: as many as a window of that size.
    """
    if model.mla is not None and model.mla.index_top_k:
        top_k = model.mla.index_top_k
        return ("sliding", top_k) if top_k < max_model_len else None
    if model.window is None or model.window >= max_model_len:
        return None
    kinds = {kind for kind in model.attention_kinds if kind != "full"}
    if not kinds:
        return None
    if len(kinds) > 1:
        raise ConfigError(
            f"model {model.name!r} mixes sliding and chunked attention, which no step time is "
            "known for: choose another model"
        )
    return ("sliding" if "sliding" in kinds else "chunked", model.window)


def _operations(layout: Layout, stage: PipelineStage) -> Iterator[Operation]:
    model, hidden = layout.model, layout.model.hidden_size
    if stage.is_first:
        yield layout.elementwise("embedding", 1, 0, 2 * hidden)
    norms = model.norms_per_layer * model.num_layers + int(model.final_norm)
    # Each also adds the residual: two vectors read, two written.
    yield layout.elementwise("norms", norms, 4 * hidden, 4 * hidden)
    if model.mla is not None:
        yield from latent_attention(layout, model.mla)
    else:
        yield from attention(layout)
    yield from feed_forward(layout)
    if stage.is_last:
        yield _lm_head(layout)
    if layout.ranks > 1:
        yield from _collectives(layout, stage)


def _lm_head(layout: Layout) -> Operation:
    hidden, vocabulary = layout.model.hidden_size, layout.model.vocab_size / layout.ranks
    return Operation(
        name="lm_head",
        runs="sampling",
        repeat=1,
        operations=(("sampled_seqs", 2.0 * hidden * vocabulary),),
        bytes=(
            ("one", hidden * vocabulary * DTYPE_BYTES),
            ("sampled_seqs", (hidden + vocabulary) * DTYPE_BYTES),
        ),
        shape=Gemm(vocabulary, hidden, "bfloat16"),
    )


def _collectives(layout: Layout, stage: PipelineStage) -> Iterator[Operation]:
    model = layout.model
    payload = float(model.hidden_size * DTYPE_BYTES)
    # After the embedding, the attention and the MLP, whose weights are split over the ranks;
    # experts that are exchanged bring their results back by themselves.
    exchanged = 0 if model.moe is None or layout.engines == 1 else sum(model.moe.layers)
    yield Operation(
        name="all_reduce",
        kind="all_reduce",
        repeat=2 * model.num_layers + int(stage.is_first) - exchanged,
        bytes=(("tokens", payload),),
        shape=Collective(payload, layout.ranks),
    )
    if not stage.is_first:
        # Each rank gets its share of the hidden states and of the residual from the stage before.
        received = HANDED_ON_VECTORS * payload * (layout.ranks - 1) / layout.ranks
        yield Operation(
            name="hidden_states_all_gather",
            kind="all_gather",
            repeat=1,
            bytes=(("tokens", received),),
            shape=Collective(received, layout.ranks),
        )
    if not stage.is_last:
        return
    gathered = model.vocab_size / layout.ranks * (layout.ranks - 1) * DTYPE_BYTES
    yield Operation(
        name="logits_all_gather",
        runs="sampling",
        kind="all_gather",
        repeat=1,
        bytes=(("sampled_seqs", gathered),),
        shape=Collective(gathered, layout.ranks),
    )
