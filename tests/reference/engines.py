"""Engines and what their steps take: docs/spec.md, sections 3, 8, 14 and 15."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial

from tests.reference.scheduler import Decision, Scheduler, Settings

Sums = dict[str, int]
StepNs = Callable[[Sums], int]
"""Prices the sums of section 8, and ``group_tokens``: those of all who step together (15.4)."""


@dataclass
class Engine:
    settings: Settings
    scheduler: Scheduler
    stages: list[StepNs]
    woken_ns: int = -1  # something happened in this nanosecond that it has not scheduled after

    def places(self) -> list[StepNs]:
        """14.1: the stages and the links between them, as a batch passes them."""
        places: list[StepNs] = []
        for stage, step_ns in enumerate(self.stages):
            if stage:
                places.append(partial(link_ns, self.settings.stage_links[stage - 1]))
            places.append(lambda sums, step_ns=step_ns: max(1, step_ns(sums)))  # type: ignore[misc]
        return places


@dataclass
class Flight:
    """A step of all engines of a troop."""

    start: int
    end: int
    workers: list[int]  # those that run requests in it


@dataclass
class Troop:
    """Engines that step together (15.1); nearly all troops have one."""

    engines: dict[int, Engine]
    flights: list[Flight] = field(default_factory=list)
    # Of all steps: when they left the stages and, between these, the links (14.1).
    place_ends: list[list[int]] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.engines[self.leader].settings

    @property
    def leader(self) -> int:
        """15.2: the troop schedules in its place."""
        return min(self.engines)

    def depth(self) -> int:
        """3.3, 3.4 and 14.2: steps in flight."""
        if self.settings.pipeline_parallel_size > 1:
            return self.settings.pipeline_parallel_size
        return 2 if self.settings.async_scheduling else 1

    def start_step(self, now: int, decisions: dict[int, Decision]) -> Flight:
        """3.3, 3.4, 14.1 and 15.4."""
        sums = {index: sums_of(decision) for index, decision in decisions.items()}
        for index, decision in decisions.items():
            if not decision.rows:
                sums[index] |= {"decode_seqs": 1, "decode_context_tokens": 1}  # 15.3
        together = self.tokens_of_all(sums)
        durations = [
            [place({**sums[index], "group_tokens": together}) for place in engine.places()]
            for index, engine in self.engines.items()
        ]
        end, starts = now + self.settings.step_overhead_ns, []
        self.place_ends = self.place_ends or [[] for _ in durations[0]]
        for ends, of_engines in zip(self.place_ends, zip(*durations, strict=True), strict=True):
            starts.append(max([end, *ends]))
            end = starts[-1] + self.pace_ns(of_engines)
            ends.append(end)
        workers = [index for index, decision in decisions.items() if decision.rows]
        self.flights.append(Flight(starts[0], end, workers))
        return self.flights[-1]

    def tokens_of_all(self, sums: dict[int, Sums]) -> int:
        """15.4: dummies have one each."""
        return sum(own["prefill_tokens"] + own["decode_seqs"] for own in sums.values())

    def pace_ns(self, durations: Sequence[int]) -> int:
        """15.4."""
        return max(durations)

    def stop(self, now: int) -> None:
        """13.2: steps in flight are lost."""
        self.flights = []
        self.place_ends = [[now] for _ in self.place_ends]


def troops_of(engines: Sequence[Engine]) -> list[Troop]:
    """One for each engine, shared by those of a group."""
    troops: list[Troop] = []
    for index, engine in enumerate(engines):
        group = engine.settings.data_parallel_group
        if troops and group is not None and group == troops[-1].settings.data_parallel_group:
            troops[-1].engines[index] = engine
            troops.append(troops[-1])
        else:
            troops.append(Troop({index: engine}))
    return troops


def sums_of(decision: Decision) -> Sums:
    """Section 8, term by term."""
    prefill = ("seqs", "tokens", "attention_pairs", "context_tokens")
    sums = dict.fromkeys((f"prefill_{name}" for name in prefill), 0)
    sums |= dict.fromkeys(("decode_seqs", "decode_context_tokens", "sampled_seqs"), 0)
    # The model of the reference has no layers that see a window only.
    windowed = ("prefill_window_pairs", "prefill_window_tokens", "decode_window_tokens")
    sums |= dict.fromkeys(windowed, 0)
    for (request, c, n), sampled in zip(decision.rows, decision.samples, strict=True):
        if n == 1 and c >= request.prompt:
            sums["decode_seqs"] += 1
            sums["decode_context_tokens"] += c + 1
        else:
            sums["prefill_seqs"] += 1
            sums["prefill_tokens"] += n
            sums["prefill_attention_pairs"] += sum(range(c + 1, c + n + 1))
            sums["prefill_context_tokens"] += c + n
        sums["sampled_seqs"] += sampled
    return sums


def link_ns(link: tuple[int, int, int], sums: Sums) -> int:
    """14.4."""
    latency_ns, bytes_per_token, bytes_per_s = link
    tokens = sums["prefill_tokens"] + sums["decode_seqs"]
    return latency_ns + math.ceil(Fraction(tokens * bytes_per_token * 10**9, bytes_per_s))
