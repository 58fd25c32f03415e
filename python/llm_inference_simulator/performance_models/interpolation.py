"""Interpolation of kernel times: gaps in tables, shapes between them, monotone curves.

Between measured shapes the *efficiency* (the roofline's time over the measured one) is interpolated
linearly in the logarithms of both; beyond the table the nearest efficiency is kept, so that the
roofline's slope takes over. Along the sums of a step times are linear between measured points, and
made to rise: outliers and tile edges are not what steps should be scheduled by.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.order_statistics import median

Provenance = Literal["measured", "interpolated", "fitted", "extrapolated", "analytic"]
PROVENANCES: tuple[Provenance, ...] = (
    "measured",
    "interpolated",
    "fitted",
    "extrapolated",
    "analytic",
)
"""From what is surest on; ``fitted``: a constant estimated on whole runs."""

Floats = NDArray[np.float64]

OUTLIER = 1.5
"""A point this many times above what both neighbours say is an outlier."""

NEIGHBOURS = 6
"""Columns that a gap is filled from."""


class Curve(NamedTuple):
    """Seconds by one sum of the step."""

    x: Floats
    seconds: Floats
    provenance: Provenance


class Grid(NamedTuple):
    """Seconds by two sums of the step."""

    x: Floats
    y: Floats
    seconds: Floats
    provenance: Provenance
    cached: tuple[float, float] | None = None
    """Of prompt chunks on cached tokens, where they were measured: seconds of a query-key pair of a
    long chunk, and tokens below which a chunk takes no less time."""

    def seconds_of_one(self, column: int) -> float:
        """Seconds at one sequence or chunk, in a column of the second axis."""
        seconds = self.seconds[:, column]
        if self.x[0] > 1:
            return float(seconds[0] / self.x[0])
        return float(np.interp(1.0, self.x, seconds))


class Blend(NamedTuple):
    """A weighted choice of table columns, and where that puts the shape."""

    columns: list[tuple[int, float]]
    provenance: Provenance


def linear_blend(knots: Sequence[float], value: float) -> Blend:
    """Weights of the neighbours of ``value``, linear in its logarithm."""
    if value in knots:
        return Blend([(knots.index(value), 1.0)], "measured")
    order = sorted(range(len(knots)), key=lambda index: knots[index])
    if value <= knots[order[0]] or value >= knots[order[-1]]:
        return Blend([(order[0 if value <= knots[order[0]] else -1], 1.0)], "extrapolated")
    right = next(place for place, index in enumerate(order) if knots[index] > value)
    low, high = order[right - 1], order[right]
    share = math.log(value / knots[low]) / math.log(knots[high] / knots[low])
    return Blend([(low, 1 - share), (high, share)], "interpolated")


def bilinear_blend(shapes: Sequence[tuple[int, int]], value: tuple[float, float]) -> Blend:
    """Weights of the corners around a shape, linear in the logarithms of its two sizes."""
    place = {shape: index for index, shape in enumerate(shapes)}
    axes = [sorted({shape[side] for shape in shapes}) for side in (0, 1)]
    sides = [linear_blend(axis, size) for axis, size in zip(axes, value, strict=True)]
    corners = [
        ((axes[0][first], axes[1][second]), share * other)
        for first, share in sides[0].columns
        for second, other in sides[1].columns
    ]
    known = [(place[corner], weight) for corner, weight in corners if corner in place]
    provenance = max((side.provenance for side in sides), key=PROVENANCES.index)
    total = sum(weight for _, weight in known)
    if total > 0:
        if total < 1 - 1e-12:
            provenance = "extrapolated"
        return Blend([(index, weight / total) for index, weight in known], provenance)

    def distance(shape: tuple[int, int]) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(shape, value, strict=True))

    return Blend([(min(place.items(), key=lambda item: distance(item[0]))[1], 1.0)], "extrapolated")


class Columns(NamedTuple):
    """The columns of a table, as efficiencies."""

    shapes: Sequence[Any]
    """Two sizes of each, by which columns are near."""
    efficiency: Callable[[int], Floats]
    """A column; NaN where a point was not measured."""
    roof: Callable[[int], Floats]
    """The roofline's seconds at the same points."""

    def complete(self, index: int) -> Floats:
        """A column with its gaps filled.

        A gap takes the step from a measured neighbour that the nearest columns take there: kernels
        change at the same sizes in columns alike.
        """
        values = np.log(self.efficiency(index))
        if not np.isnan(values).any():
            return np.exp(values)
        others = [np.log(self.efficiency(other)) for other in self._nearest(index)]
        while True:
            found = _by_likeness(values, others)
            if not found:
                break
            for place, value in found.items():
                values[place] = value
        return np.exp(_held(values, np.log(self.roof(index))))

    def _nearest(self, index: int) -> list[int]:
        own = self.shapes[index]

        def distance(other: int) -> float:
            pairs = zip(self.shapes[other], own, strict=True)
            return sum(abs(math.log(left / right)) for left, right in pairs)

        order = sorted((i for i in range(len(self.shapes)) if i != index), key=distance)
        return order[:NEIGHBOURS]


