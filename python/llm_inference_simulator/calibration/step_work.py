"""What steps compute and move, and the seconds that follow from the parameters of a roofline.

The same sum over operations as docs/cost_model.md, over arrays of steps: the parameters of a fit
change thousands of times while operations and bytes stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator._core import OperationCost, StepShape
from llm_inference_simulator.calibration.parameters import RooflineParameters
from llm_inference_simulator.calibration.step_data import MeasuredStep
from llm_inference_simulator.step_sums import STEP_SUMS

Array = NDArray[np.float64]
Breakdown = Callable[[StepShape], Mapping[str, OperationCost]]
"""Components of a step by name, as a roofline gives them; its rates do not matter here."""

PARAMETERS = (
    "prefill_effective_tflops",
    "prefill_attention_effective_tflops",
    "prefill_effective_bandwidth_gbps",
    "decode_effective_tflops",
    "decode_attention_effective_tflops",
    "decode_effective_bandwidth_gbps",
    "prefill_step_overhead_us",
    "decode_step_overhead_us",
    "sequence_overhead_us",
)
"""Parameters in the order of a cost vector, which holds seconds per unit of work: 1 / rate."""

RATES = PARAMETERS[:6]
OVERHEADS = PARAMETERS[6:]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """Work of steps: a row a step, a column an operation.

    Operations are in 10^12 and bytes in 10^9 so that cost vectors are well scaled.
    """

    linear_operations: Array
    linear_bytes: Array
    other_operations: Array
    other_bytes: Array
    attention_operations: Array
    attention_bytes: Array
    """What attention alone has of the two above."""
    communication_s: Array
    """Seconds of collectives, which the catalogue's link decides."""
    sequences: Array
    with_prefill: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: NDArray[np.intp]) -> StepWork:
        """The steps of ``rows``, which may repeat."""
        return StepWork(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def costs(self, cost: Array) -> Array:
        """Seconds of each step that each parameter is charged with, at a cost vector.

        A column a parameter. An operation is charged to whichever of arithmetic and memory takes
        longer.
        """
        charged = self.gradient(cost) * cost
        return np.asarray(charged, dtype=np.float64)

    def seconds(self, cost: Array) -> Array:
        """Seconds of each step."""
        return np.asarray(self.costs(cost).sum(axis=1) + self.communication_s, dtype=np.float64)

    def gradient(self, cost: Array) -> Array:
        """Derivative of the seconds by the cost vector (one of them, where the roof has a knee)."""
        gradient = np.zeros((len(self), len(PARAMETERS)))
        for phase, rows in ((0, self.with_prefill), (3, ~self.with_prefill)):
            bandwidth = cost[phase + 2]
            for column, operations, traffic in (
                (phase, self.linear_operations[rows], self.linear_bytes[rows]),
                (phase + 1, self.other_operations[rows], self.other_bytes[rows]),
            ):
                arithmetic = operations * cost[column] > traffic * bandwidth
                gradient[rows, column] += np.where(arithmetic, operations, 0.0).sum(axis=1)
                gradient[rows, phase + 2] += np.where(arithmetic, 0.0, traffic).sum(axis=1)
        gradient[:, 6] = self.with_prefill
        gradient[:, 7] = ~self.with_prefill
        gradient[:, 8] = self.sequences
        return gradient

    def attention_costs(self, cost: Array) -> Array:
        """Seconds of each step that attention proper is charged with for arithmetic, by phase."""
        charged = np.zeros((len(self), 2))
        for column, rows in enumerate((self.with_prefill, ~self.with_prefill)):
            arithmetic = self.attention_operations[rows] * cost[3 * column + 1]
            memory = self.attention_bytes[rows] * cost[3 * column + 2]
            charged[rows, column] = np.where(arithmetic > memory, arithmetic, 0.0).sum(axis=1)
        return charged


def step_work(
    steps: Sequence[MeasuredStep], breakdown: Breakdown, window: tuple[str, int] | None = None
) -> StepWork:
    """Take the operations and bytes of ``steps`` from a roofline's ``breakdown_step``.

    ``window`` is what the model attends to, as its ``attention_window``.
    """
    known: dict[tuple[int, ...], Mapping[str, OperationCost]] = {}
    parts = []
    for step in steps:
        shape = step.shape(window)
        key = tuple(getattr(shape, name) for name in STEP_SUMS)
        if key not in known:
            known[key] = breakdown(shape)
        parts.append(known[key])
    names = {
        name: cost.linear
        for part in known.values()
        for name, cost in part.items()
        if cost.bound not in ("communication", "overhead")
    }
    linear = [name for name, is_linear in names.items() if is_linear]
    attention = [name for name in names if name.startswith("attention_")]
    other = [name for name, is_linear in names.items() if not is_linear]
    return StepWork(
        linear_operations=_table(parts, linear, "operations", 1e-12),
        linear_bytes=_table(parts, linear, "bytes", 1e-9),
        other_operations=_table(parts, other, "operations", 1e-12),
        other_bytes=_table(parts, other, "bytes", 1e-9),
        attention_operations=_table(parts, attention, "operations", 1e-12),
        attention_bytes=_table(parts, attention, "bytes", 1e-9),
        communication_s=np.array(
            [sum(c.seconds for c in part.values() if c.bound == "communication") for part in parts]
        ),
        sequences=np.array([float(step.prefill_seqs + step.decode_seqs) for step in steps]),
        with_prefill=np.array([step.prefill_seqs > 0 for step in steps]),
    )


def _table(
    parts: Sequence[Mapping[str, OperationCost]], names: Sequence[str], field: str, scale: float
) -> Array:
    table = np.zeros((len(parts), len(names)))
    for row, part in enumerate(parts):
        for column, name in enumerate(names):
            if name in part:
                table[row, column] = scale * getattr(part[name], field)
    return table


def cost_vector(parameters: RooflineParameters) -> Array:
    """Seconds per unit of work (10^12 operations, 10^9 bytes, a step, a request)."""
    prefill, decode = parameters.prefill_effective_tflops, parameters.decode_effective_tflops
    return np.array(
        [
            1 / prefill,
            1 / (parameters.prefill_attention_effective_tflops or prefill),
            1 / parameters.prefill_effective_bandwidth_gbps,
            1 / decode,
            1 / (parameters.decode_attention_effective_tflops or decode),
            1 / parameters.decode_effective_bandwidth_gbps,
            parameters.prefill_step_overhead_us / 1e6,
            parameters.decode_step_overhead_us / 1e6,
            parameters.sequence_overhead_us / 1e6,
        ]
    )


def in_units(index: int, cost: float) -> float:
    """The parameter of ``PARAMETERS[index]`` that a cost stands for: a rate, or microseconds."""
    if index < len(RATES):
        return 1 / cost if cost > 0 else np.inf
    # A thousandth of a nanosecond is what a bound at zero leaves.
    return cost * 1e6 if cost > 1e-12 else 0.0
