"""A disaggregated cluster: prefill engines, links, decode engines."""

from __future__ import annotations

from collections.abc import Mapping

from llm_inference_simulator.aggregated_cluster import NS_PER_MS
from llm_inference_simulator.cluster import TransferSettings
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError


def transfer_settings(
    config: SimulatorConfig, num_layers: int, kv_bytes_per_token: Mapping[str, int]
) -> TransferSettings | None:
    """Resolve how keys and values are sent; None for a cluster that sends none.

    ``kv_bytes_per_token`` has one entry a pool. Raises :class:`ConfigError` where the pools keep
    keys and values in different formats: what one writes the other could not read.
    """
    if not config.cluster.is_disaggregated:
        return None
    sizes = set(kv_bytes_per_token.values())
    if len(sizes) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in kv_bytes_per_token.items())
        raise ConfigError(
            f"the pools keep a token's keys and values in different sizes (bytes: {listed}): give "
            "them one kv_cache_dtype"
        )
    transfer = config.transfer
    fabric = transfer.fabric_bandwidth_gb_s
    return TransferSettings(
        kv_bytes_per_token=sizes.pop(),
        fabric_bytes_per_s=None if fabric is None else round(fabric * 1e9),
        latency_ns=round(transfer.latency_ms * NS_PER_MS),
        layers=num_layers if transfer.mode == "layerwise" else 0,
    )
