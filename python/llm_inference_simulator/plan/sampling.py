"""Searches spaces that are too large to simulate: Optuna's sampler chooses the candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.plan.candidates import Candidate
from llm_inference_simulator.plan.judge import Judge, Trial
from llm_inference_simulator.plan.pruning import Pruned, Pruner
from llm_inference_simulator.plan.request import DEFAULT_TRIALS
from llm_inference_simulator.plan.search import (
    FIRST_RATE,
    Report,
    Search,
    best_of,
    brackets_of,
    in_order,
    narrow,
    value_of,
)
from llm_inference_simulator.tables import require

if TYPE_CHECKING:
    import optuna

TOGETHER = 8
"""Candidates that are chosen before any of them is simulated. Answers depend on it, so it is not
the number of threads."""

MISSES = 1e15
"""Score of what misses the objectives, above every value; the sampler looks at the order alone."""

Evaluate = Callable[[Sequence[Candidate]], list[Trial]]


def sampled(judge: Judge, report: Report | None = None) -> Search:
    """Simulate as many candidates as the request has trials, chosen by a seeded TPE sampler.

    Bounds rule out what they rule out in an exhaustive search, and each candidate is chosen once:
    with as many trials as there are candidates, the best one is that of the exhaustive search.
    Raises :class:`ConfigError` where Optuna is not installed.
    """
    chooser = Chooser(int(judge.request.base.get("seed", 0)))
    least, evaluate, pruned = _space(judge)
    chooser.offer(list(least))
    search = Search(pruned=pruned)
    most = min(judge.request.trials or DEFAULT_TRIALS, len(least))
    while chooser.left and len(search.trials) < most:
        trials = evaluate(chooser.ask(min(TOGETHER, most - len(search.trials))))
        chooser.tell([score(trial, judge) for trial in trials])
        search.trials += trials
        search.best = best_of(search.trials, judge)
        if search.best is not None:
            limit = value_of(search.best, judge) * (1 + 1e-9)
            search.unneeded += chooser.drop({each for each in chooser.left if least[each] > limit})
        if report is not None:
            report(len(search.trials), most, search.best)
    search.left_out = len(chooser.left)
    return search


def score(trial: Trial, judge: Judge) -> float:
    """What the sampler makes small: the objective's value, then by how many requests it misses."""
    if trial.meets:
        return value_of(trial, judge)
    return MISSES * (2.0 if trial.judgement is None else 2.0 - trial.judgement.share)


def _space(judge: Judge) -> tuple[dict[Candidate, float], Evaluate, list[Pruned]]:
    """Candidates that bounds leave with the least value of each, and how to judge some of them."""
    rate = judge.request.request_rate
    pruner = Pruner(judge, FIRST_RATE if rate is None else rate)
    survivors, pruned = pruner.survey()
    if rate is not None:
        at = rate
        least = {candidate: value for value, candidate in in_order(survivors, judge, pruner)}
        return least, lambda batch: judge.trials([(each, at) for each in batch]), pruned
    brackets = {each.candidate: each for each in brackets_of(survivors, judge.request, pruner)}
    # What a candidate costs for each request/s that it holds has no bound before it is simulated.
    unbounded = dict.fromkeys(brackets, 0.0)
    return unbounded, lambda batch: narrow([brackets[c] for c in batch], judge, None), pruned


class Chooser:
    """Lets Optuna choose among candidates that it has not chosen yet.

    A dimension is the place of a value among all values of a parameter. Dimensions are chosen one
    after the other; where no candidate is left with the value that the sampler wants, the nearest
    one with candidates is taken, and the sampler learns of that instead.
    """

    def __init__(self, seed: int) -> None:
        self._optuna = require("optuna", "sampled searches")
        verbosity = self._optuna.logging.get_verbosity()
        # Optuna would tell of the new study and of each trial on standard error.
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        try:
            sampler = self._optuna.samplers.TPESampler(seed=seed)
            self._study: optuna.Study = self._optuna.create_study(sampler=sampler)
        finally:
            self._optuna.logging.set_verbosity(verbosity)
        self._open: list[tuple[optuna.Trial, dict[str, int]]] = []
        self._values: dict[str, list[Any]] = {}
        self.left: dict[Candidate, dict[str, Any]] = {}
        """Candidates that were not chosen, with their dimensions."""

    def offer(self, candidates: Sequence[Candidate]) -> None:
        """Add candidates to choose from."""
        for candidate in candidates:
            self.left[candidate] = _dimensions(candidate)
            for name, value in self.left[candidate].items():
                values = self._values.setdefault(name, [])
                if value not in values:
                    values.append(value)
        for values in self._values.values():
            if all(isinstance(value, int) for value in values):
                values.sort()

    def ask(self, most: int) -> list[Candidate]:
        """Choose so many candidates, or all that are left."""
        return [self._choose() for _ in range(min(most, len(self.left)))]

    def _choose(self) -> Candidate:
        asked = self._study.ask()
        left = self.left
        places: dict[str, int] = {}
        while (name := _next_dimension(left, places)) is not None:
            values = self._values[name]
            wanted = asked.suggest_int(name, 0, len(values) - 1)
            possible = sorted({values.index(own[name]) for own in left.values()})
            distances = [abs(place - wanted) for place in possible]
            places[name] = possible[distances.index(min(distances))]
            value = values[places[name]]
            left = {candidate: own for candidate, own in left.items() if own[name] == value}
        (candidate,) = left
        del self.left[candidate]
        self._open.append((asked, places))
        return candidate

    def tell(self, scores: Sequence[float]) -> None:
        """Give the scores of the candidates that were chosen last, in their order."""
        states, create = self._optuna.trial.TrialState, self._optuna.trial.create_trial
        for (asked, places), value in zip(self._open, scores, strict=True):
            if asked.params == places:
                self._study.tell(asked, value)
                continue
            self._study.tell(asked, state=states.FAIL)
            done = create(params=places, distributions=asked.distributions, value=value)
            self._study.add_trial(done)
        self._open.clear()

    def drop(self, candidates: set[Candidate]) -> int:
        """Take candidates out; returns how many."""
        for candidate in candidates:
            del self.left[candidate]
        return len(candidates)


def _next_dimension(
    left: Mapping[Candidate, Mapping[str, Any]], places: Mapping[str, int]
) -> str | None:
    """The first that has no place yet: all that are left have those of the chosen mode."""
    return next((name for name in next(iter(left.values())) if name not in places), None)


def _dimensions(candidate: Candidate) -> dict[str, Any]:
    """Parameters that tell candidates apart, numbers of engines last: they depend on the others."""
    own = candidate.parameters()
    del own["n_xpus"]
    last = [name for name in own if name.endswith("engines")]
    first = [name for name in ("xpu", "mode") if name in own]
    between = [name for name in own if name not in (*first, *last)]
    return {name: own[name] for name in (*first, *between, *last)}
