"""Makes a plan: search, explanation, Pareto fronts, command lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_text
from llm_inference_simulator.plan.commands import serve_commands
from llm_inference_simulator.plan.explain import Knob, knobs, what_binds
from llm_inference_simulator.plan.judge import LONGER, Judge, Trial
from llm_inference_simulator.plan.pareto import pareto_front
from llm_inference_simulator.plan.prices import prices_of
from llm_inference_simulator.plan.request import DEFAULT_REQUESTS, PlanRequest
from llm_inference_simulator.plan.sampling import sampled
from llm_inference_simulator.plan.search import Report, Search, cheapest, highest_rates, value_of
from llm_inference_simulator.results import strict_json
from llm_inference_simulator.shared_inputs import SharedInputs

SCHEMA_VERSION = 1

FRONTS = {
    "speed_per_user_and_per_xpu": ("tokens_per_s_per_user", "tokens_per_s_per_xpu"),
    "cost_and_tail_latency": ("usd_per_hour", "p99_ttft_ms"),
}
"""Pareto fronts by the two measures that they compare."""

UNITS = {"cost": "USD per hour", "xpus": "accelerators", "energy": "joules per output token"}
UNITS_OF_RATES = {
    "cost": "USD per hour and request/s",
    "xpus": "accelerators per request/s",
    "energy": "joules per output token",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer to a request."""

    request: PlanRequest
    search: Search
    binds: tuple[str, ...]
    """What keeps the best candidate from doing more; empty without one."""
    knobs: tuple[Knob, ...]
    commands: tuple[str, ...]
    fronts: Mapping[str, tuple[int, ...]]
    """Places of :attr:`trials`."""
    simulations: int
    warnings: tuple[str, ...]
    values: Mapping[int, float]
    """The objective's value of each trial that meets the objectives, by its place."""
    config: Mapping[str, Any] | None
    """Of the best candidate, to be run again."""

    @property
    def trials(self) -> Sequence[Trial]:
        """Every candidate that was simulated."""
        return self.search.trials

    @property
    def best(self) -> Trial | None:
        """The answer; None where nothing meets the objectives."""
        return self.search.best

    @property
    def nearest(self) -> Trial | None:
        """Without an answer, the candidate that came nearest to one; None where nothing ran."""
        judged = [trial for trial in self.trials if trial.judgement is not None]
        if self.best is not None or not judged:
            return None
        return max(judged, key=lambda trial: trial.judgement.share if trial.judgement else 0.0)

    @property
    def unit(self) -> str:
        """Of the objective's values."""
        units = UNITS_OF_RATES if self.request.request_rate is None else UNITS
        return units[self.request.objective]

    def to_dict(self) -> dict[str, Any]:
        """Plain data of ``plan.json``."""
        request = self.request
        candidates = [self._entry(place) for place in range(len(self.trials))]
        candidates += [
            {
                "parameters": {"xpu": each.family.xpu, "mode": each.family.mode},
                "name": each.family.words,
                "metrics": {},
                "cost": {},
                "verdict": each.verdict,
                "reason": each.reason,
            }
            for each in self.search.pruned
        ]
        return {
            "schema_version": SCHEMA_VERSION,
            "request": {
                "request_rate": request.request_rate,
                "goodput": request.objectives_ms,
                "attainment": request.attainment,
                "objective": request.objective,
                "objective_unit": self.unit,
                "xpus": list(request.xpus),
                "max_xpus": request.max_xpus,
                "tolerance": request.tolerance,
                "search": request.search,
                "base": dict(request.base),
            },
            "best": self._best(),
            "nearest": None if self.nearest is None else _trial_data(self.nearest),
            "candidates": candidates,
            "not_simulated_because_dearer": self.search.unneeded,
            "not_simulated_because_not_chosen": self.search.left_out,
            "pareto": {name: list(places) for name, places in self.fronts.items()},
            "commands": list(self.commands),
            "simulations": self.simulations,
            "warnings": list(self.warnings),
        }

    def _best(self) -> dict[str, Any] | None:
        if self.best is None:
            return None
        place = next(i for i, trial in enumerate(self.trials) if trial is self.best)
        return {
            **self._entry(place),
            "candidate": place,
            "count": self.best.candidate.count_words,
            "binds": list(self.binds),
            "knobs": [{"change": knob.change, **_trial_data(knob.trial)} for knob in self.knobs],
            "config": self.config,
        }

    def _entry(self, place: int) -> dict[str, Any]:
        return {**_trial_data(self.trials[place]), "objective_value": self.values.get(place)}

    def write_json(self, path: Path) -> None:
        """Write ``plan.json``, whole or not at all."""
        with atomic_text(path) as file:
            json.dump(strict_json(self.to_dict()), file, indent=2, allow_nan=False)
            file.write("\n")


