"""What the steps of a run consist of: their time by component, bound and origin of the figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.step_sums import STEP_SUMS

if TYPE_CHECKING:
    from llm_inference_simulator._core import CostModel
    from llm_inference_simulator.results import SimulationResult

MOST_SAMPLES = 2000
"""Steps of a pool whose components are looked at: shares of time to within a percent or two."""


class Part(NamedTuple):
    """Time of one component in a step."""

    component: str
    bound: str
    provenance: str
    seconds: float


class StepBreakdown:
    """Takes the steps of a result apart with the cost models that priced them."""

    def __init__(self, result: SimulationResult, steps: Mapping[str, NDArray[Any]]) -> None:
        from llm_inference_simulator._core import StepShape

        self._shape = StepShape
        self._sums = {name: steps[name] for name in STEP_SUMS}
        self._engine = steps["engine"]
        self._durations = steps["end_ns"] - steps["start_ns"]
        index = {id(pool): place for place, pool in enumerate(result.setup.pools)}
        self._pool_of_engine = np.array([index[id(pool)] for pool in result.setup.pool_of_engine])
        self._stages = result.cost_models

    def knows(self, pool: int) -> bool:
        """Tell whether the pool's cost model has components; one written by a user has none."""
        return pool < len(self._stages) and all(map(_has_components, self._stages[pool]))

    def pool_of_steps(self) -> NDArray[np.int64]:
        """The pool of each step."""
        pools: NDArray[np.int64] = self._pool_of_engine[self._engine]
        return pools

    def parts(self, step: int) -> tuple[Part, ...]:
        """Components of a step, those of all stages of its pipeline one after the other."""
        sums = {name: int(column[step]) for name, column in self._sums.items()}
        shape = self._shape(**sums)
        return tuple(
            Part(cost.name, cost.bound, cost.provenance, cost.seconds)
            for stage in self._stages[self._pool_of_engine[self._engine[step]]]
            for cost in stage.breakdown(shape)
        )

    def bound(self, step: int) -> str:
        """What the largest part of a step's time is bound by."""
        sums: dict[str, float] = {}
        for part in self.parts(step):
            sums[part.bound] = sums.get(part.bound, 0.0) + part.seconds
        return max(sums, key=sums.__getitem__)

    def shares(self, pool: int) -> tuple[dict[tuple[str, str], float], dict[str, float], int]:
        """Shares of the pool's busy time by (component, bound) and by provenance.

        Also the number of steps looked at: all, or a sample at equal distances of busy time, so
        that a step's chance is its duration.
        """
        rows, weights = self._sample(pool)
        by_bound: dict[tuple[str, str], float] = {}
        by_provenance: dict[str, float] = {}
        for row, weight in zip(rows.tolist(), weights.tolist(), strict=True):
            parts = self.parts(row)
            scale = weight / (sum(part.seconds for part in parts) or 1.0)
            for part in parts:
                key, share = (part.component, part.bound), part.seconds * scale
                by_bound[key] = by_bound.get(key, 0.0) + share
                by_provenance[part.provenance] = by_provenance.get(part.provenance, 0.0) + share
        return by_bound, by_provenance, len(rows)

    def _sample(self, pool: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Rows of steps, and the share of busy time that each stands for."""
        rows = np.flatnonzero(self.pool_of_steps() == pool)
        durations = self._durations[rows].astype(np.float64)
        if len(rows) > MOST_SAMPLES:
            passed = np.cumsum(durations)
            moments = (np.arange(MOST_SAMPLES) + 0.5) * (passed[-1] / MOST_SAMPLES)
            hit, times = np.unique(np.searchsorted(passed, moments), return_counts=True)
            return rows[hit], times / MOST_SAMPLES
        return rows, durations / (durations.sum() or 1.0)


def _has_components(stage: CostModel) -> bool:
    from llm_inference_simulator._core import StepShape

    try:
        stage.breakdown(StepShape.prefill(1, 1))
    except ValueError:
        return False
    return True
