"""What kernels do not show: constants of the host and of launches, fitted on whole runs."""

from typing import Annotated

from pydantic import Field

from llm_inference_simulator.sections import LONGEST_MS, Section

Microseconds = Annotated[float, Field(ge=0, le=1e3 * LONGEST_MS, allow_inf_nan=False)]


class HostOverheads(Section):
    """Constants that every model on an accelerator shares."""

    kernel_latency_us: Microseconds = 0.0
    """Of each elementwise kernel, beside the bytes it moves."""
    step_overhead_us: Microseconds = 0.0
    """Of every step: what the host adds between two of them."""
    all_reduce_factor: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 1.0
    """Time of an all-reduce in a model over the measured one, whose ranks arrive together."""
    penalties_step_us: Microseconds = 0.0
    """Of a step whose requests have repetition penalties: counting and masking of the logits."""
