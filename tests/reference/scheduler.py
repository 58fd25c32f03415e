"""The scheduler of one engine, rule by rule as in docs/spec.md, sections 4 to 7, 9, 10 and 14.

Each rule that a test may want to get wrong on purpose is a small method.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.reference.kv_blocks import BlockPool, Content


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One engine; the names are vLLM's."""

    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int
    num_gpu_blocks: int
    enable_chunked_prefill: bool = True
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    enable_prefix_caching: bool = False
    scheduling_policy: str = "fcfs"
    scheduler_reserve_full_isl: bool = True
    watermark_blocks: int = 0
    async_scheduling: bool = False
    step_overhead_ns: int = 0
    batching_strategy: str = "continuous"
    batch_window_ns: int = 0
    role: str = "aggregated"
    link_bytes_per_s: int = 0
    pipeline_parallel_size: int = 1
    stage_links: tuple[tuple[int, int, int], ...] = ()  # ns, bytes a token, bytes a second
    data_parallel_group: int | None = None  # 15.1


@dataclass(eq=False)
class Request:
    """A request as a scheduler sees it; ``output`` is the effective one (2.3)."""

    number: int
    prompt: int
    output: int
    priority: int = 0
    arrival: float = 0
    blocks: tuple[int, ...] = ()
    joined_ns: int = 0
    life: int = 0  # how often it was sent to an engine before
    computed: int = 0
    known: int = 0  # generated tokens that have arrived
    flying: int = 0  # generated tokens whose steps are scheduled
    held: list[int] = field(default_factory=list)
    preemptions: int = 0
    cached: int = -1  # tokens found when it was first scheduled
    remote: bool = False  # its KV is in a prefill engine (12.4)
    hands_over: bool = False
    gone: bool = False  # given up (13.5)

    @property
    def num_tokens(self) -> int:
        return self.prompt + self.known + self.flying

    @property
    def known_tokens(self) -> int:
        return self.prompt + self.known


@dataclass
class Decision:
    """What one schedule selected, and the state after it."""

    rows: list[tuple[Request, int, int]]  # request, tokens computed before, tokens scheduled
    samples: list[bool]  # whether the row gets a token (6.1)
    preempted: list[Request]
    free: int
    waiting: int
    running: int
    admitted: list[Request]  # scheduled for the first time in their lives
    reserved: list[tuple[Request, int]]  # with the tokens to be sent (12.5)


