"""Least squares of a roofline's parameters against measured steps.

Residuals are logarithms of measured over predicted seconds, so that steps of 8 ms and of 3 s count
alike; a soft-L1 loss keeps disturbed steps from deciding anything. SciPy does the minimising.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration.step_work import PARAMETERS, Array, StepWork
from llm_inference_simulator.errors import CalibrationError

_ROUNDS = 8
"""Of assigning operations to a side of the roof and solving again; it settles within a few."""
_POLISHED = 4
"""Starts that are refined; the others were worse after the rounds."""
_WIDEST_SCALE = 0.1
_NARROWEST_SCALE = 1e-4


def require_scipy() -> ModuleType:
    """Import SciPy's optimisers, or say how to get them."""
    try:
        import scipy.optimize
    except ModuleNotFoundError:
        raise CalibrationError(
            "calibrating needs SciPy: install it with pip install "
            "'llm-inference-simulator[calibration]'"
        ) from None
    module: ModuleType = scipy.optimize
    return module


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """Steps, how long they took, and how much each counts."""

    work: StepWork
    seconds: Array
    weights: Array

    def take(self, rows: NDArray[np.intp]) -> Observations:
        """The steps of ``rows``."""
        return Observations(
            work=self.work.take(rows), seconds=self.seconds[rows], weights=self.weights[rows]
        )

    def with_seconds(self, seconds: Array) -> Observations:
        """The same steps, had they taken ``seconds``."""
        return Observations(work=self.work, seconds=seconds, weights=self.weights)

    def residuals(self, cost: Array) -> Array:
        """Logarithm of measured over predicted seconds."""
        return np.asarray(np.log(self.seconds / self.work.seconds(cost)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Ties:
    """Which parameters are free: ``matrix`` makes the cost vector of the free ones."""

    matrix: Array
    free: tuple[int, ...]

    @classmethod
    def none(cls) -> Ties:
        """All parameters free."""
        return cls(np.eye(len(PARAMETERS)), tuple(range(len(PARAMETERS))))

    def tie(self, index: int, to: int | None) -> Ties:
        """Make the free parameter ``index`` equal to another one (None: zero)."""
        matrix = self.matrix.copy()
        column = self.free.index(index)
        followers = matrix[:, column] > 0
        if to is not None:
            matrix[followers] = matrix[to]
        kept = np.delete(matrix, column, axis=1)
        return Ties(kept, self.free[:column] + self.free[column + 1 :])


def solve(data: Observations, ties: Ties, start: Array | None = None) -> Array:
    """Cost vector that fits ``data`` best; ``start`` is a cost vector near it, if one is known."""
    if start is not None:
        return _polish(data, ties, start, _scale(data.residuals(start)))
    rough = sorted((_rounds(data, ties, knee) for knee in _knees(data.work)), key=lambda r: r[0])
    candidates = []
    for _, cost in rough[:_POLISHED]:
        better = _polish(data, ties, cost, _WIDEST_SCALE)
        better = _polish(data, ties, better, _scale(data.residuals(better)))
        candidates.append((mean_loss(data, better), better))
    return min(candidates, key=lambda candidate: candidate[0])[1]


def noise(residuals: Array) -> float:
    """Standard deviation of the undisturbed residuals (median absolute deviation)."""
    return float(1.4826 * np.median(np.abs(residuals - np.median(residuals))))


def _scale(residuals: Array) -> float:
    return min(_WIDEST_SCALE, max(_NARROWEST_SCALE, 2 * noise(residuals)))


def mean_loss(data: Observations, cost: Array) -> float:
    """Weighted mean absolute residual: what starts are compared by."""
    return float(np.mean(data.weights * np.abs(data.residuals(cost))))


def _knees(work: StepWork) -> list[float]:
    """Where the knee may lie: among the intensities of the measured operations, and beyond."""
    ratios = []
    for operations, traffic in (
        (work.linear_operations, work.linear_bytes),
        (work.other_operations, work.other_bytes),
    ):
        used = (operations > 0) & (traffic > 0)
        ratios.append((operations[used] / traffic[used]).ravel())
    found = np.unique(np.concatenate(ratios))
    if not found.size:
        return [np.inf]
    inside = np.quantile(found, [0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9])
    return [0.0, *(float(knee) for knee in inside), float(found[-1]) * 2]


def _rounds(data: Observations, ties: Ties, knee: float) -> tuple[float, Array]:
    """Solve with operations assigned by a knee, assign them anew by the solution, and so on.

    With operations assigned, seconds are linear in the costs, which must not be negative.
    """
    optimize = require_scipy()
    cost = np.zeros(len(PARAMETERS))
    cost[[0, 1, 3, 4]] = 1.0
    cost[[2, 5]] = knee  # arithmetic where operations / bytes exceed it
    best = (np.inf, cost)
    reweight = data.weights / data.seconds
    for _ in range(_ROUNDS):
        design = data.work.gradient(cost) @ ties.matrix
        target = data.seconds - data.work.communication_s
        scale = np.abs(design * reweight[:, None]).max(axis=0)
        scale[scale == 0] = 1.0
        free, _ = optimize.nnls(
            design * reweight[:, None] / scale, target * reweight, maxiter=50 * design.shape[1]
        )
        cost = ties.matrix @ (free / scale)
        predicted = data.work.seconds(cost)
        if not (predicted > 0).all():
            break
        loss = mean_loss(data, cost)
        if loss >= best[0] * (1 - 1e-6):
            break
        best = (loss, cost)
        # Relative errors beyond the usual count less, or one disturbed step bends the start.
        error = np.abs(np.log(data.seconds / predicted))
        usual = max(1.4826 * float(np.median(error)), _NARROWEST_SCALE)
        reweight = data.weights / data.seconds / np.sqrt(1 + (error / (2 * usual)) ** 2)
    return best


def _polish(data: Observations, ties: Ties, start: Array, scale: float) -> Array:
    """Minimise the robust loss from a start, over the free costs, none of them negative."""
    optimize = require_scipy()
    free = np.array([start[index] for index in ties.free])
    # A cost that is zero at the start still needs a scale to move by.
    unit = np.where(free > 0, free, 1e-2 * float(data.seconds.min()))

    def residuals(z: Array) -> Any:
        return data.weights * data.residuals(ties.matrix @ (z * unit))

    def jacobian(z: Array) -> Any:
        cost = ties.matrix @ (z * unit)
        gradient = data.work.gradient(cost) @ ties.matrix * unit
        return -data.weights[:, None] * gradient / data.work.seconds(cost)[:, None]

    found = optimize.least_squares(
        residuals,
        np.maximum(free / unit, 1e-6),
        jac=jacobian,
        bounds=(0.0, np.inf),
        loss="soft_l1",
        f_scale=scale,
        x_scale=1.0,
        max_nfev=60,
    )
    return np.asarray(ties.matrix @ (found.x * unit), dtype=np.float64)
