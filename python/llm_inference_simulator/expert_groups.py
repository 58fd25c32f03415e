"""Engines of a pool that share experts and therefore step together (docs/spec.md, section 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_inference_simulator.errors import ConfigError

if TYPE_CHECKING:
    from llm_inference_simulator.catalog import ModelSpec, XpuSpec
    from llm_inference_simulator.config import EngineConfig, PoolConfig, SimulatorConfig
    from llm_inference_simulator.performance_models.hardware import ExchangeLink


def steps_together(config: SimulatorConfig, pool: PoolConfig, model: ModelSpec) -> bool:
    """Whether the engines of ``pool`` step together: several, that share routed experts.

    Raises :class:`ConfigError` for settings that such a group cannot have.
    """
    engine = config.engine_of(pool)
    if pool.size == 1 or model.moe is None or not engine.enable_expert_parallel:
        return False
    ranks = pool.size * pool.tensor_parallel_size
    together = f"data_parallel_size={pool.size} with enable_expert_parallel"
    if ranks > model.moe.num_experts:
        raise ConfigError(
            f"{together} and tensor_parallel_size={pool.tensor_parallel_size} spreads the "
            f"{model.moe.num_experts} routed experts of {model.name!r} over {ranks} accelerators: "
            "each needs one at least; lower a size or leave out --enable-expert-parallel"
        )
    if engine.batching_strategy != "continuous":
        raise ConfigError(
            f"batching_strategy={engine.batching_strategy} does not go with {together}: engines "
            "that step together batch continuously; leave one out"
        )
    if config.fleet.autoscaling is not None:
        raise ConfigError(
            f"fleet.autoscaling starts and drains single engines, but with {together} all share "
            "the experts and come and go together; leave one out"
        )
    return True


def sharing_engines(pool: PoolConfig, engine: EngineConfig) -> int:
    """Engines that share the experts of one: memory and prices depend on no others' number."""
    return pool.size if engine.enable_expert_parallel else 1


def exchange_link(config: SimulatorConfig, pool: PoolConfig, xpu: XpuSpec) -> ExchangeLink:
    """What carries hidden states to the experts of a group and back (docs/cost_model.md).

    Raises :class:`ConfigError` where the group lies on several nodes whose link is not known.
    """
    # Importing the models takes a while.
    from llm_inference_simulator.performance_models.hardware import ExchangeLink, group_bandwidth

    tp, ranks = pool.tensor_parallel_size, pool.size * pool.tensor_parallel_size
    per_node = pool.n_xpus_per_node or pool.size * pool.xpus_per_engine
    local = min(ranks, tp * max(1, per_node // pool.xpus_per_engine))
    inside = group_bandwidth(xpu, local) * xpu.link_efficiency
    if local == ranks:
        return ExchangeLink(inside, xpu.link_latency_us / 1e6, crosses_nodes=False)
    between = config.stage_bytes_per_s(pool)
    if between is None:
        raise ConfigError(
            f"data_parallel_size={pool.size} with enable_expert_parallel spreads the experts over "
            f"{ranks} accelerators, of which a node of n_xpus_per_node={per_node} holds {local}, "
            "and the bandwidth between nodes is not known: give --inter-node-bandwidth GB_PER_S"
        )
    leaving = (ranks - local) / (ranks - 1)
    slowest = max(leaving / between, (1 - leaving) / inside)
    latency_us = max(xpu.link_latency_us, config.cluster.inter_node_latency_us)
    return ExchangeLink(1 / slowest, latency_us / 1e6, crosses_nodes=True)


def exchange_warnings(pool: PoolConfig, xpu: XpuSpec) -> tuple[str, ...]:
    """Say where a group that is told no nodes outgrows the link, as group_bandwidth prices it."""
    ranks = pool.size * pool.tensor_parallel_size
    if pool.n_xpus_per_node is not None or ranks <= xpu.link_domain_size:
        return ()
    if not (xpu.link_bytes_per_s and xpu.pcie_bytes_per_s):
        return ()
    return (
        f"the experts lie on {ranks} accelerators, but a link joins {xpu.link_domain_size} "
        f"{xpu.name}: their all-to-all is priced at PCIe's {xpu.pcie_bytes_per_s / 1e9:g} GB/s; "
        "for several nodes give --n-nodes, --n-xpus-per-node and --inter-node-bandwidth",
    )