def blocks_for(tokens: int, block_size: int) -> int:
    return -(-tokens // block_size)


class Scheduler:
    """``add`` requests, ``schedule`` a step, ``update`` with the output of the oldest one."""

    pool_class = BlockPool

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pool = self.pool_class(settings.num_gpu_blocks, caching=settings.enable_prefix_caching)
        self.running: list[Request] = []
        self.waiting: list[Request] = []
        self.receiving: list[Request] = []  # 12.5
        self.received: list[Request] = []  # 12.7
        self.sending: list[Request] = []  # 12.3
        self.in_flight: deque[Decision] = deque()
        self.quota = 0

    def add(self, request: Request) -> None:
        self.waiting.append(request)
        self.order_waiting()

    def schedule(self, now_ns: int = 0) -> Decision:
        """Decide one step (sections 4 and 5), which may select nothing."""
        self.open_batch(now_ns)
        self.budget = self.settings.max_num_batched_tokens  # 4.1
        self.cap = self.token_cap()
        self.rows: list[tuple[Request, int]] = []
        self.preempted: list[Request] = []
        self.admitted: list[Request] = []
        self.reserved: list[tuple[Request, int]] = []
        self.running_pass()
        if not self.preempted:  # 5.1
            self.waiting_pass()
        rows, samples = [], []
        for request, n in self.rows:
            rows.append((request, request.computed, n))
            request.computed += n  # 5.5
            samples.append(request.computed == request.num_tokens)  # 6.1
            request.flying += samples[-1]
        decision = Decision(
            rows,
            samples,
            self.preempted,
            len(self.pool.free),
            self.waiting_count(),
            len(self.running),
            self.admitted,
            self.reserved,
        )
        self.check(decision)
        self.in_flight.append(decision)
        return decision

    def withdraw(self) -> None:
        """Drop the newest step, which selected nothing: no output of it will come."""
        assert not self.in_flight.pop().rows

    def update(self) -> tuple[list[Request], list[Request]]:
        """Process the oldest step's output: requests that got a token, those that finished."""
        decision = self.in_flight.popleft()
        tokens, finished = [], []
        for (request, _, _), sampled in zip(decision.rows, decision.samples, strict=True):
            if request.gone:
                continue
            if sampled:
                request.flying -= 1
                request.known += 1
                tokens.append(request)
            if request in self.running:
                self.register_after_output(request)
            if sampled and request.known == request.output:  # 6.2
                self.leave(request)
                finished.append(request)
        return tokens, finished

    def waiting_count(self) -> int:
        """12.10."""
        return len(self.waiting) + len(self.receiving) + len(self.received)

    # Section 4: the running pass

    def token_cap(self) -> int:
        """4.2: the most that one request gets in this step."""
        settings, requests = self.settings, len(self.running) + self.waiting_count()
        threshold = settings.long_prefill_token_threshold
        if threshold == 0 or requests <= 1:
            return settings.max_num_batched_tokens
        if settings.long_prefill_token_threshold_adaptive:
            return max(threshold, settings.max_num_batched_tokens // requests)
        return threshold

    def running_pass(self) -> None:
        index = 0
        while index < len(self.running) and self.budget > 0:
            request = self.running[index]
            n = min(self.tokens_to_compute(request), self.cap, self.budget)
            if n > 0:
                needed = self.blocks_required(request.computed + n) - len(request.held)
                while needed > len(self.pool.free):
                    victim = self.pick_victim()
                    place = self.running.index(victim)
                    self.preempt(victim)
                    if victim is request:
                        return
                    if place < index:
                        index -= 1
                self.hand_out(request, n, [])
            index += 1

    def tokens_to_compute(self, request: Request) -> int:
        if request.known + request.flying == request.output:
            return 0  # its last token is scheduled
        if request.flying and self.settings.pipeline_parallel_size > 1:
            return 0  # 14.3: its token has not left the last stage
        return request.num_tokens - request.computed

    def blocks_required(self, tokens: int) -> int:
        return blocks_for(tokens, self.settings.block_size)

    def pick_victim(self) -> Request:
        """4.4."""
        if self.settings.scheduling_policy == "priority":
            return max(self.candidates(), key=lambda request: (request.priority, request.arrival))
        return self.candidates()[-1]

    def candidates(self) -> list[Request]:
        """12.3: blocks that are about to be sent are not taken away."""
        return [r for r in self.running if not (r.hands_over and r.known + r.flying == r.output)]

    def preempt(self, victim: Request) -> None:
        """4.4 and 4.5: its tokens of this pass go back to the budget."""
        self.running.remove(victim)
        self.budget += sum(n for request, n in self.rows if request is victim)
        self.rows = [row for row in self.rows if row[0] is not victim]
        self.pool.give_back(victim.held)
        victim.held = []
        victim.computed = 0
        victim.preemptions += 1
        self.preempted.append(victim)
        self.requeue(victim)

    def requeue(self, victim: Request) -> None:
        self.waiting.insert(0, victim)
        self.order_waiting()

    def order_waiting(self) -> None:
        if self.settings.scheduling_policy == "priority":
            self.waiting.sort(key=lambda r: (r.priority, r.arrival, r.number))

    def hand_out(self, request: Request, n: int, hits: list[int]) -> None:
        """Give a request its blocks for ``n`` more tokens and put it into the step."""
        self.pool.hold_found(hits)
        request.held.extend(hits)
        needed = self.blocks_required(request.computed + n) - len(request.held)
        request.held.extend(self.pool.take_new(needed))
        self.register_when_taken(request, request.computed + n)
        self.rows.append((request, n))
        self.budget -= n

    # Section 5: the waiting pass

    def waiting_pass(self) -> None:
        place = 0
        while (
            self.budget > 0
            and len(self.running) < self.settings.max_num_seqs
            and place < len(self.waiting) + len(self.received)
            and (self.settings.batching_strategy == "continuous" or self.quota > 0)
        ):
            if self.received:  # 12.7
                self.running.append(self.received.pop(0))
                self.hand_out(self.running[-1], 1, [])
                continue
            request = self.waiting[place]
            if request.flying:  # 5.6
                place += 1
                continue
            if request.remote:
                if not self.reserve(request):
                    return
                del self.waiting[place]
                continue
            hits = self.look_up(request)
            cached = len(hits) * self.settings.block_size
            n = min(request.num_tokens - cached, self.cap)
            if not self.settings.enable_chunked_prefill and n > self.budget:
                return
            n = min(n, self.budget)
            if not self.fits(request, hits, cached + n):
                self.quota = 0  # 7.1: a request that does not fit closes the batch
                return
            del self.waiting[place]
            self.running.append(request)
            self.quota -= 1
            request.computed = cached
            if request.cached < 0:
                request.cached = cached
                self.admitted.append(request)
            self.hand_out(request, n, hits)

    def fits(self, request: Request, hits: list[int], first_chunk_end: int) -> bool:
        """5.3."""
        asked = self.gate_tokens(request, first_chunk_end)
        idle_hits = sum(self.pool.holders[block] == 0 for block in hits)
        watermark = self.settings.watermark_blocks if self.running else 0
        needed = self.blocks_required(asked) - len(hits) + idle_hits
        return needed <= len(self.pool.free) - watermark

    def gate_tokens(self, request: Request, first_chunk_end: int) -> int:
        if self.settings.scheduler_reserve_full_isl:
            return request.num_tokens
        return first_chunk_end

    # Section 13: requests that end early

    def queues(self) -> tuple[list[Request], ...]:
        return (self.running, self.waiting, self.receiving, self.received, self.sending)

    def everyone(self) -> list[Request]:
        return [request for queue in self.queues() for request in queue]

    def abort(self, request: Request) -> None:
        """13.5."""
        for queue in self.queues():
            if request in queue:
                queue.remove(request)
        self.pool.give_back(request.held)
        request.held, request.gone = [], True

    # Section 12: from prefill to decode engines

    def reserve(self, request: Request) -> bool:
        """12.5."""
        hits = self.look_up(request)
        idle_hits = sum(self.pool.holders[block] == 0 for block in hits)
        new = self.blocks_required(request.num_tokens) - len(hits)
        watermark = self.settings.watermark_blocks if self.running else 0
        if new + idle_hits > len(self.pool.free) - watermark:
            return False
        self.pool.hold_found(hits)
        request.held = [*hits, *self.pool.take_new(new)]
        request.computed = request.num_tokens - 1
        request.remote = False
        self.receiving.append(request)
        tokens = request.computed - len(hits) * self.settings.block_size
        self.reserved.append((request, tokens))
        return True

    def receive(self, request: Request) -> None:
        """12.6, 12.7."""
        self.receiving.remove(request)
        self.register(request, request.computed)
        self.received.append(request)
        if self.settings.scheduling_policy == "priority":
            self.received.sort(key=lambda r: (r.priority, r.arrival, r.number))

    def sent(self, request: Request) -> None:
        """12.6: the prefill engine gives the blocks back."""
        self.sending.remove(request)
        self.pool.give_back(request.held)
        request.held = []

    # Section 6: output

    def leave(self, request: Request) -> None:
        if request.hands_over:  # 12.3
            self.running.remove(request)
            self.sending.append(request)
            return
        if request in self.waiting:  # 5.6: preempted while its last token was on its way
            self.waiting.remove(request)
        else:
            self.running.remove(request)
        self.pool.give_back(request.held)
        request.held = []

    # Section 7: static and windowed batches

    def open_batch(self, now_ns: int) -> None:
        settings = self.settings
        if settings.batching_strategy == "continuous" or self.running or not self.waiting:
            return
        if settings.batching_strategy == "windowed" and not (
            len(self.waiting) >= settings.max_num_seqs or now_ns >= self.window_closes_ns()
        ):
            return
        self.quota = min(len(self.waiting), settings.max_num_seqs)

    def window_closes_ns(self) -> int:
        first = min(request.joined_ns for request in self.waiting)
        return first + self.settings.batch_window_ns

    # Section 9: prefix caching

    def content(self, request: Request, index: int) -> Content:
        """The labels of a request's blocks up to ``index``; unnamed ones are its own."""
        own = [
            ("own", request.number, request.life, i) for i in range(len(request.blocks), index + 1)
        ]
        return (*request.blocks[: index + 1], *own)

    def look_up(self, request: Request) -> list[int]:
        if not self.settings.enable_prefix_caching:
            return []
        count = self.findable_blocks(request)
        return self.pool.find(self.content(request, index) for index in range(count))

    def findable_blocks(self, request: Request) -> int:
        """9.2: at least one token is computed even on a whole hit."""
        return (request.num_tokens - 1) // self.settings.block_size

    def register_when_taken(self, request: Request, end: int) -> None:
        """9.3: before the tokens are computed, as far as they are known."""
        self.register(request, min(end, request.known_tokens))

    def register_after_output(self, request: Request) -> None:
        """9.3: what generated tokens complete; synchronously it is registered already."""
        self.register(request, request.computed - request.flying)

    def register(self, request: Request, tokens: int) -> None:
        if self.settings.enable_prefix_caching:
            for index in range(tokens // self.settings.block_size):
                if request.held[index] not in self.pool.content:
                    self.pool.register(request.held[index], self.content(request, index))

    # Invariants

    def check(self, decision: Decision) -> None:
        settings = self.settings
        assert len(self.running) <= settings.max_num_seqs
        assert sum(n for _, _, n in decision.rows) <= settings.max_num_batched_tokens
        assert all(n > 0 for _, _, n in decision.rows)
        assert len({id(row[0]) for row in decision.rows}) == len(decision.rows)
        assert all(request.computed == 0 and not request.held for request in self.waiting)
        for request in (*self.running, *self.sending):
            assert len(request.held) == blocks_for(request.computed, settings.block_size)
        elsewhere = (*self.sending, *self.receiving, *self.received)
        self.pool.check([request.held for request in (*self.running, *elsewhere)])
