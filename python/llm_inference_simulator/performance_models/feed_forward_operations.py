"""MLPs and routed experts."""

from __future__ import annotations

from collections.abc import Iterator

from llm_inference_simulator.capacity import DTYPE_BYTES
from llm_inference_simulator.catalog.model_spec import MoeSpec
from llm_inference_simulator.performance_models.operations import (
    Collective,
    Experts,
    Gemm,
    Layout,
    Operation,
)


def feed_forward(layout: Layout) -> Iterator[Operation]:
    """Operations of all MLPs, routers and experts."""
    model, moe = layout.model, layout.model.moe
    sparse = 0 if moe is None else sum(moe.layers)
    if moe is None or sparse < model.num_layers:
        layers = model.num_layers - sparse
        yield from _mlp(layout, "mlp", "mlp", layers, model.intermediate_size)
    if moe is None:
        return
    yield from _experts(layout, moe, sparse)
    if moe.shared_intermediate_size:
        yield from _mlp(
            layout, "shared_expert", "shared_experts", sparse, moe.shared_intermediate_size
        )
    if moe.dense_beside_experts:
        yield from _mlp(layout, "dense_beside_experts", "mlp", sparse, model.intermediate_size)


def _mlp(layout: Layout, name: str, component: str, layers: int, whole: int) -> Iterator[Operation]:
    hidden, width = layout.model.hidden_size, whole / layout.ranks
    matrices = 2 if layout.model.gated_mlp else 1
    yield layout.projection(f"{name}_up", component, layers, (hidden, matrices * width))
    yield layout.elementwise(f"{name}_activation", layers, 4 * width, (matrices + 1) * width)
    yield layout.projection(f"{name}_down", component, layers, (width, hidden))


def _experts(layout: Layout, moe: MoeSpec, layers: int) -> Iterator[Operation]:
    hidden, weight = layout.model.hidden_size, layout.formats.of("experts")
    spread = layout.ranks * layout.engines if layout.expert_parallel else 1
    width = moe.intermediate_size / (1 if layout.expert_parallel else layout.ranks)
    # Visits of one of this engine's tokens that an accelerator serves, for all engines.
    visits = moe.top_k * layout.engines / spread
    if spread > 1:
        visits *= layout.imbalance
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
        tensor_parallel_size=1 if layout.expert_parallel else layout.ranks,
        expert_parallel_size=spread,
        engines=layout.engines,
        format=weight.format,
        imbalance=layout.imbalance if spread > 1 else 1.0,
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
            shared=True,
        )
    yield Operation(
        name="experts_activation",
        repeat=layers,
        operations=(("tokens", 4.0 * visits * width),),
        bytes=(("tokens", visits * 3 * width * DTYPE_BYTES),),
        module="experts_up",
        shared=True,
    )
    if layout.engines > 1:
        # Hidden states go to the experts' accelerators and come back.
        payload = moe.top_k * hidden * DTYPE_BYTES * (1 - 1 / spread) / layout.ranks
        for name in ("expert_dispatch", "expert_combine"):
            yield Operation(
                name=name,
                kind="all_to_all",
                repeat=layers,
                bytes=(("tokens", payload),),
                shape=Collective(payload, spread),
            )
