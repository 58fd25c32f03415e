"""The Rust core: event loop, vLLM V1 scheduling rules, KV cache and cost models."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CostModel",
    "EngineStats",
    "OperationCost",
    "Progress",
    "RouterEngines",
    "RouterRequest",
    "SchedulerReplay",
    "Simulation",
    "StepShape",
    "TokenGaps",
    "__version__",
]

__version__: str

@final
class StepShape:
    """What a cost model sees of a step: sums over its requests (docs/spec.md, section 8)."""

    def __new__(
        cls,
        *,
        prefill_seqs: int = 0,
        prefill_tokens: int = 0,
        prefill_attention_pairs: int = 0,
        prefill_context_tokens: int = 0,
        decode_seqs: int = 0,
        decode_context_tokens: int = 0,
        sampled_seqs: int = 0,
        prefill_window_pairs: int = 0,
        prefill_window_tokens: int = 0,
        decode_window_tokens: int = 0,
    ) -> StepShape: ...
    @staticmethod
    def prefill(
        batch_size: int,
        seq_length: int,
        cached_length: int = 0,
        attention_window: tuple[str, int] | None = None,
    ) -> StepShape:
        """A step of whole prompts, each on top of ``cached_length`` cached tokens.

        ``attention_window``: ("sliding" or "chunked", tokens).
        """

    @staticmethod
    def decode(
        batch_size: int, context_length: int, attention_window: tuple[str, int] | None = None
    ) -> StepShape:
        """A step of one token per sequence; ``context_length`` counts the new token."""

    @property
    def prefill_seqs(self) -> int: ...
    @property
    def prefill_tokens(self) -> int: ...
    @property
    def prefill_attention_pairs(self) -> int: ...
    @property
    def prefill_context_tokens(self) -> int: ...
    @property
    def decode_seqs(self) -> int: ...
    @property
    def decode_context_tokens(self) -> int: ...
    @property
    def sampled_seqs(self) -> int: ...
    @property
    def prefill_window_pairs(self) -> int: ...
    @property
    def prefill_window_tokens(self) -> int: ...
    @property
    def decode_window_tokens(self) -> int: ...

@final
class OperationCost:
    """One component of a step: what it computes, moves and takes."""

    @property
    def name(self) -> str: ...
    @property
    def operations(self) -> float:
        """Floating-point operations per accelerator."""

    @property
    def bytes(self) -> float:
        """Bytes of memory traffic (of link traffic where ``bound`` is "communication")."""

    @property
    def seconds(self) -> float: ...
    @property
    def bound(self) -> str:
        """What limits it: "compute", "memory", "communication", "latency" or "overhead"."""

    @property
    def linear(self) -> bool:
        """Whether it runs at the rate of the layers' matrices (else at that of attention)."""

    @property
    def provenance(self) -> str:
        """Its time is "measured", "interpolated", "fitted", "extrapolated" or "analytic"."""

@final
class CostModel:
    """What prices a step; immutable, shared by engines."""

    @staticmethod
    def fixed(
        step_ns: int,
        prefill_token_ns: int = 0,
        decode_seq_ns: int = 0,
        context_token_ns: int = 0,
        shared_token_ns: int = 0,
    ) -> CostModel:
        """Whole nanoseconds, linear in the step's sums (docs/spec.md, section 8).

        ``shared_token_ns`` counts the tokens of all engines that step together.
        """

    @staticmethod
    def roofline(composition: Any, hardware: Any) -> CostModel:
        """Operation-by-operation roofline.

        ``composition`` and ``hardware`` have the attributes of
        ``performance_models.composition.Composition`` and ``performance_models.hardware``'s
        ``RooflineHardware``.
        """

    @staticmethod
    def table(
        composition: Any, hardware: Any, decode_terms: Sequence[Any], mixed_terms: Sequence[Any]
    ) -> CostModel:
        """Measured kernels: the terms of pure decode steps, and of steps with prompt tokens.

        A term has the attributes of ``performance_models.kernel_terms.Term``.
        """

    @staticmethod
    def external(step_seconds: Callable[[StepShape], float]) -> CostModel:
        """A Python callable that gives seconds for a step."""

    def step_ns(self, step: StepShape) -> int: ...
    def group_step_ns(self, step: StepShape, group_tokens: int) -> int:
        """The step's time in a group whose engines, this one among them, have so many tokens."""

    def step_seconds(self, step: StepShape) -> float: ...
    def breakdown(self, step: StepShape) -> list[OperationCost]:
        """Components of a step; their seconds sum to ``step_seconds``.

        ValueError for fixed and external models, which have none.
        """

