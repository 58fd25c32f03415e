"""Finds the cheapest candidate for a rate, or the highest rate of each candidate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from llm_inference_simulator.plan.candidates import Candidate, members
from llm_inference_simulator.plan.judge import Judge, Trial
from llm_inference_simulator.plan.pruning import Pruned, Pruner, Survivor
from llm_inference_simulator.plan.request import PlanRequest

AT_ONCE = 32
"""Candidates that are simulated before the best is looked at again; no result depends on it."""

WORTH_COMPARING = 2.0
"""Times the best value up to which other accelerators and modes are searched for comparison."""
MOST_ALTERNATIVES = 512
"""Candidates of each of them that are tried at most."""

FIRST_RATE = 1.0
MOST_HALVINGS = 10
"""Below a thousandth of what rooflines allow a candidate holds no rate worth naming."""

Report = Callable[[int, int, Trial | None], None]
"""Gets (done, all, best so far)."""


@dataclass(slots=True, kw_only=True)
class Search:
    """What was simulated, in order, and what was not."""

    trials: list[Trial] = field(default_factory=list)
    """One a candidate; of a highest rate, that at the highest rate it holds."""
    pruned: list[Pruned] = field(default_factory=list)
    unneeded: int = 0
    """Candidates that cannot be better than the best one."""
    left_out: int = 0
    """Candidates that could be better, but that a sampled search did not choose."""
    best: Trial | None = None


def value_of(trial: Trial, judge: Judge) -> float:
    """The objective's value of a trial that meets the objectives; smaller is better."""
    assert trial.judgement is not None
    metrics, request = trial.judgement.metrics, judge.request
    if request.objective == "energy":
        return float(metrics["joules_per_output_token"])
    if request.objective == "xpus":
        amount = float(trial.candidate.n_xpus)
    else:
        amount = float(metrics["usd_per_hour"])
    # For one rate dollars an hour; where rates differ, for what is got.
    return amount if request.request_rate is not None else amount / trial.rate


def rank(trial: Trial, judge: Judge) -> tuple[float, float, bool, int]:
    """Order of trials that meet the objectives: value, margin, then the simpler one."""
    assert trial.judgement is not None
    return (
        round(value_of(trial, judge), 9),
        trial.judgement.closeness,
        trial.candidate.family.mode != "aggregated",
        trial.candidate.n_xpus,
    )


def cheapest(judge: Judge, report: Report | None = None) -> Search:
    """Simulate in the order of what candidates cost at least, until none can be better.

    The best one is that of simulating all: bounds only leave out what cannot meet the objectives
    (:mod:`.bounds`) or cannot be cheaper.
    """
    request = judge.request
    assert request.request_rate is not None
    pruner = Pruner(judge, request.request_rate)
    survivors, pruned = pruner.survey()
    search = Search(pruned=pruned)
    least = in_order(survivors, judge, pruner)
    done = 0
    while done < len(least):
        limit = None if search.best is None else value_of(search.best, judge)
        batch = [
            candidate
            for value, candidate in least[done : done + AT_ONCE]
            if limit is None or value <= limit * (1 + 1e-9)
        ]
        if not batch:
            break
        done += len(batch)
        trials = judge.trials([(candidate, request.request_rate) for candidate in batch])
        search.trials += trials
        search.best = best_of(search.trials, judge)
        if report is not None:
            report(done, len(least), search.best)
    tried = done
    if search.best is not None:
        tried += _alternatives(judge, search, least[done:])
    search.unneeded = len(least) - tried
    return search


def _alternatives(judge: Judge, search: Search, left: Sequence[tuple[float, Candidate]]) -> int:
    """Find the cheapest candidate of the other accelerators and modes too, for comparison.

    Returns how many were tried; none of them can be better than the best one.
    """
    request = judge.request
    assert search.best is not None and request.request_rate is not None  # noqa: PT018
    limit = WORTH_COMPARING * value_of(search.best, judge)
    answered = {kind_of(trial.candidate) for trial in search.trials if trial.meets}
    kinds: dict[tuple[str, str], list[Candidate]] = {}
    for value, candidate in left:
        if value <= limit and kind_of(candidate) not in answered:
            kinds.setdefault(kind_of(candidate), []).append(candidate)
    tried = 0
    for start in range(0, MOST_ALTERNATIVES, AT_ONCE):
        batch = [
            candidate
            for kind, candidates in kinds.items()
            if kind not in answered
            for candidate in candidates[start : start + AT_ONCE]
        ]
        if not batch:
            break
        trials = judge.trials([(candidate, request.request_rate) for candidate in batch])
        tried += len(batch)
        search.trials += trials
        answered |= {kind_of(trial.candidate) for trial in trials if trial.meets}
    return tried


def kind_of(candidate: Candidate) -> tuple[str, str]:
    """What alternatives are found for: each accelerator, aggregated and disaggregated."""
    return candidate.family.xpu, candidate.family.mode


