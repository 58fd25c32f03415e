"""The calibrated roofline's parameters and the file that holds them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from llm_inference_simulator.config import LONGEST_MS, Section
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.files import atomic_text, read_mapping

SCHEMA_VERSION = 1

Rate = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Microseconds = Annotated[float, Field(ge=0, le=1e3 * LONGEST_MS, allow_inf_nan=False)]


class RooflineParameters(Section):
    """What one accelerator achieves, prefill and decode apart, and what the host adds.

    A rate is per accelerator of the tensor-parallel group.
    """

    prefill_effective_tflops: Rate
    """10^12 operations per second in steps that carry prompt tokens."""
    prefill_effective_bandwidth_gbps: Rate
    """10^9 bytes per second in steps that carry prompt tokens."""
    decode_effective_tflops: Rate
    decode_effective_bandwidth_gbps: Rate
    step_overhead_us: Microseconds = 0.0
    """Microseconds that every step takes besides its kernels' work."""
    sequence_overhead_us: Microseconds = 0.0
    """Microseconds for each request in a step."""


class CalibrationFile(Section):
    """A calibration as it is stored: parameters, and what they were measured on."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    kind: Literal["roofline"] = "roofline"
    model: str | None = None
    """Model of the measurements; None: any."""
    xpu: str | None = None
    """Accelerator of the measurements; None: any."""
    dtype: Literal["bfloat16", "float16"] | None = None
    """Type of the activations; None: not said."""
    quantization: Literal["none", "fp8", "int8", "int4"] | None = None
    """Format of the measured weights, ``none`` for 16 bits; None: not said."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] | None = None
    roofline_params: RooflineParameters
    provenance: dict[str, Any] = Field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with atomic_text(path) as file:
            json.dump(self.model_dump(mode="json"), file, indent=2)
            file.write("\n")

    @classmethod
    def read(cls, path: Path) -> tuple[Self, str]:
        """Read a file and the SHA-256 of its bytes; raises :class:`CalibrationError`.

        Parameters may also stand at the top level, without ``roofline_params`` around them.
        """
        data = read_mapping(path, "calibration file", CalibrationError)
        if "roofline_params" not in data:
            own = set(cls.model_fields)
            parameters = {key: value for key, value in data.items() if key not in own}
            data = {key: value for key, value in data.items() if key in own}
            data["roofline_params"] = parameters
        try:
            calibration = cls.parse(_real_numbers(data), source=f"calibration file {path}")
        except ConfigError as error:
            raise CalibrationError(str(error)) from None
        return calibration, hashlib.sha256(path.read_bytes()).hexdigest()


def load_calibration(path: str | Path) -> tuple[CalibrationFile, str]:
    """Read a calibration file; returns it and the SHA-256 of its bytes."""
    return CalibrationFile.read(Path(path))


def _real_numbers(data: dict[str, Any]) -> dict[str, Any]:
    """JSON writes 300 and 300.0 alike: whole numbers of the parameters become floats."""
    parameters = data.get("roofline_params")
    if isinstance(parameters, dict):
        data["roofline_params"] = {
            key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
            for key, value in parameters.items()
        }
    return data