@final
class Progress:
    """Where a simulation stands."""

    @property
    def done(self) -> bool: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def arrived(self) -> int: ...
    @property
    def answered(self) -> int: ...
    @property
    def needs_requests(self) -> bool:
        """Nothing more happens in a streamed run before it is fed."""

    @property
    def steps(self) -> int: ...

@final
class RouterRequest:
    """A request that needs an engine."""

    @property
    def index(self) -> int: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def previous(self) -> int | None:
        """The request whose answer it continues."""

@final
class RouterEngines:
    """The engines that a router chooses from, by their places."""

    def __len__(self) -> int: ...
    def is_up(self, engine: int) -> bool:
        """Whether it takes requests; an error to choose it if not. IndexError beyond the last."""

    def outstanding(self, engine: int) -> int:
        """Requests that were routed there and are not answered; IndexError beyond the last."""

    def outstanding_tokens(self, engine: int) -> int:
        """Their prompt tokens and requested tokens together."""

@final
class EngineStats:
    """Totals of one engine over the whole run."""

    @property
    def steps(self) -> int: ...
    @property
    def dummy_steps(self) -> int:
        """Steps without a request, run because other engines of its group had some."""

    @property
    def preemptions(self) -> int: ...
    @property
    def busy_ns(self) -> int: ...
    @property
    def requests(self) -> int:
        """Requests routed to the engine."""

    @property
    def prefix_queries(self) -> int:
        """Tokens that requests looked up in the prefix cache on their first admission."""

    @property
    def prefix_hits(self) -> int:
        """Tokens that they found."""

    @property
    def used_blocks(self) -> int:
        """KV blocks in use now: 0 at the end of a run."""

    @property
    def peak_blocks(self) -> int:
        """Most KV blocks in use at once."""

    @property
    def total(self) -> StepShape:
        """The sums of all steps."""

    @property
    def operations(self) -> float:
        """Floating-point operations of all steps per accelerator (0 where the model has none)."""

    @property
    def bytes(self) -> float:
        """Memory traffic of all steps per accelerator (0 where the model has none)."""

