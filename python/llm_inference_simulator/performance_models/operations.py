"""Kernels as values: work, shape, and how often each runs in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.capacity import DTYPE_BYTES
from llm_inference_simulator.catalog import ModelSpec
from llm_inference_simulator.catalog.model_spec import HeadSpec
from llm_inference_simulator.performance_models.weight_formats import WeightFormats

Runs = Literal["always", "prefill", "decode", "sampling"]
Kind = Literal["linear_kernel", "kernel", "all_reduce", "all_gather", "all_to_all"]
AttentionWindow = tuple[Literal["sliding", "chunked"], int]
"""(kind, tokens) of layers that do not see the whole context."""

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
    """(hidden, q_lora_rank, kv_lora_rank, nope, rope and value head size): what module it is."""
    sparse: bool
    """Whether an indexer chooses the keys."""


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
    imbalance: float
    """Visits of the fullest accelerator over the mean."""


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
    shared: bool = False
    """Whether it serves the tokens of all engines that share the experts, and its sums are their
    mean."""


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
    attention_window: AttentionWindow | None
    """What layers that do not see the whole context see; None: no sequence outgrows it."""
    engines: int
    """Data-parallel engines that share the experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a model lies on one accelerator; sizes are per accelerator, activations have 16 bits."""

    model: ModelSpec
    ranks: int
    formats: WeightFormats
    kv_bytes: int
    window: AttentionWindow | None
    expert_parallel: bool
    engines: int
    imbalance: float

    def heads(self, heads: HeadSpec) -> tuple[float, float]:
        """Query and key-value heads of one accelerator; fewer heads than ranks are copied."""
        return (
            heads.num_query_heads / self.ranks,
            max(1.0, heads.num_key_value_heads / self.ranks),
        )

    def projection(
        self,
        name: str,
        component: str,
        layers: int,
        sizes: tuple[float, float],
        *,
        module: str | None = None,
    ) -> Operation:
        """A matrix product of every token with the weights of ``component``.

        ``sizes``: inputs and outputs.
        """
        inputs, outputs = sizes
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

    def elementwise(
        self,
        name: str,
        repeat: int,
        operations: float,
        elements: float,
        *,
        module: str | None = None,
    ) -> Operation:
        """A kernel that passes over ``elements`` 16-bit numbers a token."""
        return Operation(
            name=name,
            repeat=repeat,
            operations=(("tokens", float(operations)),) if operations else (),
            bytes=(("tokens", float(elements * DTYPE_BYTES)),),
            module=module,
        )
