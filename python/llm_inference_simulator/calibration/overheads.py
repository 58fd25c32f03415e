"""What kernels do not show: constants of the host and of launches, fitted on whole runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llm_inference_simulator.config import LONGEST_MS, Section

Microseconds = Annotated[float, Field(ge=0, le=1e3 * LONGEST_MS, allow_inf_nan=False)]


class HostOverheads(Section):
    """Constants that every model on an accelerator shares."""

    step_overhead_us: Microseconds = 0.0
    """Of every step: launch of its graph, sampling, the host's part between steps."""
    sequence_overhead_us: Microseconds = 0.0
    """Of each request in a step."""
    kernel_latency_us: Microseconds = 0.0
    """Of each elementwise kernel, beside the bytes it moves."""
    mixed_layer_overhead_us: Microseconds = 0.0
    """Of each layer in a step with prompt tokens: it runs as pieces, not as one CUDA graph."""
    mixed_steps_use_graphs: bool = False
    """Whether all-reduces of such steps cost what they cost inside a CUDA graph."""
