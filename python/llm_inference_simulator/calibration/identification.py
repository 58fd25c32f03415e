"""Which parameters measured steps can tell, and what to measure where they cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration.parameters import CalibratedRange
from llm_inference_simulator.calibration.roof_solver import Observations, Ties, noise
from llm_inference_simulator.calibration.step_work import OVERHEADS, PARAMETERS, Array

LARGEST_RELATIVE_ERROR = 0.2
"""Standard error above which a rate counts as not identified."""
LARGEST_OVERHEAD_SHARE = 0.1
"""The same for overheads, as a share of a short step."""
SMALLEST_SHARE = 0.05
"""A step tells something about a parameter if this share of its time is charged to it."""
FEWEST_SHAPES = 3
"""Repeating one step does not tell what depends on its shape."""

ATTENTION = (
    PARAMETERS.index("prefill_attention_effective_tflops"),
    PARAMETERS.index("decode_attention_effective_tflops"),
)

FALLBACKS: dict[str, str | None] = {
    "prefill_attention_effective_tflops": "prefill_effective_tflops",
    "decode_attention_effective_tflops": "decode_effective_tflops",
    "sequence_overhead_us": None,
    "prefill_step_overhead_us": "decode_step_overhead_us",
    "prefill_effective_bandwidth_gbps": "decode_effective_bandwidth_gbps",
    "decode_effective_tflops": "prefill_effective_tflops",
}
"""What a parameter is taken from where it is not identified (None: zero); the others must be."""


HIDDEN_BANDWIDTH = "decode_effective_bandwidth_gbps"

MAY_BE_HIDDEN = (
    "decode_attention_effective_tflops",
    "prefill_attention_effective_tflops",
    "decode_effective_tflops",
)
"""Rates that are given up where the steps are explained as well without them."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A parameter that the measurements do not identify."""

    name: str
    reason: str
    relative_error: float


def doubts(data: Observations, cells: NDArray[np.int64], ties: Ties, cost: Array) -> list[Doubt]:
    """Free parameters that are not identified at the solution, the most doubtful first.

    ``cells`` numbers the shapes: steps of one cell are nearly alike.
    """
    share = data.work.gradient(cost) @ ties.matrix / data.work.seconds(cost)[:, None]
    free = np.array([cost[index] for index in ties.free])
    told = _shapes(share * free > SMALLEST_SHARE, cells)
    # The LM head runs at the rate of attention too, but tells nothing about attention.
    attention = data.work.attention_costs(cost) / data.work.seconds(cost)[:, None]
    for phase, index in enumerate(ATTENTION):
        if index in ties.free:
            bound = attention[:, phase : phase + 1] > SMALLEST_SHARE
            told[ties.free.index(index)] = _shapes(bound, cells)[0]
    # What bounds no step is in doubt itself, but casts none on the others: bytes of a cache write
    # grow with the tokens as operations do, and would make the two look alike.
    overhead = np.array([PARAMETERS[index] in OVERHEADS for index in ties.free])
    used = overhead | (told >= FEWEST_SHAPES)
    errors = np.full(len(ties.free), np.inf)
    errors[used] = _standard_errors(data, share[:, used], cost)
    shortest = float(np.quantile(data.seconds, 0.05))
    found = []
    for column, index in enumerate(ties.free):
        name = PARAMETERS[index]
        if name in OVERHEADS:
            # Of a short step; the very shortest may be a measuring error.
            largest = LARGEST_OVERHEAD_SHARE * shortest
            if errors[column] > largest:
                reason = (
                    f"its standard error is {errors[column] * 1e6:.3g} us"
                    if math.isfinite(errors[column])
                    else "no step tells it apart from the other parameters"
                )
                found.append(Doubt(name, reason, errors[column] / largest))
            continue
        if told[column] < FEWEST_SHAPES:
            reason = f"it bounds {told[column]} of {cells.max() + 1} shapes of steps"
            found.append(Doubt(name, reason, np.inf))
            continue
        relative = errors[column] / free[column] if free[column] > 0 else np.inf
        if relative > LARGEST_RELATIVE_ERROR:
            reason = (
                f"its standard error is {relative:.0%}"
                if math.isfinite(relative)
                else "no step tells it apart from the other parameters"
            )
            found.append(Doubt(name, reason, relative / LARGEST_RELATIVE_ERROR))
    order = list(FALLBACKS)
    return sorted(
        found,
        key=lambda doubt: (
            -doubt.relative_error,
            order.index(doubt.name) if doubt.name in order else len(order),
        ),
    )


