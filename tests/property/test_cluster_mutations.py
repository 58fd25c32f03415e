"""Wrong rules of clusters are noticed: random cases tell each wrong variant from the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings

from tests.property.test_core_matches_reference import (
    ABORTED,
    PROMISED,
    Case,
    cases,
    changing_cases,
    changing_disaggregated_cases,
    disaggregated_cases,
    grouped_cases,
    run_reference,
)
from tests.reference.cluster import Cluster
from tests.reference.engines import Sums, Troop
from tests.reference.fleet import Fleet
from tests.reference.links import Links
from tests.reference.routers import Incoming, Router
from tests.reference.scheduler import Request, Scheduler


def equal_split(self: Links, now: int) -> None:
    """What one link does not need is not given to the others."""
    for flow in self.flows.values():
        users = [sum(link in f.links for f in self.flows.values()) for link in flow.links]
        shares = (self.capacities[link] // n for link, n in zip(flow.links, users, strict=True))
        self.settle(now, flow, max(1, min(shares)))


def no_fabric(_: Links, sender: int, receiver: int) -> tuple[int, ...]:
    """The fabric bounds nothing."""
    return sender, receiver


def promised_blocks_are_taken(self: Scheduler) -> list[Request]:
    """A request whose KV is about to be sent may be preempted."""
    return self.running


def sent_early(self: Scheduler, request: Request) -> None:
    """A prefill engine forgets what it sent."""
    self.sending.remove(request)
    for block in request.held:
        self.pool.forget(block)
    self.pool.give_back(request.held)
    request.held = []


def findable_when_reserved(self: Scheduler, request: Request) -> bool:
    """Blocks can be hit before their KV has arrived."""
    reserved = right_reserve(self, request)
    if reserved:
        self.register(request, request.computed)
    return reserved


def full_one_later(self: Fleet, index: int, _: int) -> bool:
    """One more may wait than ``max_queue``."""
    waiting = self.cluster.engines[index].scheduler.waiting_count()
    return self.rules.max_queue is not None and waiting > self.rules.max_queue


def tokens_are_lost(_: Fleet, __: int) -> int:
    """A retried request begins anew."""
    return 0


def never_held(self: Fleet, now: int, _: str, number: int) -> None:
    """A request that finds no engine up fails at once."""
    self.give_up_place(now, number)
    self.fail(now, number)


def aborted_blocks_are_forgotten(self: Scheduler, request: Request) -> None:
    """Blocks of a request that timed out cannot be found."""
    for queue in self.queues():
        if request in queue:
            queue.remove(request)
    for block in request.held:
        if self.pool.holders[block] == 1:
            self.pool.forget(block)
    self.pool.give_back(request.held)
    request.held, request.gone = [], True


def never_thinks(self: Cluster, number: int) -> float:
    """A turn is sent with the answer before it."""
    job = self.jobs[number]
    return max(job.arrival_ns, 0 if job.after < 0 else self.answers.get(job.after, math.inf))


def twice_the_same(self: Router, _: int, __: Incoming) -> int:
    """The two choices may be one."""
    return min((self.up[self.draw(len(self.up))] for _ in range(2)), key=self.requests)


def dummies_have_no_token(_: Troop, sums: dict[int, Sums]) -> int:
    """Engines without requests send nothing to the experts."""
    working = [own for own in sums.values() if own["prefill_seqs"] or own["sampled_seqs"]]
    return sum(own["prefill_tokens"] + own["decode_seqs"] for own in working)


def first_sets_the_pace(_: Troop, durations: Sequence[int]) -> int:
    """A group does not wait for its slowest engine."""
    return durations[0]


def drained_engines_are_chosen(self: Cluster, role: str) -> set[int]:
    """Hand-overs do not mind that an engine is down."""
    return set(range(len(self.indices(role))))


def the_other_engine_keeps_it(self: Scheduler) -> tuple[list[Request], ...]:
    """A request whose transfer was cut stays where its blocks are."""
    return (self.running, self.waiting)


class Noticed(Exception):
    """The wrong variant did something else."""


right_reserve = Scheduler.reserve

VARIANTS: list[tuple[type, str, Callable[..., Any], st.SearchStrategy[Case]]] = [
    (Links, "share", equal_split, disaggregated_cases()),
    (Links, "path", no_fabric, disaggregated_cases()),
    (Scheduler, "candidates", promised_blocks_are_taken, st.just(PROMISED)),
    (Scheduler, "sent", sent_early, disaggregated_cases()),
    (Scheduler, "reserve", findable_when_reserved, disaggregated_cases()),
    (Fleet, "is_full", full_one_later, changing_cases()),
    (Fleet, "known", tokens_are_lost, changing_cases()),
    (Fleet, "hold", never_held, changing_cases()),
    (Scheduler, "abort", aborted_blocks_are_forgotten, st.just(ABORTED)),
    (Router, "power_of_two", twice_the_same, changing_cases()),
    (Cluster, "due_ns", never_thinks, cases()),
    (Fleet, "hold", never_held, changing_disaggregated_cases()),
    (Cluster, "up_places", drained_engines_are_chosen, changing_disaggregated_cases()),
    (Scheduler, "queues", the_other_engine_keeps_it, changing_disaggregated_cases()),
    (Troop, "tokens_of_all", dummies_have_no_token, grouped_cases()),
    (Troop, "pace_ns", first_sets_the_pace, grouped_cases()),
]


@pytest.mark.parametrize(
    ("owner", "name", "variant", "cases"), VARIANTS, ids=[v[2].__name__ for v in VARIANTS]
)
def test_wrong_rules_are_told_apart(
    owner: type,
    name: str,
    variant: Callable[..., Any],
    cases: st.SearchStrategy[Case],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @hypothesis_settings(
        max_examples=400,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def compare(case: Case) -> None:
        expected = run_reference(case)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, variant)
            try:
                wrong: object = run_reference(case)
            except (AssertionError, KeyError, IndexError, ValueError) as error:
                wrong = error
        if wrong != expected:
            raise Noticed

    with pytest.raises(Noticed):
        compare()