def _by_likeness(values: Floats, others: Sequence[Floats]) -> dict[tuple[int, ...], float]:
    """Fill gaps beside known points with the steps that other columns take."""
    found: dict[tuple[int, ...], float] = {}
    for place in zip(*np.nonzero(np.isnan(values)), strict=True):
        estimates = []
        for beside in _beside(place, values.shape):
            if np.isnan(values[beside]):
                continue
            steps = [other[place] - other[beside] for other in others]
            known = [step for step in steps if not np.isnan(step)]
            if known:
                estimates.append(float(values[beside] + median(known)))
        if estimates:
            found[tuple(int(axis) for axis in place)] = float(np.mean(estimates))
    return found


def _beside(place: tuple[int, ...], shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    for axis, size in enumerate(shape):
        for moved in (place[axis] - 1, place[axis] + 1):
            if 0 <= moved < size:
                yield (*place[:axis], moved, *place[axis + 1 :])


def _held(values: Floats, roof: Floats) -> Floats:
    """Fill what is left along the last axis, then the first: straight lines between points.

    Below the first point the time is held (nothing is faster than a launch), beyond the last one
    the efficiency.
    """
    for axis in (values.ndim - 1, 0):
        rows, roofs = np.moveaxis(values, axis, -1), np.moveaxis(roof, axis, -1)
        filled = [
            _held_row(row, limit)
            for row, limit in zip(
                rows.reshape(-1, rows.shape[-1]), roofs.reshape(-1, rows.shape[-1]), strict=True
            )
        ]
        values = np.moveaxis(np.array(filled).reshape(rows.shape), -1, axis)
    return values


def _held_row(row: Floats, roof: Floats) -> Floats:
    known = np.flatnonzero(~np.isnan(row))
    if not known.size:
        return row
    filled = np.interp(np.arange(row.size), known, row[known])
    before = np.arange(row.size) < known[0]
    filled[before] = row[known[0]] + (roof - roof[known[0]])[before]
    return filled


def blended(columns: Columns, blend: Blend) -> Floats:
    """Weighted geometric mean of columns."""
    logs = [weight * np.log(columns.complete(index)) for index, weight in blend.columns]
    return np.exp(functools.reduce(np.add, logs))


def filled(values: Floats, x: Floats) -> Floats:
    """Fill gaps linearly in the logarithms of both; hold the outermost value beyond."""
    known = ~np.isnan(values)
    if known.all():
        return values
    return np.exp(np.interp(np.log(x), np.log(x[known]), np.log(values[known])))


def without_outliers(values: Floats) -> Floats:
    """Replace points far above what both neighbours along the last axis say."""
    cleaned = values.copy()
    between = np.sqrt(values[..., :-2] * values[..., 2:])
    neighbours = np.maximum(values[..., :-2], values[..., 2:])
    middle = values[..., 1:-1]
    outlier = (middle > OUTLIER * between) & (middle > OUTLIER * neighbours)
    cleaned[..., 1:-1] = np.where(outlier, between, middle)
    return cleaned


def monotone(values: Floats) -> Floats:
    """Least-squares rising fit (pool adjacent violators): means over runs that would fall."""
    blocks: list[list[float]] = []
    for value in values.tolist():
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, weight = blocks.pop()
            before = blocks[-1]
            total = before[1] + weight
            before[0] = (before[0] * before[1] + mean * weight) / total
            before[1] = total
    means, weights = zip(*blocks, strict=True)
    return np.repeat(means, np.array(weights, dtype=np.int64))


def monotone_rows(values: Floats) -> Floats:
    """Rise along both axes: a rising fit of rising rows keeps the rows rising."""
    rows = np.array([monotone(row) for row in values])
    columns = np.array([monotone(column) for column in rows.T]).T
    # Rounding of means may undo a tie by an ulp.
    return np.maximum.accumulate(np.maximum.accumulate(columns, axis=0), axis=1)


def curve_through(x: Floats, seconds: Floats, largest: float, provenance: Provenance) -> Curve:
    """A rising curve, continued in proportion from its last point to twice what may be asked."""
    rising = monotone(without_outliers(seconds))
    end = 2 * max(float(x[-1]), largest)
    return Curve(np.append(x, end), np.append(rising, rising[-1] * end / x[-1]), provenance)


def cut_at_window(length: Floats, seconds: Floats, window: int) -> tuple[Floats, Floats]:
    """Seconds by keys read: longer contexts read the window's."""
    inside, beyond = length < window, length > window
    plateau = median(seconds[:, beyond]) if beyond.any() else seconds[:, -1]
    plateau = np.maximum(plateau, seconds[:, inside].max(axis=1, initial=0.0))
    cut = np.column_stack([seconds[:, inside], plateau])
    return np.append(length[inside], float(window)), monotone_rows(cut)


def extended(x: Floats, y: Floats, seconds: Floats, provenance: Provenance) -> Grid:
    """One more knot on each axis: both times go on in proportion to the work."""
    x, y = np.append(x, 2 * x[-1]), np.append(y, 2 * y[-1])
    slope = np.maximum(seconds[:, -1] - seconds[:, -2], 0) / (y[-2] - y[-3])
    beyond = seconds[:, -1] + slope * (y[-1] - y[-2])
    wider = np.column_stack([seconds, np.maximum.accumulate(beyond)])
    return Grid(x, y, np.vstack([wider, 2 * wider[-1]]), provenance)
