"""A cluster of engines on one clock: docs/spec.md, sections 1 to 3, 11, 12 and 15."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.reference.engines import Engine, Flight, StepNs, sums_of, troops_of
from tests.reference.fleet import STATIC, Fleet, FleetRules
from tests.reference.links import Links
from tests.reference.routers import ROUND_ROBIN, Incoming, Router, Routing
from tests.reference.scheduler import Decision, Request, Scheduler, Settings, blocks_for

STEP_ENDS, TRANSFERS, PLANNED, STARTED, LOOKS, TIMES_OUT, ANSWERED, SENT, ARRIVES, SCHEDULES = (
    range(10)
)
"""What happens in one nanosecond, in order (1.3, 13.6); rank 4 begins with the clients' side."""

WINDOW_SUMS = ("prefill_window_pairs", "prefill_window_tokens", "decode_window_tokens")


@dataclass(frozen=True)
class Job:
    """One row of a workload; ``blocks`` names the contents of its first full blocks.

    The client needs the answer to job ``after`` before it sends this one (-1: none), and thinks
    ``think_ns`` about it.
    """

    arrival_ns: int
    prompt: int
    output: int
    priority: int = 0
    blocks: tuple[int, ...] = ()
    after: int = -1
    think_ns: int = 0


@dataclass(frozen=True)
class Transfers:
    """12.6, 12.8 and 12.9."""

    kv_bytes_per_token: int
    fabric_bytes_per_s: int | None = None
    latency_ns: int = 0
    layers: int = 0


@dataclass
class Move:
    """A request on its way between two engines (12.4 to 12.6)."""

    sender: int
    source: Request
    available_ns: int
    complete_ns: int
    receiver: int = -1
    target: Request | None = None
    size: int = 0
    begins_ns: int = -1
    flows: bool = False
    arrives_ns: int = -1


@dataclass
class Run:
    """What is recorded (section 11)."""

    requests: list[dict[str, int]] = field(default_factory=list)
    steps: list[dict[str, int]] = field(default_factory=list)
    token_times: list[list[int]] = field(default_factory=list)


def rejected(job: Job, settings: Settings, *, may_begin_anew: bool) -> bool:
    """2.3, 12.2 and 13.7."""
    if job.prompt == 0 or job.output == 0 or job.prompt >= settings.max_model_len:
        return True
    output = min(job.output, settings.max_model_len - job.prompt)
    if settings.role == "prefill" and not may_begin_anew:
        output = 1
    return blocks_for(job.prompt + output - 1, settings.block_size) > settings.num_gpu_blocks - 1


