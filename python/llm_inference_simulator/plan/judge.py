"""Whether a simulated candidate meets the objectives, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_inference_simulator import diagnostics, metrics
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import SimulatorError
from llm_inference_simulator.many import Outcome, simulate_many
from llm_inference_simulator.plan.candidates import Candidate
from llm_inference_simulator.plan.prices import Prices
from llm_inference_simulator.plan.request import PlanRequest
from llm_inference_simulator.results import SimulationResult
from llm_inference_simulator.shared_inputs import SharedInputs
from llm_inference_simulator.sweep.rows import metrics_of

LONGER = 4
"""A candidate that meets the objectives must do so again with so many times the requests: a queue
that grows slowly is short at first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One simulation against the objectives."""

    meets: bool
    reason: str | None
    """Which objective is missed and how; None: all are met."""
    attained: float
    """Share of the counted requests that meet all objectives."""
    attained_late: float
    """The same of those that arrived in the second half, when the cluster had filled."""
    closeness: float
    """Largest of the objectives' values at the attained share, over their limits."""
    binding: str | None
    """The objective that this is."""
    metrics: Mapping[str, Any]

    @property
    def share(self) -> float:
        """What decides: the worse of the two halves' shares."""
        return min(self.attained, self.attained_late)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A candidate at a rate, and what became of it."""

    candidate: Candidate
    rate: float
    judgement: Judgement | None = None
    """Of the decisive simulation: the longer one where there was one."""
    refusal: str | None = None
    """Why nothing was simulated."""

    @property
    def meets(self) -> bool:
        """Whether the objectives are met."""
        return self.judgement is not None and self.judgement.meets


def judge(result: SimulationResult, request: PlanRequest) -> Judgement:
    """Compare a result with the objectives of a request.

    Besides the share of all counted requests, that of the second half must do: the first ones found
    an empty cluster. Nor may the queue grow for as long as requests arrive.
    """
    objectives, wanted = request.objectives_ms, request.attainment
    columns, counted = result.requests, result.window.counted
    good = metrics.good_requests(columns, counted, objectives)
    late = counted & (columns["arrival_ns"] >= np.median(columns["arrival_ns"][counted]))
    attained, attained_late = _share(good, counted), _share(good, late)
    values = {name: _value_at(columns, late, name, wanted) for name in objectives}
    ratios = {name: values[name] / limit for name, limit in objectives.items()}
    binding = max(ratios, key=lambda name: ratios[name], default=None)
    saturation = diagnostics.find_saturation(columns, result.now_ns)
    reason = None
    if min(attained, attained_late) < wanted:
        assert binding is not None
        reason = (
            f"{min(attained, attained_late):.2%} of the requests meet the objectives instead of "
            f"{100 * wanted:g}%: {binding} at that share is {_milliseconds(values[binding])} "
            f"instead of {objectives[binding]:g} ms"
        )
    if saturation is not None:
        growing = (
            f"{saturation.offered_rate:.3g} requests/s arrive and {saturation.sustained_rate:.3g} "
            "are started: the queue grows"
        )
        reason = growing if reason is None else f"{growing}; {reason}"
    return Judgement(
        meets=reason is None,
        reason=reason,
        attained=attained,
        attained_late=attained_late,
        closeness=max(ratios.values(), default=0.0),
        binding=binding,
        metrics=_metrics(result),
    )


def _share(good: Any, among: Any) -> float:
    count = int(among.sum())
    return float((good & among).sum()) / count if count else 0.0


def _value_at(columns: metrics.Columns, late: Any, name: str, share: float) -> float:
    """Milliseconds that a share of the requests keeps to; infinite where too many failed."""
    values = columns[f"{name}_ns"][late].astype(np.float64)
    values[columns["status"][late] != metrics.COMPLETED] = math.inf
    if not len(values):
        return math.inf
    return float(np.sort(values)[math.ceil(share * len(values) - 1e-9) - 1]) / metrics.NS_PER_MS


def _milliseconds(value: float) -> str:
    if not math.isfinite(value):
        return "never"
    return f"{value:,.0f} ms" if value >= 1000 else f"{value:.4g} ms"


def _metrics(result: SimulationResult) -> dict[str, Any]:
    """A sweep's metrics, and those that plans compare."""
    found = metrics_of(result)
    tpot, output = found["mean_tpot_ms"], found["output_throughput"]
    found["tokens_per_s_per_user"] = 1e3 / tpot if tpot else None
    found["tokens_per_s_per_xpu"] = output / found["xpus"] if output else None
    hourly = [
        pool.economics.price.usd_per_hour * pool.n_xpus
        for pool in result.setup.pools
        if pool.economics is not None and pool.economics.price is not None
    ]
    found["usd_per_hour"] = sum(hourly) if len(hourly) == len(result.setup.pools) else None
    found["peak_kv_share"] = max(
        engine.peak_blocks / max(1, pool.capacity.num_gpu_blocks - 1)
        for engine, pool in zip(result.engines, result.setup.pool_of_engine, strict=True)
    )
    return found


class Judge:
    """Simulates candidates of a request, several at a time; remembers what it has seen."""

    def __init__(
        self,
        request: PlanRequest,
        prices: Prices,
        inputs: SharedInputs,
        *,
        jobs: int | None = None,
    ) -> None:
        self.request = request
        self.prices = prices
        self.inputs = inputs
        self.simulations = 0
        self._jobs = jobs
        self._seen: dict[tuple[Candidate, float], Trial] = {}

    def config(self, candidate: Candidate, rate: float, *, longer: int = 1) -> SimulatorConfig:
        """The configuration of a candidate; raises :class:`ConfigError` where it is none."""
        base = {
            **self.request.at_rate(rate, longer=longer),
            "pricing": self.prices.sections[candidate.family.xpu],
        }
        return SimulatorConfig.from_dict(candidate.config_data(base), source="")

    def trials(self, wanted: Sequence[tuple[Candidate, float]]) -> list[Trial]:
        """Judge candidates at rates; one that meets is judged again with more requests."""
        new = [pair for pair in dict.fromkeys(wanted) if pair not in self._seen]
        short = self._simulate(new, 1)
        passed = [trial for trial in short if trial.meets]
        long = self._simulate([(trial.candidate, trial.rate) for trial in passed], LONGER)
        for trial in (*short, *long):
            self._seen[trial.candidate, trial.rate] = trial
        return [self._seen[pair] for pair in wanted]

    def _simulate(self, wanted: Sequence[tuple[Candidate, float]], longer: int) -> list[Trial]:
        trials: dict[int, Trial] = {}
        configs, places = [], []
        for place, (candidate, rate) in enumerate(wanted):
            try:
                configs.append(self.config(candidate, rate, longer=longer))
                places.append(place)
            except SimulatorError as error:
                trials[place] = Trial(candidate=candidate, rate=rate, refusal=str(error))
        outcomes = simulate_many(
            configs,
            jobs=self._jobs,
            keep=lambda result: judge(result, self.request),
            inputs=self.inputs,
        )
        self.simulations += len(outcomes)
        for place, outcome in zip(places, outcomes, strict=True):
            trials[place] = _trial(*wanted[place], outcome)
        return [trials[place] for place in range(len(wanted))]


def _trial(candidate: Candidate, rate: float, outcome: Outcome[Judgement]) -> Trial:
    if outcome.error is None:
        return Trial(candidate=candidate, rate=rate, judgement=outcome.unwrap())
    if not isinstance(outcome.error, SimulatorError):
        raise outcome.error  # a bug: no plan should be built on the others
    return Trial(candidate=candidate, rate=rate, refusal=str(outcome.error))
