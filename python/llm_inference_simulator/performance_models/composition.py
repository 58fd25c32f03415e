"""What a model's step is made of: every kernel, its operations and bytes, and its shape.

One description serves all performance models: the roofline prices operations and bytes, the
measured tables look the shapes up. docs/cost_model.md has the formulas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.capacity import DTYPE_BYTES, kv_dtype_bytes
from llm_inference_simulator.catalog import ModelSpec
from llm_inference_simulator.catalog.model_spec import HeadSpec, MlaSpec, MoeSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models.weight_formats import WeightFormats

Runs = Literal["always", "prefill", "decode", "sampling"]
Kind = Literal["linear_kernel", "kernel", "all_reduce", "all_gather", "all_to_all"]
Terms = tuple[tuple[str, float], ...]
"""(sum of the step, coefficient)."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """Every token, or every sampled one, times an n x k matrix."""

    n: float
    k: float
    format: str
    """``bfloat16``, or the format of quantised weights."""


@dataclass(frozen=True, slots=True)
class Attention:
    """Heads of one accelerator."""

    num_query_heads: float
    num_key_value_heads: float
    head_dim: int
    window: int
    """Keys that a token sees; 0: all."""
    phase: Literal["prefill", "decode"]


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """A whole module of multi-head latent attention, its projections included."""

    num_heads: float
    format: str
    phase: Literal["prefill", "decode"]
    sizes: tuple[int, ...]
    """(hidden, q_lora_rank, kv_lora_rank, nope, rope and value head size): the module's identity."""


@dataclass(frozen=True, slots=True)
class Experts:
    """A layer's routed experts."""

    hidden_size: int
    intermediate_size: int
    """Of the whole model."""
    top_k: int
    num_experts: int
    tensor_parallel_size: int
    expert_parallel_size: int
    engines: int
    format: str


@dataclass(frozen=True, slots=True)
class Collective:
    """A sum or an exchange over the group; ``bytes_per_token`` is the payload."""

    bytes_per_token: float
    ranks: int


Shape = Gemm | Attention | LatentAttention | Experts | Collective


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One kernel of the model, or a collective, per accelerator."""

    name: str
    runs: Runs = "always"
    kind: Kind = "kernel"
    repeat: float
    """Runs in a step."""
    operations: Terms = ()
    """Floating-point operations of a run."""
    bytes: Terms = ()
    """Bytes of a run: of memory traffic, or what a collective sends."""
    shape: Shape | None = None
    """What measured tables have it under; None: elementwise."""
    module: str | None = None
    """Operation whose measured time contains this one's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Routed experts as the core counts the distinct ones of a step."""

    num_experts: int
    experts_per_token: int
    engines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """All operations of a model's step on one accelerator of its group."""

    operations: tuple[Operation, ...]
    mixture: Mixture | None
    ranks: int
    """Tensor-parallel size."""
    attention_window: tuple[Literal["sliding", "chunked"], int] | None
    """What layers that do not see the whole context see; None: no sequence outgrows it."""
    engines: int
    """Data-parallel engines that share the experts."""


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
) -> Composition:
    """List the operations of a step of ``model``.

    ``engines`` data-parallel engines share the experts where ``expert_parallel`` spreads them;
    ``expert_load_imbalance`` is the busiest accelerator's share of the visits over the mean.
    """
    builder = _Builder(
        model=model,
        ranks=tensor_parallel_size,
        formats=formats,
        kv_bytes=kv_dtype_bytes(engine, model),
        window=attention_window(model, max_model_len),
        expert_parallel=expert_parallel,
        engines=engines if expert_parallel else 1,
        imbalance=expert_load_imbalance,
    )
    moe = model.moe
    return Composition(
        operations=tuple(builder.operations()),
        mixture=None
        if moe is None
        else Mixture(
            num_experts=moe.num_experts, experts_per_token=moe.top_k, engines=builder.engines
        ),
        ranks=tensor_parallel_size,
        attention_window=builder.window,
        engines=builder.engines,
    )


