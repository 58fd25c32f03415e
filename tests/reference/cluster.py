"""A cluster of engines on one clock: docs/spec.md, sections 1 to 3, 8 and 11."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.reference.scheduler import Decision, Request, Scheduler, Settings, blocks_for

STEP_ENDS, ANSWERED, SENT, ARRIVES, SCHEDULES = range(5)
"""Ranks of what happens in one nanosecond (1.3); the clients' side, in the middle, is rank 1."""

Sums = dict[str, int]


@dataclass(frozen=True)
class Job:
    """One row of a workload; ``blocks`` names the contents of its first full blocks.

    The client needs the answer to job ``after`` before it sends this one (-1: none).
    """

    arrival_ns: int
    prompt: int
    output: int
    priority: int = 0
    blocks: tuple[int, ...] = ()
    after: int = -1


@dataclass
class Engine:
    settings: Settings
    scheduler: Scheduler
    step_ns: Callable[[Sums], int]
    ends: list[int] = field(default_factory=list)  # of the steps in flight
    last_end: int = 0
    outstanding: int = 0
    may_schedule_ns: int = -1  # a step ended or an idle engine saw an arrival in this nanosecond
    scheduled_ns: int = -1


@dataclass
class Run:
    """What is recorded (section 11)."""

    requests: list[dict[str, int]] = field(default_factory=list)
    steps: list[dict[str, int]] = field(default_factory=list)
    token_times: list[list[int]] = field(default_factory=list)


def sums_of(decision: Decision) -> Sums:
    """Section 8, term by term."""
    prefill = ("seqs", "tokens", "attention_pairs", "context_tokens")
    sums = dict.fromkeys((f"prefill_{name}" for name in prefill), 0)
    sums |= dict.fromkeys(("decode_seqs", "decode_context_tokens", "sampled_seqs"), 0)
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


def rejected(job: Job, settings: Settings) -> bool:
    """2.3."""
    if job.prompt == 0 or job.output == 0 or job.prompt >= settings.max_model_len:
        return True
    output = min(job.output, settings.max_model_len - job.prompt)
    return blocks_for(job.prompt + output - 1, settings.block_size) > settings.num_gpu_blocks - 1


