"""The calibrated roofline's parameters and the file that holds them."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llm_inference_simulator.calibration.front_end import FrontEndLatency
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.files import atomic_text, read_mapping
from llm_inference_simulator.sections import (
    LONGEST_MS,
    Count,
    NonNegativeReal,
    PositiveReal,
    Section,
)

SCHEMA_VERSION = 1

ALL_STEPS = "step_overhead_us"
PHASE_OVERHEADS = ("prefill_step_overhead_us", "decode_step_overhead_us")

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
    prefill_attention_effective_tflops: Rate | None = None
    """The same for attention and the LM head; None: ``prefill_effective_tflops``."""
    decode_attention_effective_tflops: Rate | None = None
    """The same in pure decode steps; None: ``decode_effective_tflops``."""
    prefill_step_overhead_us: Microseconds = 0.0
    """Microseconds of a step that carries prompt tokens, besides its kernels' work."""
    decode_step_overhead_us: Microseconds = 0.0
    """The same of a pure decode step."""
    sequence_overhead_us: Microseconds = 0.0
    """Microseconds for each request in a step."""

    @model_validator(mode="before")
    @classmethod
    def _one_overhead_of_all_steps(cls, data: Any) -> Any:
        """``step_overhead_us`` stands for both phases, as in files of before."""
        if not isinstance(data, dict) or ALL_STEPS not in data:
            return data
        given = {key: value for key, value in data.items() if key != ALL_STEPS}
        for phase in PHASE_OVERHEADS:
            if phase in given:
                raise ValueError(f"{ALL_STEPS} and {phase} contradict each other: give one")
            given[phase] = data[ALL_STEPS]
        return given


class Interval(Section):
    """A confidence interval, in the unit of what it belongs to."""

    low: NonNegativeReal
    high: NonNegativeReal


class CalibratedRange(Section):
    """What the measured steps covered; a run beyond it is an extrapolation."""

    prefill_tokens: Count
    """Most prompt tokens of a step."""
    sequences: Count
    """Most requests of a step."""
    context_tokens: Count
    """Longest context of a request, the step's own tokens included."""


class HeldOutError(Section):
    """How well steps are predicted that the parameters were not fitted to."""

    mean_absolute_percent: NonNegativeReal
    p90_absolute_percent: NonNegativeReal
    bias_percent: Annotated[float, Field(allow_inf_nan=False)]
    """Mean of predicted over measured, less 100 %."""
    points: Count
    folds: Count


class MeasuredEngine(Section):
    """Settings of the engine that was measured, in vLLM's names; None: not recorded."""

    block_size: Count | None = None
    num_gpu_blocks: Count | None = None
    max_num_seqs: Count | None = None
    max_num_batched_tokens: Count | None = None
    max_model_len: Count | None = None
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None


class DataSource(Section):
    """A file of measurements and its SHA-256."""

    file: str
    sha256: str


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
    quantization: Literal["none", "fp8", "int8", "int4", "mxfp4", "nvfp4"] | None = None
    """Format of the measured weights, ``none`` for 16 bits; None: not said."""
    tensor_parallel_size: Annotated[int, Field(ge=1)] | None = None
    roofline_params: RooflineParameters
    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Confidence of the intervals, as 0.95."""
    intervals: dict[str, Interval] = Field(default_factory=dict)
    """Of the parameters that the measurements identify."""
    assumed: dict[str, str] = Field(default_factory=dict)
    """Parameters that the measurements do not identify: what their value was taken from."""
    knees_flop_per_byte: dict[str, PositiveReal] = Field(default_factory=dict)
    """Arithmetic intensity at which ``prefill`` and ``decode`` turn from memory to compute."""
    calibrated_range: CalibratedRange | None = None
    held_out_error: HeldOutError | None = None
    server_step_factor: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Steps behind a server last so many times as long as the parameters say."""
    front_end: FrontEndLatency | None = None
    """What a server adds to a request; used where a configuration does not give its own."""
    engine: MeasuredEngine | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
    """Versions, device and settings of the measurements."""
    data: tuple[DataSource, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    def engine_settings(self) -> dict[str, Any]:
        """Settings of the measured engine, in the keys of a configuration's ``engine``."""
        known = {} if self.engine is None else self.engine.model_dump(exclude_none=True)
        if "num_gpu_blocks" in known:
            known["num_gpu_blocks_override"] = known.pop("num_gpu_blocks")
        if self.quantization not in (None, "none"):
            known["quantization"] = self.quantization
        return known

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
            calibration = cls.parse(_plain(data), source=f"calibration file {path}")
        except ConfigError as error:
            raise CalibrationError(str(error)) from None
        return calibration, hashlib.sha256(path.read_bytes()).hexdigest()


def load_calibration(path: str | Path) -> tuple[CalibrationFile, str]:
    """Read a calibration file; returns it and the SHA-256 of its bytes."""
    return CalibrationFile.read(Path(path))


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, and writes 300 and 300.0 alike: make both what the fields are."""
    parameters = data.get("roofline_params")
    if isinstance(parameters, dict):
        data["roofline_params"] = {
            key: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
            for key, value in parameters.items()
        }
    if isinstance(data.get("data"), list):
        data["data"] = tuple(data["data"])
    return data