class Cluster:
    """A cluster that runs a whole workload; every stage prices the sums of section 8."""

    def __init__(
        self,
        engines: Sequence[tuple[Settings, Sequence[StepNs]]],
        jobs: Sequence[Job],
        routing: Routing = ROUND_ROBIN,
        max_concurrency: int | None = None,
        request_latency_ns: int = 0,
        response_latency_ns: int = 0,
        scheduler: Callable[[Settings], Scheduler] = Scheduler,
        transfers: Transfers | None = None,
        fleet: FleetRules | None = None,
    ) -> None:
        self.engines = [Engine(s, scheduler(s), list(stages)) for s, stages in engines]
        self.troops = troops_of(self.engines)
        self.jobs = jobs
        self.places = len(jobs) if max_concurrency is None else max_concurrency
        self.request_latency = request_latency_ns
        self.response_latency = response_latency_ns
        self.events: list[tuple[int, int, int]] = []
        self.unanswered = 0
        self.routers = {
            role: Router(routing, len(self.indices(role)), stream=role == "decode")
            for role in ("aggregated", "prefill", "decode")
        }
        self.transfers = transfers
        self.links = Links(
            [engine.settings.link_bytes_per_s for engine in self.engines],
            transfers.fabric_bytes_per_s if transfers else None,
        )
        self.moves: dict[int, Move] = {}
        self.outstanding: set[tuple[str, int]] = set()  # with the role of the engine
        self.make_scheduler = scheduler
        self.fleet = Fleet(fleet or STATIC, self)
        self.closing: dict[int, int] = {}  # when the windows of idle engines close
        self.on_the_way: dict[int, float] = {}  # sent, with the moment since when they were due
        self.order: dict[int, int] = {}  # of sending
        self.unsent = set(range(len(jobs)))
        self.answers: dict[int, int] = {}
        self.run = Run()
        self.requests_of: dict[int, list[Request]] = {}

    def at(self, time: int, rank: int, index: int) -> None:
        heapq.heappush(self.events, (time, rank, index))

    def simulate(self) -> Run:
        handle = {
            STEP_ENDS: self.step_ends,
            TRANSFERS: self.transfer,
            PLANNED: self.fleet.planned,
            STARTED: self.fleet.started,
            LOOKS: self.fleet.looks,
            TIMES_OUT: self.fleet.times_out,
            ANSWERED: self.answered,
            SENT: self.send,
            ARRIVES: self.arrives,
            SCHEDULES: self.schedules,
        }
        for job in self.jobs:
            row = {"prompt_tokens": job.prompt, "engine": -1}
            row |= dict.fromkeys(("arrival_ns", "admitted_ns", "first_token_ns", "finished_ns"), -1)
            row |= dict.fromkeys(("output_tokens", "cached_tokens", "preemptions", "status"), 0)
            if self.fleet.rules is not STATIC:
                row["retries"] = 0
            if self.transfers:
                row |= {"prefill_engine": -1, "transfer_start_ns": -1, "transfer_end_ns": -1}
                row |= {"transfer_tokens": 0, "second_token_ns": -1}
            self.run.requests.append(row)
            self.run.token_times.append([])
            self.at(job.arrival_ns, SENT, 0)
        self.fleet.plan()
        now = 0
        while self.events:
            time, rank, index = heapq.heappop(self.events)
            assert time >= now, "time runs backwards"
            assert len(self.run.steps) < 10**5, "requests take turns for ever"
            now = time
            handle[rank](now, index)
        assert all(row["status"] for row in self.run.requests), "a request was forgotten"
        assert all(len(e.scheduler.pool.free) == len(e.scheduler.pool.all) for e in self.engines)
        assert not self.moves
        for number, lives in self.requests_of.items():
            row = self.run.requests[number]
            row["preemptions"] = sum(request.preemptions for request in lives)
            row["cached_tokens"] = next((life.cached for life in lives if life.cached >= 0), 0)
            tokens = self.run.token_times[number]
            assert row["output_tokens"] == len(tokens)
            if row["status"] == 1:
                assert len(tokens) == lives[-1].output
            else:
                tokens.clear()
        return self.run

    # Clients (section 2)

    def send(self, now: int, _: int) -> None:
        """2.2, 2.7: send what is due, by the moment since when, while there are places."""
        due = [(self.due_ns(number), number) for number in self.unsent]
        for since, number in sorted(due):
            if since > now or self.unanswered >= self.places:
                break
            self.run.requests[number]["arrival_ns"] = now
            self.at(now + self.request_latency, ARRIVES, 0)
            self.unsent.remove(number)
            self.on_the_way[number] = since
            self.unanswered += 1

    def due_ns(self, number: int) -> float:
        """2.7: a job waits for its arrival, for the answer that it continues, and for a thought."""
        job = self.jobs[number]
        if job.after < 0:
            return job.arrival_ns
        return max(job.arrival_ns, self.answers.get(job.after, math.inf) + job.think_ns)

    def answered(self, now: int, number: int) -> None:
        self.unanswered -= 1
        self.answers[number] = now
        self.at(now, SENT, 0)
        for job in self.jobs:
            if job.after == number:
                self.at(now + job.think_ns, SENT, 0)

    def answer(self, now: int, number: int, status: int) -> None:
        seen = now + self.response_latency
        self.run.requests[number]["finished_ns"] = seen
        self.run.requests[number]["status"] = status
        self.at(seen, ANSWERED, number)

    # The router (2.3, 2.5)

    def arrives(self, now: int, _: int) -> None:
        """1.3: in the order in which they became due, then by row.

        An answer of this very nanosecond may have brought one that comes before others.
        """
        number = min(self.on_the_way, key=lambda number: (self.on_the_way[number], number))
        del self.on_the_way[number]
        self.order[number] = len(self.order)
        job = self.jobs[number]
        changes = self.fleet.rules is not STATIC
        if any(rejected(job, own.settings, may_begin_anew=changes) for own in self.engines):
            self.answer(now, number, 2)
            return
        self.fleet.arrived(now, number)
        self.send_to_engine(now, number, 0)

    def send_to_engine(self, now: int, number: int, known: int) -> None:
        """Route a request with ``known`` generated tokens."""
        role = "prefill" if self.transfers else "aggregated"
        if not self.up_places(role):
            self.fleet.hold(now, role, number)
            return
        job = self.jobs[number]
        index = self.route(now, role, number)
        if self.fleet.is_full(index, number):
            self.settled(role, number)
            self.answer(now, number, 2)
            return
        output = self.effective_output(job, index)
        hands_over = self.transfers is not None and output > known + 1
        if self.transfers:
            self.run.requests[number]["prefill_engine"] = index
            output = known + 1  # 12.3
        request = self.request(number, output, now)
        request.hands_over, request.known = hands_over, known
        self.enter(now, index, request)

    def request(self, number: int, output: int, now: int) -> Request:
        job, sent = self.jobs[number], self.order[number]
        request = Request(number, job.prompt, output, job.priority, sent, job.blocks, now)
        lives = self.requests_of.setdefault(number, [])
        request.life = len(lives)
        lives.append(request)
        return request

    def effective_output(self, job: Job, index: int) -> int:
        """2.3, 12.2 and 13.7."""
        settings = [self.engines[index].settings]
        if self.transfers:
            settings = [self.engines[i].settings for i in self.indices("decode")]
        if self.fleet.rules is not STATIC:
            settings = [engine.settings for engine in self.engines]
        return min(min(job.output, s.max_model_len - job.prompt) for s in settings)

    def enter(self, now: int, index: int, request: Request) -> None:
        self.run.requests[request.number]["engine"] = index
        self.engines[index].scheduler.add(request)
        if not self.troops[index].flights:  # 3.1
            self.wake(now, index)

    def indices(self, role: str) -> list[int]:
        return [i for i, engine in enumerate(self.engines) if engine.settings.role == role]

    def route(self, now: int, role: str, number: int) -> int:
        """2.8 among the engines of a role (12.1)."""
        self.outstanding.add((role, number))
        up = self.up_places(role)
        return self.indices(role)[self.routers[role].route(now, self.incoming(number), up)]

    def up_places(self, role: str) -> set[int]:
        """13.1."""
        return {place for place, i in enumerate(self.indices(role)) if i in self.fleet.up}

    def settled(self, role: str, number: int) -> None:
        """2.5: a request is outstanding no more in an engine of that role, if it was."""
        if (role, number) in self.outstanding:
            self.outstanding.remove((role, number))
            self.routers[role].answered(self.incoming(number))

    def take_out(self, now: int, number: int) -> None:
        """13.8: a request leaves whatever engines it is in."""
        for role in self.routers:
            self.settled(role, number)
        for index, engine in enumerate(self.engines):
            for request in engine.scheduler.everyone():
                if request.number == number:
                    engine.scheduler.abort(request)
                    if not self.troops[index].flights:
                        self.wake(now, index)
        move = self.moves.pop(number, None)
        if move and move.flows:
            self.links.finish(now, number)
            self.announce_ends()

    def incoming(self, number: int) -> Incoming:
        """Only contents that several jobs name can be known (9.1); what follows another is own."""
        job, shared = self.jobs[number], []
        for block in job.blocks:
            if sum(block in other.blocks for other in self.jobs) < 2:
                break
            shared.append(block)
        return Incoming(number, job.prompt + job.output, job.after, tuple(shared))

    # From prefill to decode engines (section 12)

    def hand_over(
        self, now: int, index: int, source: Request, available: int, complete: int
    ) -> None:
        """12.4."""
        self.moves[source.number] = Move(index, source, available, complete)
        self.find_receiver(now, source.number)

    def find_receiver(self, now: int, number: int) -> None:
        """12.4 and 13.9."""
        if not self.up_places("decode"):
            self.fleet.hold(now, "decode", number)
            return
        move = self.moves[number]
        move.receiver = self.route(now, "decode", number)
        output = self.effective_output(self.jobs[number], move.receiver)
        target = self.request(number, output, now)
        target.known, target.cached, target.remote = move.source.output, 0, True
        move.target = target
        self.enter(now, move.receiver, target)

    def reserved(self, now: int, request: Request, tokens: int) -> None:
        """12.5 and 12.6."""
        assert self.transfers
        move, row = self.moves[request.number], self.run.requests[request.number]
        move.size = tokens * self.transfers.kv_bytes_per_token
        row["transfer_start_ns"] = max(now, move.available_ns)
        row["transfer_tokens"] = tokens
        move.begins_ns = row["transfer_start_ns"] + self.transfers.latency_ns
        self.at(move.begins_ns, TRANSFERS, request.number)

    def transfer(self, now: int, number: int) -> None:
        """12.6: a transfer begins, has sent its last byte, or has arrived."""
        move = self.moves.get(number)
        if move is None:
            return
        if move.begins_ns == now:
            move.begins_ns = -1
            if move.size:
                move.flows = True
                self.links.begin(now, number, move.sender, move.receiver, move.size)
                self.announce_ends()
            else:
                self.last_byte_sent(now + 1, number)
        elif move.flows and self.links.flows[number].end == now:
            move.flows = False
            self.links.finish(now, number)
            self.announce_ends()
            self.last_byte_sent(now, number)
        if move.arrives_ns == now:
            self.arrived(now, number)

    def announce_ends(self) -> None:
        for number, flow in self.links.flows.items():
            assert flow.end is not None
            self.at(flow.end, TRANSFERS, number)

    def last_byte_sent(self, time: int, number: int) -> None:
        """12.9: what is computed last is sent last."""
        assert self.transfers
        move = self.moves[number]
        last = 0
        if self.transfers.layers and move.size:
            layer = -(-move.size // self.transfers.layers)
            last = self.links.alone(move.sender, move.receiver, layer)
        move.arrives_ns = max(time, move.complete_ns + last)
        self.at(move.arrives_ns, TRANSFERS, number)

    def arrived(self, now: int, number: int) -> None:
        move = self.moves.pop(number)
        self.run.requests[number]["transfer_end_ns"] = now
        assert move.target
        self.engines[move.sender].scheduler.sent(move.source)
        self.engines[move.receiver].scheduler.receive(move.target)
        for index in (move.sender, move.receiver):
            if not self.troops[index].flights:
                self.wake(now, index)

    # Engines (section 3)

    def wake(self, now: int, index: int) -> None:
        leader = self.troops[index].leader
        self.engines[leader].woken_ns = now
        self.at(now, SCHEDULES, leader)

    def schedules(self, now: int, index: int) -> None:
        """Sections 3 and 15: all engines of a troop decide together."""
        troop = self.troops[index]
        window_closes = self.closing.get(index) == now and not troop.flights
        if self.engines[index].woken_ns != now and not window_closes:
            return
        self.engines[index].woken_ns = -1
        self.closing.pop(index, None)
        handing: list[tuple[int, Request, int, int]] = []
        reserved: list[tuple[int, Request, int]] = []
        while len(troop.flights) < troop.depth():
            decisions = {i: own.scheduler.schedule(now) for i, own in troop.engines.items()}
            for i, decision in decisions.items():
                reserved += [(i, *reservation) for reservation in decision.reserved]
                if not decision.rows:
                    self.engines[i].scheduler.withdraw()
            if not any(decision.rows for decision in decisions.values()):
                preempted = any(decision.preempted for decision in decisions.values())
                if preempted and not troop.flights:
                    # Nothing ends later that would wake the engine: vLLM's loop turns again.
                    continue
                break
            flight = troop.start_step(now, decisions)
            self.at(flight.end, STEP_ENDS, index)
            for i in flight.workers:
                decision = decisions[i]
                self.record_step(now, i, decision, flight)
                handing += [
                    (i, request, flight.start, flight.end)
                    for (request, _, _), sampled in zip(
                        decision.rows, decision.samples, strict=True
                    )
                    if sampled and request.hands_over
                ]
        if self.transfers and self.transfers.layers:
            for i, request, start, end in sorted(handing, key=lambda hand: hand[0]):
                available = start + (end - start) // self.transfers.layers
                self.hand_over(now, i, request, available, end)
        for _, request, tokens in sorted(reserved, key=lambda reservation: reservation[0]):
            self.reserved(now, request, tokens)
        if not troop.flights:
            for i, engine in troop.engines.items():
                self.wait_for_window(now, i, engine)

    def wait_for_window(self, now: int, index: int, engine: Engine) -> None:
        """3.5 and 7.2."""
        scheduler = engine.scheduler
        if scheduler.waiting and scheduler.quota <= 0:
            if engine.settings.batching_strategy == "continuous":
                assert scheduler.sending or scheduler.receiving, "requests are forgotten"
                return
            assert engine.settings.batching_strategy == "windowed", "requests are forgotten"
            self.closing[index] = scheduler.window_closes_ns()
            assert self.closing[index] > now
            self.at(self.closing[index], SCHEDULES, index)

    def record_step(self, now: int, index: int, decision: Decision, flight: Flight) -> None:
        """Section 11."""
        for request in decision.admitted:
            row = self.run.requests[request.number]
            row["admitted_ns"] = now if row["admitted_ns"] < 0 else row["admitted_ns"]
        self.run.steps.append(
            {
                "engine": index,
                "start_ns": flight.start,
                "end_ns": flight.end,
                **sums_of(decision),
                # No engine of the reference has layers that see a window.
                **dict.fromkeys(WINDOW_SUMS, 0),
                "preempted": len(decision.preempted),
                "running": decision.running,
                "waiting": decision.waiting,
                "free_blocks": decision.free,
            }
        )

    def step_ends(self, now: int, index: int) -> None:
        """3.2 and 15.2."""
        troop = self.troops[index]
        if not troop.flights or troop.flights[0].end != now:
            assert self.fleet.rules.planned, "only the steps of dead engines never end"
            return
        for worker in troop.flights.pop(0).workers:
            self.output(now, worker)
        self.wake(now, index)

    def output(self, now: int, index: int) -> None:
        """Section 6."""
        engine = self.engines[index]
        tokens, finished = engine.scheduler.update()
        for request in tokens:
            row, seen = self.run.requests[request.number], now + self.response_latency
            self.run.token_times[request.number].append(seen)
            row["output_tokens"] += 1
            if row["output_tokens"] == 1:
                row["first_token_ns"] = seen
            elif row["output_tokens"] == 2 and self.transfers:
                row["second_token_ns"] = seen
        for request in finished:
            self.settled(engine.settings.role, request.number)
            if not request.hands_over:
                self.answer(now, request.number, 1)
            elif self.transfers and not self.transfers.layers:
                self.hand_over(now, index, request, now, now)