def attention_window(
    model: ModelSpec, max_model_len: int
) -> tuple[Literal["sliding", "chunked"], int] | None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Builder:
    """The operations of one model; sizes are per accelerator, activations have 16 bits."""

    model: ModelSpec
    ranks: int
    formats: WeightFormats
    kv_bytes: int
    window: tuple[Literal["sliding", "chunked"], int] | None
    expert_parallel: bool
    engines: int
    imbalance: float

    def operations(self) -> Iterator[Operation]:
        model, hidden = self.model, self.model.hidden_size
        yield self._elementwise("embedding", 1, 0, 2 * hidden)
        norms = model.norms_per_layer * model.num_layers + int(model.final_norm)
        # Each also adds the residual: two vectors read, two written.
        yield self._elementwise("norms", norms, 4 * hidden, 4 * hidden)
        if model.mla is not None:
            yield from self._latent_attention(model.mla)
        else:
            yield from self._attention()
        yield from self._feed_forward()
        vocabulary = model.vocab_size / self.ranks
        yield Operation(
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
        if self.ranks > 1:
            yield from self._collectives(vocabulary)

    def _attention(self) -> Iterator[Operation]:
        model = self.model
        layers = Counter(
            (model.heads_of(layer), self.window is not None and kind != "full")
            for layer, kind in enumerate(model.attention_kinds)
        )
        by_heads: Counter[HeadSpec] = Counter()
        for (heads, _), count in layers.items():
            by_heads[heads] += count
        for index, (heads, count) in enumerate(by_heads.items()):
            yield from self._around_attention(heads, count, "" if index == 0 else "_global")
        for (heads, windowed), count in layers.items():
            suffix = "_window" if windowed else ""
            yield from self._attention_kernels(heads, count, windowed=windowed, suffix=suffix)

    def _around_attention(self, heads: HeadSpec, layers: int, suffix: str) -> Iterator[Operation]:
        hidden, width = self.model.hidden_size, heads.head_dim
        queries, keys = self._heads(heads)
        query, key = queries * width, keys * width
        projected = query + (1 if heads.key_is_value else 2) * key
        yield self._projection("qkv_projection" + suffix, "attention", layers, hidden, projected)
        if self.model.qk_norm != "none":
            yield self._elementwise(
                "qk_norm" + suffix, layers, 4 * (query + key), 2 * (query + key)
            )
        if not self.model.learned_positions:
            yield self._elementwise(
                "rotary_embedding" + suffix, layers, 3 * (query + key), 2 * (query + key)
            )
        yield Operation(
            name="kv_cache_write" + suffix,
            repeat=layers,
            bytes=(("tokens", 2 * key * DTYPE_BYTES + 2 * key * self.kv_bytes),),
        )
        yield self._projection("output_projection" + suffix, "attention", layers, query, hidden)

    def _attention_kernels(
        self, heads: HeadSpec, layers: int, *, windowed: bool, suffix: str
    ) -> Iterator[Operation]:
        queries, keys = self._heads(heads)
        query, cached = queries * heads.head_dim, 2 * keys * heads.head_dim * self.kv_bytes
        # Models whose layers differ in heads: each kind of layer has a kernel of its own.
        if self.model.global_heads is not None and heads == self.model.global_heads:
            suffix = "_global"
        decode_keys = "decode_window_tokens" if windowed else "decode_context_tokens"
        yield Operation(
            name="attention_prefill" + suffix,
            runs="prefill",
            repeat=layers,
            operations=(
                (
                    "prefill_window_pairs" if windowed else "prefill_attention_pairs",
                    4.0 * query,
                ),
            ),
            bytes=(
                ("prefill_tokens", 2 * query * DTYPE_BYTES),
                ("prefill_window_tokens" if windowed else "prefill_context_tokens", cached),
            ),
            shape=self._attention_shape(heads, windowed, "prefill"),
        )
        yield Operation(
            name="attention_decode" + suffix,
            runs="decode",
            repeat=layers,
            operations=((decode_keys, 4.0 * query),),
            bytes=(("decode_seqs", 2 * query * DTYPE_BYTES), (decode_keys, cached)),
            shape=self._attention_shape(heads, windowed, "decode"),
        )

    def _attention_shape(
        self, heads: HeadSpec, windowed: bool, phase: Literal["prefill", "decode"]
    ) -> Attention:
        queries, keys = self._heads(heads)
        window = self.window[1] if windowed and self.window is not None else 0
        return Attention(queries, keys, heads.head_dim, window, phase)

    def _heads(self, heads: HeadSpec) -> tuple[float, float]:
        """Query and key-value heads of one accelerator; fewer heads than ranks are copied."""
        return (
            heads.num_query_heads / self.ranks,
            max(1.0, heads.num_key_value_heads / self.ranks),
        )

    def _latent_attention(self, mla: MlaSpec) -> Iterator[Operation]:
        """DeepSeek's attention: absorbed where decoding, expanded to full heads in prompts."""
        model, layers = self.model, self.model.num_layers
        heads = model.num_attention_heads / self.ranks
        key = mla.qk_nope_head_dim + mla.qk_rope_head_dim
        latent = mla.kv_lora_rank + mla.qk_rope_head_dim
        sparse = mla.index_top_k > 0
        windowed = sparse and self.window is not None
        decode_keys = "decode_window_tokens" if windowed else "decode_context_tokens"
        pairs = "prefill_window_pairs" if windowed else "prefill_attention_pairs"
        # Tables have the whole module by phase; the projections then are part of it.
        modules = {"module": "latent_attention"}
        sizes = (
            model.hidden_size,
            mla.q_lora_rank or 0,
            mla.kv_lora_rank,
            mla.qk_nope_head_dim,
            mla.qk_rope_head_dim,
            mla.v_head_dim,
        )
        down = latent + (mla.q_lora_rank or 0)
        yield self._projection(
            "qkv_down_projection", "attention", layers, model.hidden_size, down, **modules
        )
        query_input = mla.q_lora_rank or model.hidden_size
        yield self._projection(
            "query_projection", "attention", layers, query_input, heads * key, **modules
        )
        yield self._elementwise(
            "rotary_embedding",
            layers,
            3 * (heads + 1) * mla.qk_rope_head_dim,
            2 * (heads + 1) * mla.qk_rope_head_dim,
            **modules,
        )
        yield Operation(
            name="kv_cache_write",
            repeat=layers,
            bytes=(("tokens", latent * (DTYPE_BYTES + self.kv_bytes)),),
            **modules,
        )
        if mla.index_num_heads and mla.q_lora_rank is not None:
            yield from self._indexer(mla)
        expanded = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        weight = self.formats.of("attention")
        yield Operation(
            # Keys and values of every token in reach, cached ones included, from their latents.
            name="latent_expansion",
            runs="prefill",
            kind=weight.kind,
            repeat=layers,
            operations=(("prefill_context_tokens", 2.0 * mla.kv_lora_rank * expanded),),
            bytes=(
                ("one", mla.kv_lora_rank * expanded * weight.bytes_per_weight),
                (
                    "prefill_context_tokens",
                    latent * self.kv_bytes + expanded * DTYPE_BYTES,
                ),
            ),
            **modules,
        )
        yield Operation(
            name="attention_prefill",
            runs="prefill",
            repeat=layers,
            operations=((pairs, 2.0 * heads * (key + mla.v_head_dim)),),
            bytes=(
                ("prefill_tokens", heads * (key + mla.v_head_dim) * DTYPE_BYTES),
                ("prefill_context_tokens", heads * (key + mla.v_head_dim) * DTYPE_BYTES),
            ),
            shape=LatentAttention(heads, weight.format, "prefill", sizes),
        )
        absorbed = heads * mla.kv_lora_rank
        for name, width in (
            ("query_absorption", mla.qk_nope_head_dim),
            ("value_expansion", mla.v_head_dim),
        ):
            yield Operation(
                name=name,
                runs="decode",
                repeat=layers,
                operations=(("decode_seqs", 2.0 * absorbed * width),),
                bytes=(
                    ("one", absorbed * width * DTYPE_BYTES),
                    ("decode_seqs", (absorbed + heads * width) * DTYPE_BYTES),
                ),
                **modules,
            )
        yield Operation(
            # All heads read one latent cache, which tensor parallelism does not divide.
            name="attention_decode",
            runs="decode",
            repeat=layers,
            operations=((decode_keys, 2.0 * heads * (latent + mla.kv_lora_rank)),),
            bytes=(
                ("decode_seqs", heads * (latent + mla.kv_lora_rank) * DTYPE_BYTES),
                (decode_keys, float(latent * self.kv_bytes)),
            ),
            shape=LatentAttention(heads, weight.format, "decode", sizes),
        )
        yield self._projection(
            "output_projection",
            "attention",
            layers,
            heads * mla.v_head_dim,
            model.hidden_size,
            **modules,
        )

    def _indexer(self, mla: MlaSpec) -> Iterator[Operation]:
        """Sparse attention's choice of keys: FP8 scores of every key in reach, on every rank."""
        layers, width = self.model.num_layers, mla.index_num_heads * mla.index_head_dim
        yield self._projection("indexer_projection", "indexer", layers, mla.q_lora_rank or 0, width)
        work = 2.0 * width
        yield Operation(
            name="indexer_scores_prefill",
            runs="prefill",
            repeat=layers,
            operations=(("prefill_attention_pairs", work),),
            bytes=(("prefill_context_tokens", float(mla.index_head_dim)),),
        )
        yield Operation(
            name="indexer_scores_decode",
            runs="decode",
            repeat=layers,
            operations=(("decode_context_tokens", work),),
            bytes=(("decode_context_tokens", float(mla.index_head_dim)),),
        )

    def _feed_forward(self) -> Iterator[Operation]:
        model, moe = self.model, self.model.moe
        sparse = 0 if moe is None else sum(moe.layers)
        if moe is None or sparse < model.num_layers:
            layers = model.num_layers - sparse
            yield from self._mlp("mlp", "mlp", layers, model.intermediate_size)
        if moe is None:
            return
        yield from self._experts(moe, sparse)
        if moe.shared_intermediate_size:
            yield from self._mlp(
                "shared_expert", "shared_experts", sparse, moe.shared_intermediate_size
            )
        if moe.dense_beside_experts:
            yield from self._mlp("dense_beside_experts", "mlp", sparse, model.intermediate_size)

    def _mlp(self, name: str, component: str, layers: int, whole: int) -> Iterator[Operation]:
        hidden, width = self.model.hidden_size, whole / self.ranks
        matrices = 2 if self.model.gated_mlp else 1
        yield self._projection(f"{name}_up", component, layers, hidden, matrices * width)
        yield self._elementwise(f"{name}_activation", layers, 4 * width, (matrices + 1) * width)
        yield self._projection(f"{name}_down", component, layers, width, hidden)

    def _experts(self, moe: MoeSpec, layers: int) -> Iterator[Operation]:
        hidden, weight = self.model.hidden_size, self.formats.of("experts")
        spread = self.ranks * self.engines if self.expert_parallel else 1
        width = moe.intermediate_size / (1 if self.expert_parallel else self.ranks)
        # Visits of one of this engine's tokens that an accelerator serves, for all engines.
        visits = moe.top_k * self.engines / spread
        if spread > 1:
            visits *= self.imbalance
        yield Operation(
            name="router",
            repeat=layers,
            operations=(("tokens", 2.0 * hidden * moe.num_experts),),
            bytes=(
                ("one", hidden * moe.num_experts * DTYPE_BYTES),
                ("tokens", (hidden + moe.num_experts) * DTYPE_BYTES),
            ),
            shape=Gemm(moe.num_experts, hidden, "bfloat16"),
        )
        shape = Experts(
            hidden_size=hidden,
            intermediate_size=moe.intermediate_size,
            top_k=moe.top_k,
            num_experts=moe.num_experts,
            tensor_parallel_size=1 if self.expert_parallel else self.ranks,
            expert_parallel_size=spread,
            engines=self.engines,
            format=weight.format,
        )
        for name, inputs, outputs in (
            ("experts_up", float(hidden), 2 * width),
            ("experts_down", width, float(hidden)),
        ):
            yield Operation(
                name=name,
                kind=weight.kind,
                repeat=layers,
                operations=(("tokens", 2.0 * visits * inputs * outputs),),
                bytes=(
                    ("experts", inputs * outputs * weight.bytes_per_weight / spread),
                    ("tokens", visits * (inputs + outputs) * DTYPE_BYTES),
                ),
                shape=shape if name == "experts_up" else None,
                module=None if name == "experts_up" else "experts_up",
            )
        yield Operation(
            name="experts_activation",
            repeat=layers,
            operations=(("tokens", 4.0 * visits * width),),
            bytes=(("tokens", visits * 3 * width * DTYPE_BYTES),),
            module="experts_up",
        )
        if self.engines > 1:
            # Hidden states go to the experts' accelerators and come back.
            payload = moe.top_k * hidden * DTYPE_BYTES * (1 - 1 / spread) / self.ranks
            for name in ("expert_dispatch", "expert_combine"):
                yield Operation(
                    name=name,
                    kind="all_to_all",
                    repeat=layers,
                    bytes=(("tokens", payload),),
                    shape=Collective(payload, spread),
                )

    def _collectives(self, vocabulary: float) -> Iterator[Operation]:
        model = self.model
        payload = float(model.hidden_size * DTYPE_BYTES)
        # After the embedding, the attention and the MLP, whose weights are split over the ranks;
        # experts that are exchanged bring their results back by themselves.
        exchanged = 0 if model.moe is None or self.engines == 1 else sum(model.moe.layers)
        yield Operation(
            name="all_reduce",
            kind="all_reduce",
            repeat=2 * model.num_layers + 1 - exchanged,
            bytes=(("tokens", payload),),
            shape=Collective(payload, self.ranks),
        )
        gathered = vocabulary * (self.ranks - 1) * DTYPE_BYTES
        yield Operation(
            name="logits_all_gather",
            runs="sampling",
            kind="all_gather",
            repeat=1,
            bytes=(("sampled_seqs", gathered),),
            shape=Collective(gathered, self.ranks),
        )

    def _projection(
        self,
        name: str,
        component: str,
        layers: int,
        inputs: float,
        outputs: float,
        module: str | None = None,
    ) -> Operation:
        """A matrix product of every token with the weights of ``component``."""
        weight = self.formats.of(component)
        return Operation(
            name=name,
            kind=weight.kind,
            repeat=layers,
            operations=(("tokens", 2.0 * inputs * outputs),),
            bytes=(
                ("one", inputs * outputs * weight.bytes_per_weight),
                ("tokens", (inputs + outputs) * DTYPE_BYTES),
            ),
            shape=Gemm(outputs, inputs, weight.format),
            module=module,
        )

    def _elementwise(
        self, name: str, repeat: int, operations: float, elements: float, module: str | None = None
    ) -> Operation:
        """A kernel that passes over ``elements`` 16-bit numbers a token."""
        return Operation(
            name=name,
            repeat=repeat,
            operations=(("tokens", float(operations)),) if operations else (),
            bytes=(("tokens", float(elements * DTYPE_BYTES)),),
            module=module,
        )