@final
class TokenGaps:
    """Gaps between consecutive tokens, pooled over requests."""

    @property
    def count(self) -> int: ...
    def mean_and_deviation(self) -> tuple[float, float] | None:
        """(mean, population standard deviation) in nanoseconds; None without gaps."""

    def at_ranks(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The gaps (ns) of these ranks; 0 is the shortest. ValueError for a rank beyond them."""

@final
class Simulation:
    """A cluster and its workload, advanced slice by slice."""

    def __new__(
        cls,
        *,
        pools: Sequence[tuple[Any, CostModel | Sequence[CostModel], int]],
        router: str | Callable[[RouterRequest, RouterEngines], int],
        arrival_ns: NDArray[np.int64],
        prompt_tokens: NDArray[np.int64],
        output_tokens: NDArray[np.int64],
        max_concurrency: int | None = None,
        priority: NDArray[np.int64] | None = None,
        after: NDArray[np.int64] | None = None,
        think_ns: NDArray[np.int64] | None = None,
        block_offsets: NDArray[np.int64] | None = None,
        block_ids: NDArray[np.int64] | None = None,
        transfer: Any = None,
        fleet: Any = None,
        router_seed: int = 0,
        router_view_delay_ns: int = 0,
        router_imbalance: int = 32,
        request_latency_ns: int = 0,
        response_latency_ns: int = 0,
        record_steps: bool = False,
        record_decisions: bool = False,
        step_by_step: bool = False,
        streaming: int | None = None,
        common_blocks: int = 0,
        threads: int = 1,
    ) -> Simulation:
        """``pools``: (settings with the attributes of ``cluster.EngineSettings``, cost, count).
        An engine whose layers lie in several stages has a cost model for each.

        ``after[i]`` is the earlier request whose answer the client of request i waits for, or -1;
        ``think_ns[i]`` passes between the two.

        ``block_ids[block_offsets[i]:block_offsets[i + 1]]`` names the contents of request i's first
        blocks: equal numbers mean equal tokens up to the end of the block.

        ``transfer`` has the attributes of ``cluster.TransferSettings``; clusters of prefill and
        decode engines need it. ``fleet`` has those of ``cluster.FleetSettings``.

        ``streaming``: requests are fed while the run goes on, and rows taken out; the number is the
        warm-up in ns before which requests' token gaps are not counted. All requests begin with the
        same ``common_blocks`` blocks.

        ``threads``: engines behind a router that does not look at them run on so many threads;
        results do not depend on it.
        """

    def run_slice(self, max_events: int) -> Progress:
        """Process at most ``max_events`` events with the interpreter lock released."""

    def feed(
        self,
        arrival_ns: NDArray[np.int64],
        prompt_tokens: NDArray[np.int64],
        output_tokens: NDArray[np.int64],
        priority: NDArray[np.int64] | None = None,
        *,
        last: bool,
    ) -> None:
        """Append requests to a streamed run, none earlier than those before; ``last``: no others
        will follow. :class:`WorkloadError` for columns that do not fit.
        """

    def ended_rows(self) -> int:
        """Rows of a streamed run that are final and were not taken yet."""

    def take_rows(self, count: int) -> dict[str, NDArray[Any]]:
        """Take at most ``count`` final rows out of a streamed run, in the order of arrival: columns
        as those of ``request_columns``, and ``requested_output_tokens``.
        """

    def close_stream(self) -> None:
        """End a streamed run here: requests without an answer are final too."""

    def gap_histogram(self) -> tuple[NDArray[np.int64], int, int, int, int]:
        """Gaps between tokens (ns) of the completed requests of a streamed run: (counts by bucket,
        sum, sum of squares, least, most). Bucket 0 counts zeros, bucket i from 1 on the values from
        2**((i - 1) // 512) * (1 + (i - 1) % 512 / 512) on. ValueError for other runs.
        """

    def request_columns(self) -> dict[str, NDArray[Any]]:
        """The columns of docs/spec.md, section 11: int64, ``status`` uint8."""

    def step_columns(self) -> dict[str, NDArray[np.int64]]:
        """The step columns of docs/spec.md, section 11; only with ``record_steps``."""

    def decisions(
        self,
    ) -> tuple[
        dict[str, NDArray[np.int64]],
        dict[str, NDArray[np.int64]],
        dict[str, NDArray[np.int64]],
        NDArray[np.int64],
    ]:
        """Every scheduling decision, with ``record_decisions``: (log, steps, rows, preempted).

        ``log``: engine, call (0 add, 1 schedule, 2 update) and index (of the request, or of the
        step); ``steps``: ends of its rows and preempted requests, free, waiting, running;
        ``rows``: request, computed, tokens, yields, last.
        """

    def engine_stats(self) -> list[EngineStats]: ...
    def trace_hash(self) -> int:
        """64 bits over every step of every engine: equal runs have equal hashes."""

    def token_gaps(self, counted: NDArray[np.bool_]) -> TokenGaps:
        """Gaps between consecutive tokens of the completed requests where ``counted``."""

    def token_times(
        self, requests: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(times, offsets): those of the i-th request (ns) are times[offsets[i]:offsets[i+1]]."""

@final
class SchedulerReplay:
    """A scheduler without a clock, told when to schedule and when outputs arrive."""

    def __new__(
        cls, settings: Any, block_offsets: NDArray[np.int64], block_ids: NDArray[np.int64]
    ) -> SchedulerReplay:
        """``settings`` as in ``Simulation``; the blocks of all requests that will be added."""

    def add(self, request: int, prompt: int, max_tokens: int, priority: int, arrival: int) -> None:
        """Add request number ``request``; ValueError if the engine would refuse it."""

    def schedule(self) -> tuple[list[tuple[int, int, int]], list[int], int, int, int]:
        """(rows of (request, computed, tokens), preempted, free blocks, waiting, running)."""

    def update(self) -> tuple[list[int], list[int]]:
        """Process the oldest scheduled step: (requests that got a token, that finished)."""
