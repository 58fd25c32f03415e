"""What the core's roofline needs to know of a model and an accelerator, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.capacity import DTYPE_BYTES, kv_dtype_bytes, resolve_quantization
from llm_inference_simulator.catalog import ComputeDtype, ModelSpec, XpuSpec
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError

_NATIVE_FORMATS: Mapping[str, ComputeDtype] = {"fp8": "fp8", "int8": "int8"}
"""Formats of weights that some accelerators multiply as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureShape:
    """The expert layers of a mixture of experts; widths are of the whole model."""

    num_layers: int
    num_experts: int
    experts_per_token: int
    intermediate_size: int
    shared_intermediate_size: int
    """What every token visits beside its experts; 0: nothing."""
    weight_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineModelShape:
    """A transformer in plain numbers (docs/cost_model.md), as the core reads it."""

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    gated_mlp: bool
    vocab_size: int
    tensor_parallel_size: int
    weight_bytes: float
    embedding_bytes: float
    activation_bytes: float
    kv_cache_bytes: float
    mixture: MixtureShape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRates:
    """Achievable rates of one phase, per second and accelerator."""

    linear_flops: float
    attention_flops: float
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightFormat:
    """How the layers' matrices are stored and multiplied."""

    bytes_per_weight: float
    compute_dtype: ComputeDtype
    """Format whose matrix rate applies."""
    warnings: tuple[str, ...] = ()


def weight_format(model: ModelSpec, xpu: XpuSpec, engine: EngineConfig) -> WeightFormat:
    """Resolve the weights' format; raises :class:`ConfigError` where two formats are asked for.

    Weight-only formats, and formats that the accelerator cannot multiply, are widened to 16 bits
    on the fly, as vLLM's kernels do: they save bytes, not operations.
    """
    spec = resolve_quantization(model, engine)
    dense = activation_dtype(model, engine)
    if spec is None:
        return WeightFormat(bytes_per_weight=DTYPE_BYTES, compute_dtype=dense)
    priced = {"attention", "mlp"} | (set() if model.moe is None else {"experts"})
    if not priced <= set(spec.components):
        raise ConfigError(
            f"model {model.name!r} quantises {', '.join(spec.components) or 'nothing'} only, which "
            "the roofline does not price: use a version with one format"
        )
    size = (spec.bits + spec.overhead_bits) / 8
    native = None if spec.weight_only else _NATIVE_FORMATS.get(spec.format)
    if native is None:
        return WeightFormat(bytes_per_weight=size, compute_dtype=dense)
    if xpu.peak_flops(native) is not None:
        return WeightFormat(bytes_per_weight=size, compute_dtype=native)
    warning = (
        f"{xpu.name} has no {spec.format} matrix units: weights are {spec.format}, the arithmetic "
        "is 16-bit"
    )
    return WeightFormat(bytes_per_weight=size, compute_dtype=dense, warnings=(warning,))


def activation_dtype(model: ModelSpec, engine: EngineConfig) -> Literal["bfloat16", "float16"]:
    """Resolve the 16-bit type that activations have."""
    return model.dtype if engine.dtype == "auto" else engine.dtype


def achievable_flops(xpu: XpuSpec, dtype: ComputeDtype) -> float:
    """Operations per second that large matrix products reach; the 16-bit rate where no other is.

    Raises :class:`ConfigError` where the catalogue knows no peaks.
    """
    known = dtype if xpu.peak_flops(dtype) is not None else "bfloat16"
    return _known(xpu, xpu.peak_flops(known)) * _known(xpu, xpu.compute_efficiency_of(known))


def achievable_bandwidth(xpu: XpuSpec) -> float:
    """Bytes of memory traffic per second; :class:`ConfigError` where no peaks are known."""
    return _known(xpu, xpu.memory_bytes_per_s) * _known(xpu, xpu.memory_efficiency)


def _known(xpu: XpuSpec, figure: float | None) -> float:
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


def model_shape(
    model: ModelSpec, engine: EngineConfig, weights: WeightFormat, tensor_parallel_size: int
) -> RooflineModelShape:
    """Reduce a model to what the roofline needs."""
    return RooflineModelShape(
        mixture=_mixture(model, weights),
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_attention_heads,
        num_key_value_heads=model.num_key_value_heads,
        head_dim=model.head_dim,
        intermediate_size=model.intermediate_size,
        gated_mlp=model.gated_mlp,
        vocab_size=model.vocab_size,
        tensor_parallel_size=tensor_parallel_size,
        weight_bytes=weights.bytes_per_weight,
        embedding_bytes=DTYPE_BYTES,
        activation_bytes=DTYPE_BYTES,
        kv_cache_bytes=kv_dtype_bytes(engine),
    )


def _mixture(model: ModelSpec, weights: WeightFormat) -> MixtureShape | None:
    moe = model.moe
    if moe is None:
        return None
    beside = model.intermediate_size if moe.dense_beside_experts else 0
    return MixtureShape(
        num_layers=sum(moe.layers),
        num_experts=moe.num_experts,
        experts_per_token=moe.top_k,
        intermediate_size=moe.intermediate_size,
        shared_intermediate_size=moe.shared_intermediate_size + beside,
        weight_bytes=weights.bytes_per_weight,
    )
