"""How each component's weights are stored, and at which rate they are multiplied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llm_inference_simulator.capacity import DTYPE_BYTES, resolve_quantization
from llm_inference_simulator.catalog import ComputeDtype, ModelSpec, XpuSpec
from llm_inference_simulator.catalog.model_spec import QuantizationSpec
from llm_inference_simulator.config import EngineConfig

_NATIVE_FORMATS: Mapping[str, ComputeDtype] = {"fp8": "fp8", "int8": "int8", "nvfp4": "fp4"}
"""Formats of weights that some accelerators multiply as they are."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """One component's matrices."""

    bytes_per_weight: float
    kind: Literal["kernel", "linear_kernel"]
    """Which of the accelerator's two rates applies."""
    format: str
    """``bfloat16``, or the quantised format; ``fp8_block`` where blocks of FP8 share a scale."""


@dataclass(frozen=True, slots=True)
class WeightFormats:
    """The formats of a model's components on an accelerator."""

    quantization: QuantizationSpec | None
    dense_dtype: Literal["bfloat16", "float16"]
    compute_dtype: ComputeDtype
    """Format whose matrix rate the quantised components have."""
    warnings: tuple[str, ...] = ()

    def of(self, component: str) -> WeightFormat:
        """Format of a component of :data:`~llm_inference_simulator.catalog.weights.COMPONENTS`."""
        spec = self.quantization
        if spec is None:
            return WeightFormat(DTYPE_BYTES, "linear_kernel", "bfloat16")
        if component not in spec.components:
            # Where quantised matrices are multiplied in 16 bits too, all run at one rate.
            widened = self.compute_dtype == self.dense_dtype
            return WeightFormat(DTYPE_BYTES, "linear_kernel" if widened else "kernel", "bfloat16")
        return WeightFormat(
            (spec.bits + spec.overhead_bits) / 8,
            "linear_kernel",
            "fp8_block" if spec.format == "fp8" and spec.overhead_bits > 0 else spec.format,
        )


def weight_formats(model: ModelSpec, xpu: XpuSpec, engine: EngineConfig) -> WeightFormats:
    """Resolve the formats; raises :class:`ConfigError` where two formats are asked for.

    Weight-only formats, and formats that the accelerator cannot multiply, are widened to 16 bits
    on the fly, as vLLM's kernels do: they save bytes, not operations.
    """
    spec = resolve_quantization(model, engine)
    dense = activation_dtype(model, engine)
    if spec is None:
        return WeightFormats(None, dense, dense)
    native = None if spec.weight_only else _NATIVE_FORMATS.get(spec.format)
    if native is None:
        return WeightFormats(spec, dense, dense)
    if xpu.peak_flops(native) is not None:
        return WeightFormats(spec, dense, native)
    warning = (
        f"{xpu.name} has no {spec.format} matrix units: weights are {spec.format}, the arithmetic "
        "is 16-bit"
    )
    return WeightFormats(spec, dense, dense, (warning,))


def activation_dtype(model: ModelSpec, engine: EngineConfig) -> Literal["bfloat16", "float16"]:
    """Resolve the 16-bit type that activations have."""
    return model.dtype if engine.dtype == "auto" else engine.dtype