class Cluster:
    """A cluster that runs a whole workload; ``step_ns`` of an engine gets the sums of section 8."""

    def __init__(
        self,
        engines: Sequence[tuple[Settings, Callable[[Sums], int]]],
        jobs: Sequence[Job],
        router: str = "round_robin",
        max_concurrency: int | None = None,
        request_latency_ns: int = 0,
        response_latency_ns: int = 0,
        scheduler: Callable[[Settings], Scheduler] = Scheduler,
    ) -> None:
        self.engines = [Engine(s, scheduler(s), step_ns) for s, step_ns in engines]
        self.jobs = jobs
        self.router = router
        self.places = len(jobs) if max_concurrency is None else max_concurrency
        self.request_latency = request_latency_ns
        self.response_latency = response_latency_ns
        self.events: list[tuple[int, int, int]] = []
        self.unanswered = self.routed = 0
        self.order: dict[int, int] = {}  # of sending
        self.unsent = set(range(len(jobs)))
        self.answers: dict[int, int] = {}
        self.run = Run()
        self.request_of: dict[int, Request] = {}

    def at(self, time: int, rank: int, index: int) -> None:
        heapq.heappush(self.events, (time, rank, index))

    def simulate(self) -> Run:
        handle = {
            STEP_ENDS: self.step_ends,
            ANSWERED: self.answered,
            SENT: self.send,
            ARRIVES: self.arrives,
            SCHEDULES: self.schedules,
        }
        for job in self.jobs:
            row = {"prompt_tokens": job.prompt, "engine": -1}
            row |= dict.fromkeys(("arrival_ns", "admitted_ns", "first_token_ns", "finished_ns"), -1)
            row |= dict.fromkeys(("output_tokens", "cached_tokens", "preemptions", "status"), 0)
            self.run.requests.append(row)
            self.run.token_times.append([])
            self.at(job.arrival_ns, SENT, 0)
        now = 0
        while self.events:
            time, rank, index = heapq.heappop(self.events)
            assert time >= now, "time runs backwards"
            assert len(self.run.steps) < 10**5, "requests take turns for ever"
            now = time
            handle[rank](now, index)
        assert all(row["status"] for row in self.run.requests), "a request was forgotten"
        assert all(len(e.scheduler.pool.free) == len(e.scheduler.pool.all) for e in self.engines)
        for number, request in self.request_of.items():
            row = self.run.requests[number]
            row["preemptions"], row["cached_tokens"] = request.preemptions, request.cached
            assert row["output_tokens"] == request.output == len(self.run.token_times[number])
        return self.run

    # Clients (section 2)

    def send(self, now: int, _: int) -> None:
        """2.2, 2.7: send what is due, by the moment since when, while there are places."""
        due = [(self.due_ns(number), number) for number in self.unsent]
        for since, number in sorted(due):
            if since > now or self.unanswered >= self.places:
                break
            self.run.requests[number]["arrival_ns"] = now
            self.at(now + self.request_latency, ARRIVES, number)
            self.unsent.remove(number)
            self.order[number] = len(self.order)
            self.unanswered += 1

    def due_ns(self, number: int) -> float:
        """2.7: a job waits for its arrival and for the answer that it continues."""
        job = self.jobs[number]
        if job.after < 0:
            return job.arrival_ns
        return max(job.arrival_ns, self.answers.get(job.after, math.inf))

    def answered(self, now: int, number: int) -> None:
        self.unanswered -= 1
        self.answers[number] = now
        self.at(now, SENT, 0)

    def answer(self, now: int, number: int, status: int) -> None:
        seen = now + self.response_latency
        self.run.requests[number]["finished_ns"] = seen
        self.run.requests[number]["status"] = status
        self.at(seen, ANSWERED, number)

    # The router (2.3, 2.5)

    def arrives(self, now: int, number: int) -> None:
        job = self.jobs[number]
        if any(rejected(job, engine.settings) for engine in self.engines):
            self.answer(now, number, 2)
            return
        index = self.route()
        engine = self.engines[index]
        engine.outstanding += 1
        self.run.requests[number]["engine"] = index
        output = min(job.output, engine.settings.max_model_len - job.prompt)
        sent = self.order[number]
        request = Request(number, job.prompt, output, job.priority, sent, job.blocks, now)
        self.request_of[number] = request
        engine.scheduler.add(request)
        if not engine.ends:  # 3.1
            self.wake(now, index)

    def route(self) -> int:
        if self.router == "round_robin":
            self.routed += 1
            return (self.routed - 1) % len(self.engines)
        return min(range(len(self.engines)), key=lambda i: (self.engines[i].outstanding, i))

    # Engines (section 3)

    def wake(self, now: int, index: int) -> None:
        self.engines[index].may_schedule_ns = now
        self.at(now, SCHEDULES, index)

    def schedules(self, now: int, index: int) -> None:
        engine = self.engines[index]
        late_window = bool(engine.ends) and engine.may_schedule_ns != now
        if late_window or engine.scheduled_ns == now:
            return
        engine.scheduled_ns = now
        depth = 2 if engine.settings.async_scheduling else 1
        while len(engine.ends) < depth:
            decision = engine.scheduler.schedule(now)
            if not decision.rows:
                engine.scheduler.withdraw()
                if decision.preempted and not engine.ends:
                    # Nothing ends later that would wake the engine: vLLM's loop turns again.
                    continue
                break
            for request in decision.admitted:
                self.run.requests[request.number]["admitted_ns"] = now
            self.start_step(now, index, decision)
        scheduler = engine.scheduler
        if not engine.ends and scheduler.waiting and scheduler.quota <= 0:
            assert engine.settings.batching_strategy == "windowed", "requests are forgotten"
            assert scheduler.window_closes_ns() > now
            self.at(scheduler.window_closes_ns(), SCHEDULES, index)

    def start_step(self, now: int, index: int, decision: Decision) -> None:
        """3.3 and 3.4."""
        engine = self.engines[index]
        sums = sums_of(decision)
        start = max(now + engine.settings.step_overhead_ns, engine.last_end)
        end = start + max(1, engine.step_ns(sums))
        engine.ends.append(end)
        engine.last_end = end
        self.at(end, STEP_ENDS, index)
        self.run.steps.append(
            {
                "engine": index,
                "start_ns": start,
                "end_ns": end,
                **sums,
                "preempted": len(decision.preempted),
                "running": decision.running,
                "waiting": decision.waiting,
                "free_blocks": decision.free,
            }
        )

    def step_ends(self, now: int, index: int) -> None:
        """3.2."""
        engine = self.engines[index]
        assert engine.ends.pop(0) == now
        tokens, finished = engine.scheduler.update()
        for request in tokens:
            row, seen = self.run.requests[request.number], now + self.response_latency
            self.run.token_times[request.number].append(seen)
            row["output_tokens"] += 1
            if row["output_tokens"] == 1:
                row["first_token_ns"] = seen
        for request in finished:
            engine.outstanding -= 1
            self.answer(now, request.number, 1)
        self.wake(now, index)