def in_order(
    survivors: Sequence[Survivor], judge: Judge, pruner: Pruner
) -> list[tuple[float, Candidate]]:
    """Candidates that bounds leave with the least that they cost, the cheapest first."""
    request = judge.request
    listed = [
        (judge.prices.least(candidate, request.objective, pruner.workload), candidate)
        for survivor in survivors
        for candidate in members(survivor.family, survivor.least, request.max_xpus)
    ]
    return sorted(listed, key=lambda pair: pair[0])


def best_of(trials: Sequence[Trial], judge: Judge) -> Trial | None:
    """The best of those that meet the objectives; the first among equals."""
    meeting = [trial for trial in trials if trial.meets]
    return min(meeting, key=lambda trial: rank(trial, judge), default=None)


def highest_rates(judge: Judge, report: Report | None = None) -> Search:
    """Find the highest rate that each largest candidate holds, by bisection.

    A rate is held when :class:`Judge` says so. The next higher rate that was tried and missed is at
    most ``tolerance`` above it. All candidates take a step together, so all cores have work.
    """
    request = judge.request
    pruner = Pruner(judge, FIRST_RATE)
    survivors, pruned = pruner.survey()
    search = Search(pruned=pruned)
    brackets = brackets_of(survivors, request, pruner)
    search.trials = narrow(brackets, judge, report)
    search.best = best_of(search.trials, judge)
    return search


def brackets_of(
    survivors: Sequence[Survivor], request: PlanRequest, pruner: Pruner
) -> list[Bracket]:
    """One of each largest candidate, not yet narrowed."""
    return [
        Bracket(candidate, _ceiling(survivor, candidate, pruner))
        for survivor in survivors
        for candidate in _largest(survivor, request)
    ]


def narrow(brackets: Sequence[Bracket], judge: Judge, report: Report | None) -> list[Trial]:
    """Bisect brackets together; each one's trial at the highest rate held, or a missed one."""
    tolerance = judge.request.tolerance
    for round_ in itertools.count(1):
        active = [each for each in brackets if each.next_rate(tolerance) is not None]
        if not active:
            break
        wanted = [(each.candidate, each.next_rate(tolerance) or 0.0) for each in active]
        for bracket, trial in zip(active, judge.trials(wanted), strict=True):
            bracket.note(trial)
        if report is not None:
            best = best_of([each.held for each in brackets if each.held], judge)
            report(len(brackets) - len(active), len(brackets), best)
        assert round_ < 100
    return [each.held or each.missed for each in brackets if each.held or each.missed]  # type: ignore[misc]


def _largest(survivor: Survivor, request: PlanRequest) -> Iterator[Candidate]:
    """Members of a family to which no engine can be added."""
    smallest = min(layout.xpus for layout in survivor.family.layouts)
    for candidate in members(
        survivor.family, (1,) * len(survivor.family.layouts), request.max_xpus
    ):
        if candidate.n_xpus + smallest > request.max_xpus:
            yield candidate


def _ceiling(survivor: Survivor, candidate: Candidate, pruner: Pruner) -> float:
    """A rate to begin with: what rooflines allow for, or one request a second and engine."""
    if not survivor.floors:
        return float(sum(candidate.engines))
    demand, n = pruner.demand, len(pruner.workload)
    prefill, decode = survivor.floors[0], survivor.floors[-1]
    of_prompt = prefill.seconds_per_token * demand.prompt_tokens / n
    of_answer = (
        decode.seconds_per_token * demand.decode_tokens + decode.seconds_per_key * demand.keys
    ) / n
    if len(survivor.floors) == 1:
        return candidate.engines[0] / max(of_prompt + of_answer, 1e-9)
    return min(
        candidate.engines[0] / max(of_prompt, 1e-9), candidate.engines[1] / max(of_answer, 1e-9)
    )


class Bracket:
    """The highest rate of a candidate between one that it holds and one that it does not."""

    def __init__(self, candidate: Candidate, ceiling: float) -> None:
        self.candidate = candidate
        self.held: Trial | None = None
        self.missed: Trial | None = None
        self._first = ceiling / 2

    def next_rate(self, tolerance: float) -> float | None:
        """The rate to try next; None where the bracket is narrow enough."""
        if self.held is None and self.missed is None:
            return self._first
        if self.missed is None:
            assert self.held is not None
            return 2 * self.held.rate
        if self.missed.refusal is not None:
            return None
        if self.held is None:
            lower = self.missed.rate / 2
            return None if lower < self._first / 2**MOST_HALVINGS else lower
        if self.missed.rate <= self.held.rate * (1 + tolerance):
            return None
        return (self.held.rate + self.missed.rate) / 2

    def note(self, trial: Trial) -> None:
        """Narrow the bracket."""
        if trial.meets:
            self.held = trial
        else:
            self.missed = trial
