"""Which engine a request goes to: docs/spec.md, 2.8. Every rule looks at all engines."""

from __future__ import annotations

from dataclasses import dataclass, field

MASK = 2**64 - 1


def mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@dataclass(frozen=True)
class Routing:
    """A policy and its parameters."""

    policy: str = "round_robin"
    seed: int = 0
    view_delay_ns: int = 0
    imbalance: int = 32


ROUND_ROBIN = Routing()


@dataclass
class Incoming:
    """What a router may know of a request."""

    number: int
    tokens: int
    after: int
    blocks: tuple[int, ...]


@dataclass
class Router:
    """A policy at work on the engines at some places."""

    routing: Routing
    n: int
    stream: int
    next: int = 0
    outstanding: dict[int, list[int]] = field(default_factory=dict)  # tokens of the requests
    place_of: dict[int, int] = field(default_factory=dict)
    history: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outstanding = {place: [] for place in range(self.n)}
        self.state = mix(self.routing.seed) ^ self.stream

    def draw(self, bound: int) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return mix(self.state) * bound >> 64

    def route(self, now: int, request: Incoming, up: set[int]) -> int:
        """``up`` are the places to choose from (13.1)."""
        self.up = sorted(place for place in up if place < self.n)
        place: int = getattr(self, self.routing.policy)(now, request)
        self.next = place + 1
        self.outstanding[place].append(request.tokens)
        self.place_of[request.number] = place
        self.history.append((now + self.routing.view_delay_ns, place, request.blocks))
        return place

    def answered(self, request: Incoming) -> None:
        self.outstanding[self.place_of[request.number]].remove(request.tokens)

    def requests(self, place: int) -> int:
        return len(self.outstanding[place])

    def round_robin(self, _: int, __: Incoming) -> int:
        return min(self.up, key=lambda place: (place - self.next) % self.n)

    def random(self, _: int, __: Incoming) -> int:
        return self.up[self.draw(len(self.up))]

    def least_outstanding(self, _: int, __: Incoming) -> int:
        return min(self.up, key=lambda place: (self.requests(place), place))

    def least_outstanding_tokens(self, _: int, __: Incoming) -> int:
        return min(self.up, key=lambda place: (sum(self.outstanding[place]), place))

    def power_of_two(self, _: int, __: Incoming) -> int:
        if len(self.up) == 1:
            return self.up[0]
        first = self.up[self.draw(len(self.up))]
        second = [place for place in self.up if place != first][self.draw(len(self.up) - 1)]
        return min((first, second), key=self.requests)

    def session_affinity(self, now: int, request: Incoming) -> int:
        if self.place_of.get(request.after) in self.up:
            return self.place_of[request.after]
        return self.least_outstanding(now, request)

    def prefix_aware(self, now: int, request: Incoming) -> int:
        idlest = self.least_outstanding(now, request)
        for block in reversed(request.blocks):
            known = [place for at, place, blocks in self.history if at <= now and block in blocks]
            if known:
                excess = self.requests(known[-1]) - self.requests(idlest)
                avoided = excess > self.routing.imbalance or known[-1] not in self.up
                return idlest if avoided else known[-1]
        return idlest