def _trial_data(trial: Trial) -> dict[str, Any]:
    judgement = trial.judgement
    metrics = {} if judgement is None else dict(judgement.metrics)
    if judgement is not None:
        metrics |= {"attained": judgement.attained, "attained_late": judgement.attained_late}
    refused = judgement is None
    return {
        "parameters": trial.candidate.parameters(),
        "name": f"{trial.candidate.count_words}: {trial.candidate.family.words}",
        "request_rate": trial.rate,
        "metrics": metrics,
        "cost": {
            name: metrics.get(name)
            for name in ("usd_per_hour", "per_million_output_tokens_usd", "joules_per_output_token")
        },
        "verdict": "refused" if refused else "meets" if trial.meets else "misses",
        "reason": trial.refusal if judgement is None else judgement.reason,
    }


def make_plan(
    request: PlanRequest, *, jobs: int | None = None, report: Report | None = None
) -> Plan:
    """Search, then explain what was found.

    Raises :class:`ConfigError` for a request that no simulation could be made of; a candidate that
    does not fit is an entry with its reason.
    """
    prices = prices_of(request.xpus, request.base.get("pricing", {}))
    judge = Judge(request, prices, SharedInputs(), jobs=jobs)
    if request.search == "optuna":
        find = sampled
    else:
        find = highest_rates if request.request_rate is None else cheapest
    search = find(judge, report)
    _require_some(search)
    best = search.best
    found = () if best is None else tuple(knobs(judge, best))
    values = {
        place: value_of(trial, judge) for place, trial in enumerate(search.trials) if trial.meets
    }
    config = None if best is None else judge.config(best.candidate, best.rate)
    return Plan(
        request=request,
        search=search,
        binds=() if best is None else tuple(what_binds(judge, best)),
        knobs=found,
        commands=()
        if best is None or config is None
        else tuple(serve_commands(best.candidate, config)),
        fronts=_fronts(search.trials),
        simulations=judge.simulations,
        warnings=(
            *prices.warnings,
            *_not_all(search),
            *_unlike_prices(judge, search),
            *_few(request),
        ),
        values=values,
        config=None if config is None else config.to_dict(),
    )


def _require_some(search: Search) -> None:
    if not search.trials and not search.pruned:
        raise ConfigError(
            "no candidate is left: --tp, --pp, --modes and --max-xpus allow none that the model's "
            "heads and layers divide into"
        )


def _fronts(trials: Sequence[Trial]) -> dict[str, tuple[int, ...]]:
    """Pareto fronts of the candidates that meet the objectives."""
    places = [place for place, trial in enumerate(trials) if trial.meets]

    def measure(place: int, name: str) -> float | None:
        judgement = trials[place].judgement
        assert judgement is not None
        value = judgement.metrics.get(name)
        # Speeds are better when larger.
        return -value if value is not None and name.startswith("tokens_per_s") else value

    fronts = {}
    for name, (first, second) in FRONTS.items():
        pairs = [(measure(place, first), measure(place, second)) for place in places]
        fronts[name] = tuple(places[i] for i in pareto_front(pairs))
    return fronts


def _not_all(search: Search) -> list[str]:
    """Warn where a sampled search left candidates out that could be better."""
    if not search.left_out:
        return []
    simulated = len(search.trials)
    return [
        f"not all candidates were simulated: Optuna chose {simulated:,}, and {search.left_out:,} "
        "that may be better were left out: raise --trials for a surer answer"
    ]


def _unlike_prices(judge: Judge, search: Search) -> list[str]:
    """Warn where step times of some accelerators are measured and of others calculated."""
    models: dict[str, str] = {}
    for trial in search.trials:
        if trial.judgement is not None and trial.candidate.family.xpu not in models:
            config = judge.config(trial.candidate, trial.rate)
            pool = judge.inputs.pools(config)[0].setup
            models[trial.candidate.family.xpu] = pool.performance_model
    if len(set(models.values())) < 2:
        return []
    listed = ", ".join(f"{xpu} by {model}" for xpu, model in models.items())
    return [
        f"step times come from unlike models ({listed}): the analytic ones lack what was measured "
        "elsewhere, so compare accelerators with care, or give one --performance-model for all"
    ]


def _few(request: PlanRequest) -> list[str]:
    """Warn where the share of requests that may miss is less than a few requests."""
    requests = request.base.get("workload", {}).get("num_prompts") or DEFAULT_REQUESTS
    if request.base.get("workload", {}).get("duration") is not None:
        return []
    late = requests * LONGER / 2
    missing = late * (1 - request.attainment)
    if missing >= 10 or request.attainment == 1:
        return []
    return [
        f"--attainment {request.attainment:g} of {late:,.0f} requests leaves {missing:.1f} to "
        "miss: raise --num-prompts for a verdict that does not hang on single requests"
    ]
