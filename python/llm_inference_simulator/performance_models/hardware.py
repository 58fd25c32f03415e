"""An accelerator and its links in the numbers that the core's roofline takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.catalog import ComputeDtype, XpuSpec
from llm_inference_simulator.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRates:
    """Achievable rates of one phase, per second and accelerator."""

    quantized_flops: float
    """Operations on weights in their quantised format."""
    flops: float
    """Operations on 16-bit operands."""
    memory_bandwidth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineHardware:
    """An accelerator as the roofline sees it: achievable rates and constants, in seconds."""

    prefill: PhaseRates
    decode: PhaseRates
    kernel_latency_s: float
    step_overhead_s: float
    sequence_overhead_s: float
    link_bandwidth: float
    link_latency_s: float
    all_reduce: Literal["ring", "tree", "auto"] = "auto"


def achievable_flops(xpu: XpuSpec, dtype: ComputeDtype) -> float:
    """Operations per second that large matrix products reach; the 16-bit rate where no other is."""
    peak = xpu.peak_flops(dtype)
    if peak is None:
        return xpu.bf16_flops * xpu.compute_efficiency
    return peak * xpu.compute_efficiency_of(dtype)


def group_bandwidth(xpu: XpuSpec, tensor_parallel_size: int) -> float:
    """Peak bytes per second and direction between the accelerators of a tensor-parallel group.

    The scale-up link where it joins the whole group, else PCIe. Raises :class:`ConfigError` where
    there is neither.
    """
    if tensor_parallel_size <= xpu.link_domain_size and xpu.link_bytes_per_s is not None:
        return xpu.link_bytes_per_s
    if xpu.pcie_bytes_per_s is not None:
        return xpu.pcie_bytes_per_s
    if tensor_parallel_size == 1:
        return xpu.memory_bytes_per_s  # a group of one sends nothing
    raise ConfigError(
        f"tensor_parallel_size={tensor_parallel_size} exceeds the {xpu.link_domain_size} "
        f"{xpu.name} that a link joins: lower it"
    )


def group_warnings(xpu: XpuSpec, tensor_parallel_size: int) -> tuple[str, ...]:
    """Say where a group outgrows the link, so that :func:`group_bandwidth` falls back to PCIe."""
    if tensor_parallel_size <= xpu.link_domain_size or not (
        xpu.link_bytes_per_s and xpu.pcie_bytes_per_s
    ):
        return ()
    link = "NVLink" if xpu.vendor == "NVIDIA" else "the scale-up link"
    return (
        f"tensor_parallel_size={tensor_parallel_size} exceeds the {xpu.link_domain_size} "
        f"{xpu.name} that {link} joins: their collectives run over PCIe at "
        f"{xpu.pcie_bytes_per_s / 1e9:g} GB/s",
    )
