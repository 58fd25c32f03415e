"""Engines that come and go, requests that are given up: docs/spec.md, section 13."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.reference.cluster import Cluster


@dataclass(frozen=True)
class Autoscaling:
    """13.6."""

    min_engines: int
    interval_ns: int
    start_above: int
    drain_below: int
    startup_ns: int = 0


@dataclass(frozen=True)
class FleetRules:
    """What is planned and put up with; ``planned`` has (time, engine, change)."""

    planned: tuple[tuple[int, int, str], ...] = ()
    max_retries: int = 0
    timeout_ns: int | None = None
    max_queue: int | None = None
    autoscaling: Autoscaling | None = None


ROLES = ("aggregated", "prefill", "decode")

STATIC = FleetRules()
"""A cluster that does not change."""


class Fleet:
    """Which engines are up, and which requests wait for one."""

    def __init__(self, rules: FleetRules, cluster: Cluster) -> None:
        self.rules = rules
        self.cluster = cluster
        self.up = set(range(len(cluster.engines)))
        if rules.autoscaling:
            least = rules.autoscaling.min_engines
            self.up = {i for role in ROLES for i in cluster.indices(role)[:least]}
        self.starts: dict[int, int] = {}
        self.held: dict[str, list[int]] = {role: [] for role in ROLES}
        self.ups_left = [i for _, i, change in rules.planned if change == "up"]

    def role_of(self, engine: int) -> str:
        return self.cluster.engines[engine].settings.role

    def plan(self) -> None:
        from tests.reference.cluster import LOOKS, PLANNED

        for index, (time, _, _) in enumerate(self.rules.planned):
            self.cluster.at(time, PLANNED, index)
        if self.rules.autoscaling:
            self.cluster.at(self.rules.autoscaling.interval_ns, LOOKS, 0)

    def planned(self, now: int, index: int) -> None:
        """13.1."""
        _, engine, change = self.rules.planned[index]
        if change == "up":
            self.ups_left.remove(engine)
            self.rise(now, engine)
            return
        for member in self.cluster.troops[engine].engines:  # 15.6
            self.up.discard(member)
            self.starts.pop(member, None)
        if change == "fail":
            self.die(now, engine)

    def rise(self, now: int, engine: int) -> None:
        """13.3 and 13.9."""
        for member in self.cluster.troops[engine].engines:
            self.starts.pop(member, None)
            self.up.add(member)
        role = self.role_of(engine)
        held, self.held[role] = self.held[role], []
        for number in held:
            if role == "decode":
                self.cluster.find_receiver(now, number)
            else:
                self.cluster.send_to_engine(now, number, self.known(number))

    def known(self, number: int) -> int:
        return self.cluster.run.requests[number]["output_tokens"]

    def die(self, now: int, index: int) -> None:
        """13.2 and 13.8."""
        troop, lost = self.cluster.troops[index], []
        for engine in troop.engines.values():
            lost += [request.number for request in engine.scheduler.everyone()]
            engine.scheduler = self.cluster.make_scheduler(engine.settings)
        troop.stop(now)
        lost.sort()
        for number in lost:
            self.give_up_place(now, number)
        for number in lost:
            row = self.cluster.run.requests[number]
            if self.cluster.transfers:
                row |= {"transfer_start_ns": -1, "transfer_end_ns": -1, "transfer_tokens": 0}
            if row["retries"] < self.rules.max_retries:
                row["retries"] += 1
                self.cluster.send_to_engine(now, number, self.known(number))
            else:
                self.fail(now, number)

    def give_up_place(self, now: int, number: int) -> None:
        """13.8: in the engines, and among those that wait for one."""
        for waiting in self.held.values():
            if number in waiting:
                waiting.remove(number)
        self.cluster.take_out(now, number)

    def hold(self, now: int, role: str, number: int) -> None:
        """13.3 and 13.9."""
        if self.rules.autoscaling or any(self.role_of(i) == role for i in self.ups_left):
            self.held[role].append(number)
        else:
            self.give_up_place(now, number)
            self.fail(now, number)

    def fail(self, now: int, number: int) -> None:
        self.cluster.answer(now, number, 3)

    def is_full(self, index: int, number: int) -> bool:
        """13.4."""
        waiting = self.cluster.engines[index].scheduler.waiting_count()
        if self.rules.max_queue is None or self.cluster.run.requests[number]["retries"]:
            return False
        return waiting >= self.rules.max_queue

    def arrived(self, now: int, number: int) -> None:
        from tests.reference.cluster import TIMES_OUT

        if self.rules.timeout_ns is not None:
            self.cluster.at(now + self.rules.timeout_ns, TIMES_OUT, number)

    def times_out(self, now: int, number: int) -> None:
        """13.5."""
        if not self.cluster.run.requests[number]["status"]:
            self.give_up_place(now, number)
            self.cluster.answer(now, number, 4)

    def started(self, now: int, engine: int) -> None:
        if self.starts.get(engine) == now:
            self.rise(now, engine)

    def looks(self, now: int, _: int) -> None:
        """13.6: at each role apart."""
        from tests.reference.cluster import LOOKS

        assert self.rules.autoscaling
        for role in ROLES:
            self.look_at(now, role, self.cluster.indices(role))
        if self.cluster.unanswered or self.cluster.unsent:
            self.cluster.at(now + self.rules.autoscaling.interval_ns, LOOKS, 0)

    def look_at(self, now: int, role: str, members: list[int]) -> None:
        from tests.reference.cluster import STARTED

        rules, engines = self.rules.autoscaling, self.cluster.engines
        assert rules
        up = [i for i in members if i in self.up]
        waiting = len(self.held[role]) + sum(engines[i].scheduler.waiting_count() for i in up)
        idle = [i for i in members if i not in self.up and i not in self.starts]
        if waiting > rules.start_above * len(up):
            if idle:
                self.starts[idle[0]] = now + rules.startup_ns
                self.cluster.at(now + rules.startup_ns, STARTED, idle[0])
        elif (
            waiting < rules.drain_below * len(up)
            and not any(i in self.starts for i in members)
            and len(up) > rules.min_engines
        ):
            self.up.remove(up[-1])
