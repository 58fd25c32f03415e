"""Wrong rules are noticed: random workloads tell each wrong variant from the right reference."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.property.test_core_matches_reference import fixed_ns
from tests.reference.cluster import Cluster, Job
from tests.reference.kv_blocks import BlockPool
from tests.reference.replay import replay
from tests.reference.scheduler import Request, Scheduler, Settings

SEEDS = 150


class VictimFirst(Scheduler):
    def pick_victim(self) -> Request:
        return self.running[0]


class VictimLeastUrgentLast(Scheduler):
    """Among equals the latest in ``running`` instead of the earliest."""

    def pick_victim(self) -> Request:
        if self.settings.scheduling_policy == "priority":
            return max(reversed(self.running), key=lambda r: (r.priority, r.arrival))
        return super().pick_victim()


class LastBlockOffByOne(Scheduler):
    def blocks_required(self, tokens: int) -> int:
        return tokens // self.settings.block_size + 1

    def check(self, decision: object) -> None:
        """The variant breaks the invariant on purpose."""


class PreemptedToTheBack(Scheduler):
    def requeue(self, victim: Request) -> None:
        self.waiting.append(victim)
        self.order_waiting()


class ThresholdAlways(Scheduler):
    def token_cap(self) -> int:
        return self.settings.long_prefill_token_threshold or super().token_cap()


class GateOnFirstChunk(Scheduler):
    def gate_tokens(self, _: Request, first_chunk_end: int) -> int:
        return first_chunk_end


class FreedInReverse(BlockPool):
    """Findable blocks to the end from first to last: the head of a prefix is evicted first."""

    def give_back(self, blocks: list[int]) -> None:
        super().give_back(blocks[::-1])


class LeastRecentlyUsedReversed(Scheduler):
    pool_class = FreedInReverse


class WholePrefixHit(Scheduler):
    """A hit may cover the last token, which leaves nothing to compute."""

    def findable_blocks(self, request: Request) -> int:
        return request.num_tokens // self.settings.block_size


class RegisteredAfterExecution(Scheduler):
    def register_when_taken(self, request: Request, end: int) -> None:
        """Nothing is findable before its step has ended."""

    def register_after_output(self, request: Request) -> None:
        in_flight = sum(n for d in self.in_flight for r, _, n in d.rows if r is request)
        self.register(request, request.computed - in_flight)


class NoWatermark(Scheduler):
    def fits(self, request: Request, hits: list[int], first_chunk_end: int) -> bool:
        needed = self.blocks_required(self.gate_tokens(request, first_chunk_end)) - len(hits)
        idle_hits = sum(self.pool.holders[block] == 0 for block in hits)
        return needed + idle_hits <= len(self.pool.free)


class TokensBeforeTheyAreKnown(Scheduler):
    """Wrong in a pipeline only: a request goes on while its token is in a later stage (14.3)."""

    def tokens_to_compute(self, request: Request) -> int:
        if request.known + request.flying == request.output:
            return 0
        return request.num_tokens - request.computed


GOLDEN = Path(__file__).parents[1] / "golden" / "vllm_decisions"

VARIANTS: list[type[Scheduler]] = [
    VictimFirst,
    LastBlockOffByOne,
    PreemptedToTheBack,
    ThresholdAlways,
    GateOnFirstChunk,
    LeastRecentlyUsedReversed,
    WholePrefixHit,
    RegisteredAfterExecution,
    NoWatermark,
    TokensBeforeTheyAreKnown,
]


def random_case(seed: int) -> tuple[Settings, list[Job]]:
    rng = random.Random(seed)
    block_size = rng.randint(1, 4)
    blocks = rng.randint(5, 14)
    fits = blocks * block_size
    settings = Settings(
        max_num_seqs=rng.randint(2, 6),
        max_num_batched_tokens=rng.randint(3, 24),
        max_model_len=200,
        block_size=block_size,
        num_gpu_blocks=blocks + 1,
        long_prefill_token_threshold=rng.choice([0, 1, 2, 4]),
        enable_prefix_caching=rng.random() < 0.6,
        scheduling_policy=rng.choice(["fcfs", "fcfs", "priority"]),
        scheduler_reserve_full_isl=rng.random() < 0.6,
        watermark_blocks=rng.choice([0, 1, 2]),
        async_scheduling=rng.random() < 0.5,
    )
    jobs, now = [], 0
    for _ in range(12):
        now += rng.choice([0, 0, 100, 1000])
        prompt = rng.randint(1, fits // 2)
        full = rng.randint(0, prompt // block_size)
        family = rng.randrange(2)
        # One family's prompts all start with the same blocks.
        names = tuple(family * 1000 + i for i in range(full))
        jobs.append(Job(now, prompt, rng.randint(1, fits // 2), rng.randrange(2), names))
    if rng.random() < 0.3:
        settings = replace(settings, pipeline_parallel_size=2, stage_links=((5, 1, 10**9),))
    return settings, jobs


def outcome(variant: type[Scheduler], seed: int) -> object:
    """What a run records, or the invariant that a wrong variant breaks."""
    settings, jobs = random_case(seed)
    stage = partial(fixed_ns, (100, 10, 1, 0))
    engines = [(settings, [stage] * settings.pipeline_parallel_size)]
    try:
        return Cluster(engines, jobs, scheduler=variant).simulate()
    except (AssertionError, KeyError, IndexError) as error:
        return repr(error)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.__name__)
def test_wrong_rules_are_told_apart(variant: type[Scheduler]) -> None:
    assert any(outcome(variant, seed) != outcome(Scheduler, seed) for seed in range(SEEDS))


def test_recordings_tell_how_ties_are_broken() -> None:
    """Only recordings have ties: the simulator tells requests of one nanosecond apart."""
    caught = 0
    for path in sorted(GOLDEN.glob("random_*.jsonl.gz")):
        try:
            replay(path, VictimLeastUrgentLast)
        except AssertionError:
            caught += 1
    assert caught > 0


def test_right_rules_agree_with_themselves() -> None:
    for seed in range(20):
        assert outcome(Scheduler, seed) == outcome(Scheduler, seed)
        assert not isinstance(outcome(Scheduler, seed), str)
