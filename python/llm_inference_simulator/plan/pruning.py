"""Families of a plan before anything is simulated: which fit, and how many engines they need."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import CapacityError, SimulatorError
from llm_inference_simulator.plan.bounds import (
    Demand,
    EngineFloor,
    demand_of,
    engine_floor,
    least_engines,
    too_slow,
)
from llm_inference_simulator.plan.candidates import Family, Layout, families
from llm_inference_simulator.plan.judge import Judge
from llm_inference_simulator.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """Clusters that are not simulated."""

    family: Family
    verdict: str
    """does not fit, refused or pruned."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivor:
    """A family of which some may meet the objectives."""

    family: Family
    least: tuple[int, ...]
    """Engines of each layout below which none does."""
    floors: tuple[EngineFloor, ...]
    """Empty where prices depend on the number of engines, and nothing is known beforehand."""


class Pruner:
    """Sorts the families of a request out at a rate."""

    def __init__(self, judge: Judge, rate: float) -> None:
        self._judge = judge
        self._rate = rate
        self.workload = workload_at(judge, rate)
        request = judge.request
        self.demand: Demand = demand_of(self.workload, request.objectives_ms, request.attainment)

    def survey(self) -> tuple[list[Survivor], list[Pruned]]:
        """All families, divided."""
        judge, request = self._judge, self._judge.request
        model = judge.inputs.model(str(request.base.get("model")))
        survivors: list[Survivor] = []
        pruned: list[Pruned] = []
        for family in families(request, model):
            refusal = judge.prices.refusal(family.xpu, request.objective)
            if refusal is not None:
                pruned.append(Pruned(family=family, verdict="refused", reason=refusal))
                continue
            try:
                floors = [self._floor(family.xpu, layout) for layout in family.layouts]
            except CapacityError as error:
                pruned.append(Pruned(family=family, verdict="does not fit", reason=str(error)))
                continue
            except SimulatorError as error:
                pruned.append(Pruned(family=family, verdict="refused", reason=str(error)))
                continue
            kept = self._bounded(family, [floor for floor in floors if floor is not None])
            (survivors if isinstance(kept, Survivor) else pruned).append(kept)  # type: ignore[arg-type]
        return survivors, pruned

    def _bounded(self, family: Family, floors: Sequence[EngineFloor]) -> Survivor | Pruned:
        if len(floors) < len(family.layouts):
            return Survivor(family=family, least=(1,) * len(family.layouts), floors=())
        request = self._judge.request
        reason = too_slow(floors, self.demand, request.objectives_ms)
        if reason is not None:
            return Pruned(family=family, verdict="pruned", reason=reason)
        least = least_engines(floors, self.demand)
        if family.candidate(least).n_xpus > request.max_xpus:
            return Pruned(
                family=family,
                verdict="pruned",
                reason=f"the work alone needs {family.candidate(least).count_words} accelerators, "
                f"more than --max-xpus {request.max_xpus}",
            )
        return Survivor(family=family, least=least, floors=tuple(floors))

    @functools.cache  # noqa: B019 - the pruner lives as long as one survey
    def _floor(self, xpu: str, layout: Layout) -> EngineFloor | None:
        """Costs of one engine; None where they depend on how many there are (shared experts)."""
        alone = Layout(
            role="aggregated",
            tensor_parallel_size=layout.tensor_parallel_size,
            pipeline_parallel_size=layout.pipeline_parallel_size,
            settings=layout.settings,
        )
        candidate = Family(xpu=xpu, layouts=(alone,)).candidate((1,))
        config = self._judge.config(candidate, self._rate)
        if config.engine_of(config.cluster.named_pools[0]).enable_expert_parallel:
            return None
        return engine_floor(self._judge.inputs.pools(config)[0], self.demand)


def workload_at(judge: Judge, rate: float) -> Workload:
    """Requests that every candidate gets at a rate."""
    base = judge.request.at_rate(rate)
    wanted = ("model", "workload", "seed", "measurement")
    data: dict[str, Any] = {name: base[name] for name in wanted if name in base}
    config = SimulatorConfig.from_dict({**data, "xpu": judge.request.xpus[0]}, source="")
    return judge.inputs.workload(config.workload, config.seed)
