"""An accelerator: dense peaks, memory, links, prices and what of the peaks is achievable.

``FIGURES`` is the schema of an accelerator's YAML file: every figure is written as
``{value: NUMBER, source: TEXT}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

ComputeDtype = Literal["bfloat16", "float16", "fp8", "fp4", "int8"]
PriceTier = Literal[
    "hyperscaler_owned",
    "neocloud_owned",
    "rental",
    "on_demand",
    "reserved",
    "spot",
    "amortised",
]
PRICE_TIERS: tuple[str, ...] = get_args(PriceTier)

Rule = Literal["positive", "not_negative", "fraction", "count"]


class Figure(NamedTuple):
    """How a figure of the file becomes a field of :class:`XpuSpec`."""

    field: str
    meaning: str
    rule: Rule = "positive"
    scale: float = 1.0
    required: bool = False
    peak: bool = False
    """A peak or what of it is achievable: all are given, or none where peaks are unknown."""


FIGURES: dict[str, Figure] = {
    "bf16_tflops": Figure("bf16_flops", "dense, FP32 accumulation", "positive", 1e12, peak=True),
    "fp16_tflops": Figure("fp16_flops", "dense, FP32 accumulation", "positive", 1e12, peak=True),
    "fp8_tflops": Figure("fp8_flops", "dense; left out where no native path", "positive", 1e12),
    "fp4_tflops": Figure("fp4_flops", "dense; left out where no native path", "positive", 1e12),
    "int8_tops": Figure("int8_flops", "dense; left out where no native path", "positive", 1e12),
    "memory_gb": Figure("memory_bytes", "as sold, 1e9 bytes", "positive", 1e9, True),
    "usable_memory_gib": Figure(
        "usable_memory_bytes", "what the driver reports, 2^30 bytes", "positive", 2.0**30, True
    ),
    "memory_bandwidth_gb_per_s": Figure(
        "memory_bytes_per_s", "peak", "positive", 1e9, peak=True
    ),
    "link_gb_per_s": Figure(
        "link_bytes_per_s", "scale-up link, per direction; left out where none", "positive", 1e9
    ),
    "link_domain_size": Figure(
        "link_domain_size", "accelerators that the scale-up link joins", "count"
    ),
    "pcie_gb_per_s": Figure(
        "pcie_bytes_per_s", "link to the host, per direction", "positive", 1e9
    ),
    "tdp_w": Figure("tdp_w", "thermal design power"),
    "idle_power_w": Figure("idle_power_w", "drawn without work, ready to run"),
    "all_in_power_w": Figure("all_in_power_w", "with its share of host, network and cooling"),
    "compute_efficiency": Figure(
        "compute_efficiency", "achievable fraction of peaks in large GEMMs", "fraction", peak=True
    ),
    "fp8_compute_efficiency": Figure(
        "fp8_compute_efficiency", "the same for FP8, where known", "fraction"
    ),
    "fp4_compute_efficiency": Figure(
        "fp4_compute_efficiency", "the same for FP4, where known", "fraction"
    ),
    "memory_efficiency": Figure(
        "memory_efficiency", "achievable fraction of the memory bandwidth", "fraction", peak=True
    ),
    "kernel_latency_us": Figure(
        "kernel_latency_us", "added to every operation", "not_negative", 1, True
    ),
    "step_overhead_us": Figure(
        "step_overhead_us", "added to every step: launch, sampling, host work", "not_negative", 1,
        True,
    ),
    "link_efficiency": Figure(
        "link_efficiency", "achievable fraction of the link in large all-reduces", "fraction", 1,
        True,
    ),
    "link_latency_us": Figure(
        "link_latency_us", "per hop of a collective", "not_negative", 1, True
    ),
}  # fmt: skip
"""Keys of the section ``figures``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What an accelerator costs in one way of getting it."""

    tier: PriceTier
    usd_per_hour: float
    source: str
    date: str
    """When the price held, as precisely as the source says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XpuSpec:
    """One accelerator. Rates are per second, links per direction, sizes in bytes."""

    name: str
    description: str
    vendor: str
    aliases: tuple[str, ...]
    bf16_flops: float | None
    """None: peaks are unknown, as for all machines that share a name only; calibrate."""
    fp16_flops: float | None
    fp8_flops: float | None
    """None: no native FP8 matrix path (as for the two below)."""
    fp4_flops: float | None
    int8_flops: float | None
    memory_bytes: int
    usable_memory_bytes: int
    memory_bytes_per_s: float | None
    link_bytes_per_s: float | None
    """Scale-up link; None: accelerators of a node talk over PCIe."""
    link_domain_size: int
    """Accelerators that the scale-up link joins; 1 where there is none."""
    pcie_bytes_per_s: float | None
    tdp_w: float | None
    idle_power_w: float | None
    all_in_power_w: float | None
    prices: tuple[Price, ...]
    compute_efficiency: float | None
    fp8_compute_efficiency: float | None
    fp4_compute_efficiency: float | None
    memory_efficiency: float | None
    kernel_latency_us: float
    step_overhead_us: float
    link_efficiency: float
    link_latency_us: float
    sources: Mapping[str, str]
    """Source of every figure, by its key in ``FIGURES``."""

    def peak_flops(self, dtype: ComputeDtype) -> float | None:
        """Dense peak operations per second; None where there is no native path for ``dtype``."""
        peaks: dict[ComputeDtype, float | None] = {
            "bfloat16": self.bf16_flops,
            "float16": self.fp16_flops,
            "fp8": self.fp8_flops,
            "fp4": self.fp4_flops,
            "int8": self.int8_flops,
        }
        return peaks[dtype]

    @property
    def has_peaks(self) -> bool:
        """Whether the catalogue knows peaks, without which only a calibration gives times."""
        return self.bf16_flops is not None

    def compute_efficiency_of(self, dtype: ComputeDtype) -> float | None:
        """Achievable fraction of ``peak_flops(dtype)`` in large matrix products."""
        own = {"fp8": self.fp8_compute_efficiency, "fp4": self.fp4_compute_efficiency}.get(dtype)
        return self.compute_efficiency if own is None else own
