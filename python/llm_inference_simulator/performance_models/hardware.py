"""An accelerator and its links in the numbers that the core's roofline takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.catalog import ComputeDtype, XpuSpec
from llm_inference_simulator.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRates:
    """Achievable rates of one phase, per second and accelerator, and what its steps add."""

    linear_flops: float
    """Operations of the layers' matrices, in their format."""
    attention_flops: float
    """Operations on 16-bit operands: attention, the LM head, what a model leaves unquantised."""
    memory_bandwidth: float
    step_overhead_s: float
    """Of every step, besides its kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineHardware:
    """An accelerator as the roofline sees it: achievable rates and constants, in seconds."""

    prefill: PhaseRates
    decode: PhaseRates
    kernel_latency_s: float
    sequence_overhead_s: float
    link_bandwidth: float
    link_latency_s: float
    all_reduce: Literal["ring", "tree", "auto"] = "auto"
    exchange_bandwidth: float | None = None
    """Bytes per second that an accelerator sends to experts elsewhere; None: the link's."""
    exchange_latency_s: float | None = None
    """Of an all-to-all; None: the link's."""


@dataclass(frozen=True, slots=True)
class ExchangeLink:
    """What joins the accelerators that routed experts are spread over."""

    bytes_per_s: float
    """Achievable, per accelerator and direction, as an even all-to-all sees it."""
    latency_s: float
    crosses_nodes: bool


def achievable_flops(xpu: XpuSpec, dtype: ComputeDtype) -> float:
    """Operations per second that large matrix products reach; the 16-bit rate where no other is.

    Raises :class:`ConfigError` where the catalogue knows no peaks.
    """
    known = dtype if xpu.peak_flops(dtype) is not None else "bfloat16"
    return known_figure(xpu, xpu.peak_flops(known)) * known_figure(
        xpu, xpu.compute_efficiency_of(known)
    )


def achievable_bandwidth(xpu: XpuSpec) -> float:
    """Bytes of memory traffic per second; :class:`ConfigError` where no peaks are known."""
    return known_figure(xpu, xpu.memory_bytes_per_s) * known_figure(xpu, xpu.memory_efficiency)


def known_figure(xpu: XpuSpec, figure: float | None) -> float:
    """A figure of the catalogue; :class:`ConfigError` where it is not known."""
    if figure is None:
        raise ConfigError(
            f"xpu={xpu.name} has no peak rates in the catalogue, so the roofline cannot price it: "
            "measure it (the command 'calibrate') and give --calibration-data"
        )
    return figure


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
        return xpu.memory_bytes_per_s or 1.0  # a group of one sends nothing
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
