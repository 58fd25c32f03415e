"""Transfers that share links max-min fairly: docs/spec.md, 12.6 and 12.8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

S = 10**9


@dataclass
class Flow:
    links: tuple[int, ...]
    left: int  # billionths of a byte
    rate: int = 0
    end: int | None = None


class Links:
    """Link k < n belongs to engine k, link n is the fabric."""

    def __init__(self, capacities: Sequence[int], fabric: int | None) -> None:
        self.capacities = dict(enumerate(capacities))
        self.fabric = len(capacities)
        if fabric is not None:
            self.capacities[self.fabric] = fabric
        self.flows: dict[int, Flow] = {}
        self.now = 0

    def path(self, sender: int, receiver: int) -> tuple[int, ...]:
        return tuple(link for link in (sender, receiver, self.fabric) if link in self.capacities)

    def alone(self, sender: int, receiver: int, size: int) -> int:
        rate = min(self.capacities[link] for link in self.path(sender, receiver))
        return max(1, -(-size * S // rate))

    def begin(self, now: int, number: int, sender: int, receiver: int, size: int) -> None:
        self.advance(now)
        self.flows[number] = Flow(self.path(sender, receiver), size * S)
        self.share(now)

    def finish(self, now: int, number: int) -> None:
        self.advance(now)
        del self.flows[number]
        self.share(now)

    def advance(self, now: int) -> None:
        for flow in self.flows.values():
            flow.left -= flow.rate * (now - self.now)
        self.now = now

    def share(self, now: int) -> None:
        left = dict(self.capacities)
        unsettled = {number: flow.links for number, flow in self.flows.items()}
        while unsettled:
            users = {
                link: sum(link in links for links in unsettled.values()) for link in self.capacities
            }
            share, tightest = min((left[link] // n, link) for link, n in users.items() if n)
            for number, links in list(unsettled.items()):
                if tightest in links:
                    self.settle(now, self.flows[number], max(1, share))
                    for link in links:
                        left[link] -= share
                    del unsettled[number]

    def settle(self, now: int, flow: Flow, rate: int) -> None:
        if flow.end is not None and flow.end <= now:
            return
        flow.rate = rate
        flow.end = now + max(1, -(-flow.left // rate))
