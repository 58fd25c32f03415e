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


STATIC = FleetRules()
"""A cluster that does not change."""


class Fleet:
    """Which engines are up, and which requests wait for one."""

    def __init__(self, rules: FleetRules, cluster: Cluster) -> None:
        self.rules = rules
        self.cluster = cluster
        self.up = set(range(len(cluster.engines)))
        if rules.autoscaling:
            self.up = set(range(min(rules.autoscaling.min_engines, len(self.up))))
        self.starts: dict[int, int] = {}
        self.held: list[int] = []
        self.ups_left = sum(change == "up" for _, _, change in rules.planned)

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
            self.ups_left -= 1
            self.rise(now, engine)
            return
        for member in self.cluster.troops[engine].engines:  # 15.6
            self.up.discard(member)
            self.starts.pop(member, None)
        if change == "fail":
            self.die(now, engine)

    def rise(self, now: int, engine: int) -> None:
        """13.3."""
        for member in self.cluster.troops[engine].engines:
            self.starts.pop(member, None)
            self.up.add(member)
        held, self.held = self.held, []
        for number in held:
            self.cluster.send_to_engine(now, number, self.known(number))

    def known(self, number: int) -> int:
        return self.cluster.run.requests[number]["output_tokens"]

    def die(self, now: int, index: int) -> None:
        """13.2."""
        troop, lost = self.cluster.troops[index], []
        for engine in troop.engines.values():
            lost += [r.number for r in (*engine.scheduler.running, *engine.scheduler.waiting)]
            engine.scheduler = self.cluster.make_scheduler(engine.settings)
        troop.stop(now)
        lost.sort()
        for number in lost:
            self.cluster.routers["aggregated"].answered(self.cluster.incoming(number))
        for number in lost:
            row = self.cluster.run.requests[number]
            if row["retries"] < self.rules.max_retries:
                row["retries"] += 1
                self.cluster.send_to_engine(now, number, self.known(number))
            else:
                self.fail(now, number)

    def hold(self, now: int, number: int) -> None:
        """13.3."""
        if self.ups_left or self.rules.autoscaling:
            self.held.append(number)
        else:
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
        row = self.cluster.run.requests[number]
        if row["status"]:
            return
        if number in self.held:
            self.held.remove(number)
        else:
            engine = self.cluster.engines[row["engine"]]
            engine.scheduler.abort(self.cluster.requests_of[number][-1])
            self.cluster.routers["aggregated"].answered(self.cluster.incoming(number))
            if not self.cluster.troops[row["engine"]].flights:
                self.cluster.wake(now, row["engine"])
        self.cluster.answer(now, number, 4)

    def started(self, now: int, engine: int) -> None:
        if self.starts.get(engine) == now:
            self.rise(now, engine)

    def looks(self, now: int, _: int) -> None:
        """13.6."""
        from tests.reference.cluster import LOOKS, STARTED

        rules, engines = self.rules.autoscaling, self.cluster.engines
        assert rules
        waiting = len(self.held) + sum(engines[i].scheduler.waiting_count() for i in self.up)
        idle = [i for i in range(len(engines)) if i not in self.up and i not in self.starts]
        if waiting > rules.start_above * len(self.up):
            if idle:
                self.starts[idle[0]] = now + rules.startup_ns
                self.cluster.at(now + rules.startup_ns, STARTED, idle[0])
        elif (
            waiting < rules.drain_below * len(self.up)
            and not self.starts
            and len(self.up) > rules.min_engines
        ):
            self.up.remove(max(self.up))
        if self.cluster.unanswered or self.cluster.unsent:
            self.cluster.at(now + rules.interval_ns, LOOKS, 0)
