"""From measured steps to the parameters of the calibrated roofline.

Robust least squares of the physical model of a step, a parameter at a time tied to another where
the steps do not identify it; intervals by a wild bootstrap; the error of steps held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration.identification import (
    FALLBACKS,
    HIDDEN_BANDWIDTH,
    MAY_BE_HIDDEN,
    Doubt,
    doubts,
    hidden_by_arithmetic,
    measure_next,
)
from llm_inference_simulator.calibration.parameters import (
    CalibratedRange,
    HeldOutError,
    Interval,
    RooflineParameters,
)
from llm_inference_simulator.calibration.roof_solver import (
    Observations,
    Ties,
    mean_loss,
    noise,
    solve,
)
from llm_inference_simulator.calibration.step_data import MeasuredStep
from llm_inference_simulator.calibration.step_work import (
    PARAMETERS,
    RATES,
    Array,
    Breakdown,
    StepWork,
    in_units,
    step_work,
)
from llm_inference_simulator.errors import CalibrationError, ConfigError

CONFIDENCE = 0.95
BOOTSTRAP_SAMPLES = 200
MOST_STEPS = 3000
"""More steps are thinned out evenly over the grid of shapes: they would only repeat themselves."""
OUTLIER_DEVIATIONS = 6.0
_FEWEST_OF_A_CELL = 3
_LONE_FACTOR = 2.0
_FOLDS = 5
_LARGEST_RATE = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFit:
    """Parameters, how sure they are, and how the measured steps compare with them."""

    parameters: RooflineParameters
    intervals: dict[str, Interval]
    confidence: float
    assumed: dict[str, str]
    knees_flop_per_byte: dict[str, float]
    calibrated_range: CalibratedRange
    held_out_error: HeldOutError | None
    warnings: tuple[str, ...]
    steps: tuple[MeasuredStep, ...]
    """The steps of the fit, in the order of the columns below."""
    work: StepWork
    measured_s: Array
    predicted_s: Array
    compute_bound: NDArray[np.bool_]
    """Steps that spend more time on arithmetic than on memory traffic."""
    outliers: NDArray[np.bool_]
    """Steps so far from the fit that something else disturbed them; not fitted to."""


def fit_steps(
    steps: Sequence[MeasuredStep],
    breakdown: Breakdown,
    *,
    window: tuple[str, int] | None = None,
    indistinct: Sequence[str] = (),
    bootstrap_samples: int = BOOTSTRAP_SAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> StepFit:
    """Estimate the roofline of the engine that ran ``steps``.

    ``breakdown`` gives a step's operations and bytes (``breakdown_step`` of any roofline of the
    same model and layout) and ``window`` its ``attention_window``; parameters that are
    ``indistinct`` by the way of measuring are taken from what stands in for them. Raises
    :class:`CalibrationError` where the steps cannot tell a parameter that nothing stands in for,
    with the steps to measure next.
    """
    random = np.random.default_rng(seed)
    covered = measured_range(steps)
    _require_phases(steps)
    steps = _thin(steps, random)
    every = Observations(
        work=step_work(steps, breakdown, window),
        seconds=np.array([step.seconds for step in steps]),
        weights=shape_weights(steps),
    )
    progress("fitting")
    outliers = _outliers(every, _cell_numbers(steps), solve(every, tied(indistinct)))
    kept = np.flatnonzero(~outliers)
    data = every.take(kept)
    cells = _cell_numbers([steps[row] for row in kept])
    cost, ties, given_up = _identified(data, cells, covered, tied(indistinct))
    progress("bootstrap")
    intervals = _bootstrap(data, ties, cost, cells=cells, samples=bootstrap_samples, random=random)
    progress("cross-validation")
    held_out = _cross_validate(data, ties, cells, random)
    charged = every.work.costs(cost)
    assumed = {name: f"equal to {FALLBACKS[name]}" for name in indistinct}
    assumed |= {doubt.name: _assumption(doubt) for doubt in given_up}
    return StepFit(
        parameters=_parameters(cost, assumed),
        intervals=intervals,
        confidence=CONFIDENCE,
        assumed=assumed,
        knees_flop_per_byte=_knees(cost),
        calibrated_range=covered,
        held_out_error=held_out,
        warnings=tuple(_warning(doubt, covered) for doubt in given_up),
        steps=tuple(steps),
        work=every.work,
        measured_s=every.seconds,
        predicted_s=every.work.seconds(cost),
        compute_bound=charged[:, [0, 1, 3, 4]].sum(axis=1) > charged[:, [2, 5]].sum(axis=1),
        outliers=outliers,
    )


def measured_range(steps: Sequence[MeasuredStep]) -> CalibratedRange:
    """What the steps cover."""
    return CalibratedRange(
        prefill_tokens=max(1, *(step.prefill_tokens for step in steps)),
        sequences=max(step.prefill_seqs + step.decode_seqs for step in steps),
        context_tokens=max(step.longest_context for step in steps),
    )


def _require_phases(steps: Sequence[MeasuredStep]) -> None:
    covered = measured_range(steps)
    with_prefill = sum(step.prefill_seqs > 0 for step in steps)
    for kind, count, parameter in (
        ("prefill", with_prefill, "prefill_effective_tflops"),
        ("pure decode", len(steps) - with_prefill, "decode_effective_bandwidth_gbps"),
    ):
        if count == 0:
            raise CalibrationError(
                f"the data holds no {kind} steps, so {parameter} cannot be told: measure "
                f"{measure_next(parameter, covered)}"
            )


def _thin(steps: Sequence[MeasuredStep], random: np.random.Generator) -> list[MeasuredStep]:
    """At most ``MOST_STEPS``, as many of each cell as its fair share."""
    if len(steps) <= MOST_STEPS:
        return list(steps)
    cells = _cell_numbers(steps)
    order = random.permutation(len(steps))
    rank = np.empty(len(steps), dtype=np.int64)
    for cell in np.unique(cells):
        members = order[cells[order] == cell]
        rank[members] = np.arange(len(members))
    return [steps[row] for row in np.sort(np.argsort(rank, kind="stable")[:MOST_STEPS])]


def _cell_numbers(steps: Sequence[MeasuredStep]) -> NDArray[np.int64]:
    known: dict[tuple[int, ...], int] = {}
    return np.array([known.setdefault(step.cell, len(known)) for step in steps], dtype=np.int64)


def shape_weights(steps: Sequence[MeasuredStep]) -> Array:
    """Each cell counts alike, or the many steps of a long decode would decide alone."""
    cells = _cell_numbers(steps)
    weights = np.bincount(cells)[cells] ** -0.5
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _outliers(data: Observations, cells: NDArray[np.int64], cost: Array) -> NDArray[np.bool_]:
    """Steps that differ from the others of their cell: what a whole cell shows is no accident.

    A cell of one or two steps is compared with the fit, and must be off by a factor.
    """
    residuals = data.residuals(cost)
    usual = np.array([np.median(residuals[cells == cell]) for cell in range(cells.max() + 1)])
    alone = np.bincount(cells)[cells] < _FEWEST_OF_A_CELL
    deviations = residuals - np.where(alone, 0.0, usual[cells])
    limit = OUTLIER_DEVIATIONS * max(noise(deviations), 1e-3)
    limits = np.where(alone, max(limit, np.log(_LONE_FACTOR)), limit)
    return np.asarray(np.abs(deviations) > limits, dtype=np.bool_)


def _identified(
    data: Observations, cells: NDArray[np.int64], covered: CalibratedRange, ties: Ties
) -> tuple[Array, Ties, list[Doubt]]:
    """Fit; tie what is not identified, one parameter at a time; refuse what must be."""
    given_up: list[Doubt] = []
    while True:
        cost = solve(data, ties)
        found = doubts(data, cells, ties, cost) or _needless(data, ties, cost)
        if not found:
            return _with_hidden_bandwidth(data, cost), ties, given_up
        doubt = next((each for each in found if each.name in FALLBACKS), None)
        if doubt is None and hidden_by_arithmetic(found, data, cells, cost):
            doubt = found[0]
        if doubt is None:
            raise CalibrationError(
                f"{found[0].name} cannot be told from these steps ({found[0].reason}): measure "
                f"{measure_next(found[0].name, covered)}"
            )
        given_up.append(doubt)
        ties = _tied(ties, doubt.name)


def _with_hidden_bandwidth(data: Observations, cost: Array) -> Array:
    """Where arithmetic hides all traffic, take the least bandwidth at which it does.

    That of the operation with the fewest operations a byte: within what was measured a higher one
    would give the same times.
    """
    if cost[5] > 0:
        return cost
    rows = ~data.work.with_prefill
    operations, traffic = data.work.linear_operations[rows], data.work.linear_bytes[rows]
    used = (operations > 0) & (traffic > 0)
    hidden = cost.copy()
    hidden[5] = cost[3] * float((operations[used] / traffic[used]).min())
    hidden[2] = cost[2] or hidden[5]
    return hidden


def tied(names: Sequence[str]) -> Ties:
    """Ties of parameters to what stands in for them, the others free."""
    ties = Ties.none()
    for name in names:
        ties = _tied(ties, name)
    return ties


def _tied(ties: Ties, name: str) -> Ties:
    source = FALLBACKS.get(name)
    to = None if source is None else PARAMETERS.index(source)
    return ties.tie(PARAMETERS.index(name), to)


def _needless(data: Observations, ties: Ties, cost: Array) -> list[Doubt]:
    """A rate without which the steps are explained as well: arithmetic that memory hides.

    Attention does so many operations a byte whatever the context, so that a low rate and a low
    bandwidth look the same; the simpler model decides.
    """
    for name in MAY_BE_HIDDEN:
        if PARAMETERS.index(name) in ties.free:
            simpler = _tied(ties, name)
            loss = mean_loss(data, solve(data, simpler))
            if loss <= mean_loss(data, cost) * (1 + 3 / len(data.seconds)):
                return [Doubt(name, "the steps are explained as well without it", np.inf)]
    return []


def _bootstrap(
    data: Observations,
    ties: Ties,
    cost: Array,
    *,
    cells: NDArray[np.int64],
    samples: int,
    random: np.random.Generator,
) -> dict[str, Interval]:
    """Percentile intervals of a wild bootstrap.

    The design stays, and the residuals of a cell change sign together, since what the model misses
    there is common to them.
    """
    predicted = data.work.seconds(cost)
    residuals = _left_out_residuals(data, ties, cost, cells)
    costs = np.empty((samples, len(PARAMETERS)))
    for sample in range(samples):
        sign = random.choice([-1.0, 1.0], size=cells.max() + 1)[cells]
        again = data.with_seconds(predicted * np.exp(sign * residuals))
        costs[sample] = solve(again, ties, start=cost)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(costs, [tail, 1 - tail], axis=0)
    intervals = {}
    for index in ties.free:
        ends = sorted((in_units(index, low[index]), in_units(index, high[index])))
        intervals[PARAMETERS[index]] = Interval(
            low=float(ends[0]), high=min(float(ends[1]), _LARGEST_RATE)
        )
    return intervals


def _left_out_residuals(
    data: Observations, ties: Ties, cost: Array, cells: NDArray[np.int64]
) -> Array:
    """Residuals that each cell would have, had the others alone been fitted to.

    To first order, from the curvature at the solution (the CR3 correction of clustered errors): a
    fit bends towards a cell that alone tells a parameter, which hides how unsure it is.
    """
    slope = data.work.gradient(cost) @ ties.matrix / data.work.seconds(cost)[:, None]
    slope *= data.weights[:, None]
    slope /= np.sqrt((slope**2).sum(axis=0))
    residuals = data.residuals(cost)
    whole = slope.T @ slope
    # A cell that tells a parameter all alone leaves nothing: a hundredth of the curvature stays.
    spare = 0.01 * np.eye(len(whole))
    for cell in np.unique(cells):
        rows = np.flatnonzero(cells == cell)
        own = slope[rows]
        weighted = data.weights[rows] * residuals[rows]
        others = whole - own.T @ own + spare
        shift = own @ np.linalg.solve(others, own.T @ weighted)
        residuals[rows] += shift / data.weights[rows]
    return residuals


def _cross_validate(
    data: Observations, ties: Ties, cells: NDArray[np.int64], random: np.random.Generator
) -> HeldOutError | None:
    """Predict the steps of whole cells from a fit to all other cells."""
    numbers = np.unique(cells)
    folds = min(_FOLDS, len(numbers) // 2)
    if folds < 2:
        return None
    fold_of = random.permutation(len(numbers)) % folds
    errors = np.empty(len(cells))
    for fold in range(folds):
        held = np.isin(cells, numbers[fold_of == fold])
        cost = solve(data.take(np.flatnonzero(~held)), ties)
        test = data.take(np.flatnonzero(held))
        errors[held] = test.work.seconds(cost) / test.seconds - 1
    return HeldOutError(
        mean_absolute_percent=float(100 * np.mean(np.abs(errors))),
        p90_absolute_percent=float(100 * np.quantile(np.abs(errors), 0.9)),
        bias_percent=float(100 * np.mean(errors)),
        points=len(errors),
        folds=folds,
    )


def _parameters(cost: Array, assumed: dict[str, str]) -> RooflineParameters:
    values = {name: float(in_units(index, cost[index])) for index, name in enumerate(PARAMETERS)}
    for name in RATES:
        values[name] = min(values[name], _LARGEST_RATE)
        if name in assumed and "attention" in name:
            del values[name]
    try:
        return RooflineParameters.parse(values, source="fitted parameters")
    except ConfigError as error:
        raise CalibrationError(f"{error}: the steps do not look like those of this model") from None


def _knees(cost: Array) -> dict[str, float]:
    """Operations per byte at which arithmetic takes as long as memory traffic."""
    return {
        phase: float(1e3 * cost[first + 2] / cost[first])
        for phase, first in (("prefill", 0), ("decode", 3))
    }


def _assumption(doubt: Doubt) -> str:
    if doubt.name == HIDDEN_BANDWIDTH:
        return "the least that arithmetic hides"
    source = FALLBACKS[doubt.name]
    return "zero" if source is None else f"equal to {source}"


def _warning(doubt: Doubt, covered: CalibratedRange) -> str:
    if doubt.name == HIDDEN_BANDWIDTH:
        return (
            f"{doubt.name} is not identified ({doubt.reason}) and assumed {_assumption(doubt)}: "
            "arithmetic bounds decode on this machine, steps are right without it"
        )
    return (
        f"{doubt.name} is not identified ({doubt.reason}) and assumed {_assumption(doubt)}: to "
        f"measure it, add {measure_next(doubt.name, covered)}"
    )
