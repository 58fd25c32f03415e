"""Every weight of a model: which component it belongs to, its size and how it is sharded.

Formulas: the layer definitions of the models in Hugging Face transformers; sharding as vLLM's
parallel linear layers do it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from llm_inference_simulator.catalog.model_spec import MlaSpec, ModelSpec, MoeSpec

COMPONENTS = (
    "embedding",
    "positions",
    "attention",
    "indexer",
    "mlp",
    "router",
    "experts",
    "shared_experts",
    "norms",
    "lm_head",
)
"""Names of the components, in the order of the forward pass."""

Shard = Literal["split", "split_by_kv_head", "replicated"]


class Weight(NamedTuple):
    """One weight, or several alike."""

    component: str
    elements: int
    shard: Shard = "split"
    quantizable: bool = True
    """A matrix of a linear layer; biases, norms and embeddings are not quantised."""
    kv_heads: int = 1
    """Heads over which ``split_by_kv_head`` divides at most."""
    experts: int = 1
    """Routed experts that it holds, which expert parallelism hands out whole."""

    def elements_per_rank(
        self, tensor_parallel_size: int, expert_ranks: int | None = None
    ) -> float:
        """Elements that each rank of a tensor-parallel group holds, or the one that holds most.

        Whole experts are handed out to ``expert_ranks``, where that is given.
        """
        if expert_ranks is not None and self.experts > 1:
            return self.elements / self.experts * -(-self.experts // expert_ranks)
        if self.shard == "split":
            return self.elements / tensor_parallel_size
        if self.shard == "split_by_kv_head":
            return self.elements / min(tensor_parallel_size, self.kv_heads)
        return float(self.elements)


def _vector(component: str, elements: int, shard: Shard = "replicated") -> Weight:
    return Weight(component, elements, shard, quantizable=False)


def model_weights(spec: ModelSpec) -> Iterator[Weight]:
    """All weights of a model, layer by layer."""
    hidden, vocab = spec.hidden_size, spec.vocab_size
    norm = hidden * (2 if spec.norm_bias else 1)
    if spec.holds_embedding:
        yield _vector("embedding", vocab * hidden, "split")
    yield _vector("positions", spec.learned_positions * hidden)
    for layer in range(spec.num_layers):
        if spec.mla is not None:
            yield from _latent_attention(spec, spec.mla)
        else:
            yield from _attention(spec, layer)
        if spec.moe is not None and spec.moe.layers[layer]:
            yield from _experts(spec, spec.moe)
        else:
            yield from _dense_mlp(spec)
        yield _vector("norms", spec.norms_per_layer * norm)
    if spec.final_norm:
        yield _vector("norms", norm)
    if spec.holds_lm_head and not spec.tie_word_embeddings:
        yield _vector("lm_head", vocab * hidden, "split")
    if spec.holds_lm_head and spec.lm_head_bias:
        yield _vector("lm_head", vocab, "split")


def _attention(spec: ModelSpec, layer: int) -> Iterator[Weight]:
    heads, hidden = spec.heads_of(layer), spec.hidden_size
    queries = heads.num_query_heads * heads.head_dim
    keys = heads.num_key_value_heads * heads.head_dim
    projections = 1 if heads.key_is_value else 2
    yield Weight("attention", hidden * queries)
    yield Weight(
        "attention",
        projections * hidden * keys,
        "split_by_kv_head",
        kv_heads=heads.num_key_value_heads,
    )
    yield Weight("attention", queries * hidden)
    if spec.qkv_bias:
        yield _vector("attention", queries + projections * keys, "split")
    if spec.attention_output_bias:
        yield _vector("attention", hidden)
    if spec.attention_sinks:
        yield _vector("attention", heads.num_query_heads, "split")
    if spec.qk_norm == "head":
        yield _vector("norms", 2 * heads.head_dim)
    elif spec.qk_norm == "full":
        yield _vector("norms", queries + keys)


def _latent_attention(spec: ModelSpec, mla: MlaSpec) -> Iterator[Weight]:
    """DeepSeek's attention: narrow projections are replicated, those per head are split."""
    hidden, heads = spec.hidden_size, spec.num_attention_heads
    query_width = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    if mla.q_lora_rank is None:
        yield Weight("attention", hidden * query_width)
    else:
        yield Weight("attention", hidden * mla.q_lora_rank, "replicated")
        yield Weight("attention", mla.q_lora_rank * query_width)
        yield _vector("norms", mla.q_lora_rank)
    yield Weight("attention", hidden * (mla.kv_lora_rank + mla.qk_rope_head_dim), "replicated")
    yield Weight("attention", mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim))
    yield Weight("attention", heads * mla.v_head_dim * hidden)
    yield _vector("norms", mla.kv_lora_rank)
    if mla.index_num_heads and mla.q_lora_rank is not None:
        width = mla.index_num_heads * mla.index_head_dim
        yield Weight("indexer", mla.q_lora_rank * width, "replicated")
        yield Weight("indexer", hidden * mla.index_head_dim, "replicated")
        yield Weight("indexer", hidden * mla.index_num_heads, "replicated")
        yield _vector("norms", 2 * mla.index_head_dim)


def _dense_mlp(spec: ModelSpec) -> Iterator[Weight]:
    hidden, width = spec.hidden_size, spec.intermediate_size
    inputs = 2 if spec.gated_mlp else 1
    yield Weight("mlp", (inputs + 1) * hidden * width)
    if spec.mlp_bias:
        yield _vector("mlp", inputs * width, "split")
        yield _vector("mlp", hidden)


def _experts(spec: ModelSpec, moe: MoeSpec) -> Iterator[Weight]:
    hidden = spec.hidden_size
    yield _vector("router", hidden * moe.num_experts)
    if moe.router_bias:
        yield _vector("router", moe.num_experts)
    count, width = moe.num_experts, moe.intermediate_size
    yield Weight("experts", count * 3 * hidden * width, experts=count)
    if moe.expert_bias:
        yield Weight("experts", count * 2 * width, quantizable=False, experts=count)
        yield Weight("experts", count * hidden, "replicated", quantizable=False, experts=count)
    yield Weight("shared_experts", 3 * hidden * moe.shared_intermediate_size)
    if moe.shared_gate:
        yield _vector("router", hidden)
    if moe.dense_beside_experts:
        yield from _dense_mlp(spec)