def hidden_by_arithmetic(
    found: list[Doubt], data: Observations, cells: NDArray[np.int64], cost: Array
) -> bool:
    """Whether the only doubt is a bandwidth that no step is bound by, for arithmetic is slower.

    So it is on processors without matrix units for the weights' format.
    """
    unbound = [doubt.name for doubt in found] == [HIDDEN_BANDWIDTH] and math.isinf(
        found[0].relative_error
    )
    decode = PARAMETERS.index("decode_effective_tflops")
    share = data.work.costs(cost)[:, decode : decode + 1] / data.work.seconds(cost)[:, None]
    return bool(unbound and _shapes(share > SMALLEST_SHARE, cells)[0] >= FEWEST_SHAPES)


def _shapes(told: NDArray[np.bool_], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Different shapes among the steps that tell something, by column."""
    return np.array([len(np.unique(cells[column])) for column in told.T], dtype=np.int64)


def _standard_errors(data: Observations, sensitivity: Array, cost: Array) -> Array:
    """Of the free costs, from the curvature at the solution; infinite where there is none."""
    scale = np.sqrt((sensitivity**2).sum(axis=0))
    errors = np.full(sensitivity.shape[1], np.inf)
    used = scale > 0
    if not used.any():
        return errors
    scaled = sensitivity[:, used] / scale[used]
    _, singular, rotated = np.linalg.svd(data.weights[:, None] * scaled, full_matrices=False)
    # Directions that the steps do not see at all have no curvature.
    seen = singular > 1e-7 * singular[0]
    variance = np.full(rotated.shape[1], 0.0)
    variance += ((rotated[seen] / singular[seen, None]) ** 2).sum(axis=0)
    unseen = (np.abs(rotated[~seen]) > 1e-3).any(axis=0)
    sigma = max(noise(data.residuals(cost)), 1e-6)
    found = sigma * np.sqrt(variance)
    found[unseen] = np.inf
    errors[used] = found / scale[used]
    return errors


def measure_next(name: str, measured: CalibratedRange) -> str:
    """Which steps would identify a parameter."""
    tokens, sequences, context = (
        measured.prefill_tokens,
        measured.sequences,
        measured.context_tokens,
    )
    advice = {
        "prefill_effective_tflops": f"prefill steps of {max(512, 4 * tokens):,} tokens and more",
        "prefill_attention_effective_tflops": "prefill steps of 2,048 tokens and more, and chunks "
        f"on contexts of {max(2048, 2 * context):,} tokens",
        "prefill_effective_bandwidth_gbps": "prefill steps of 1 to 16 tokens",
        "decode_effective_tflops": f"decode steps of {max(32, 4 * sequences):,} requests and more",
        "decode_attention_effective_tflops": "decode steps of many requests at contexts of "
        f"{max(2048, 2 * context):,} tokens and more",
        "decode_effective_bandwidth_gbps": "decode steps of 1, 2, 4 and 8 requests, each at "
        f"contexts from 64 to {max(2048, 2 * context):,} tokens",
        "prefill_step_overhead_us": "prefill steps of 16, 64 and 256 tokens",
        "decode_step_overhead_us": "decode steps of one request at contexts from 64 tokens up",
        "sequence_overhead_us": "decode steps of 1, 4, 16 and more requests at a short context",
    }
    return advice[name]
