"""Workloads of any size, piece by piece: the same requests as in one piece.

Every column is drawn from a stream of its own, in order, so pieces only cut the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.arrivals import Pieces
from llm_inference_simulator.workload.build import (
    DEFAULT_NUM_PROMPTS,
    arrivals_of,
    clipped_lengths,
    describe_lengths,
    length_pool,
    nothing_arrives,
    output_drawer,
    prompt_drawer,
    sped_up,
    too_few,
    with_prefix,
    without_effect,
)
from llm_inference_simulator.workload.columns import Int64Array, Workload, describe_span
from llm_inference_simulator.workload.lengths import empirical_lengths
from llm_inference_simulator.workload.streams import Stream, stream
from llm_inference_simulator.workload.traces import resolve
from llm_inference_simulator.workload.traces.pieces import TracePieces
from llm_inference_simulator.workload_config import WorkloadConfig

PIECE_ROWS = 65_536
"""Requests of a piece: a few megabytes, and a few dozen milliseconds of simulation."""

MOST_REQUESTS = 2**32 - 2
"""Requests are numbered in 32 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class RequestPiece:
    """Requests that follow one another, in columns as those of a ``Workload``."""

    arrival_ns: Int64Array
    prompt_tokens: Int64Array
    output_tokens: Int64Array

    def __len__(self) -> int:
        return len(self.arrival_ns)


class RequestStream:
    """Requests piece by piece; what is known of all of them only at the end.

    ``count``, ``duration_ns``, ``description`` and ``warnings`` are complete behind the last piece.
    """

    def __init__(self, config: WorkloadConfig, seed: int, rows_a_piece: int | None = None) -> None:
        refuse_what_needs_all(config)
        self.common_prefix_tokens = config.random_prefix_len
        self.count = 0
        self.duration_ns = 0
        self.last_arrival_ns = 0
        self._config = config
        self._seed = seed
        self._rows = PIECE_ROWS if rows_a_piece is None else rows_a_piece
        self._warnings: tuple[str, ...] = ()
        self._source = ""

    @property
    def expected(self) -> int | None:
        """About how many requests there will be; None where only the trace knows."""
        config = self._config
        if config.trace is not None:
            return config.num_prompts
        seconds, rate = config.arrival_seconds, config.request_rate
        if config.rate_stages is not None:
            total = sum(rate * seconds for rate, seconds in config.rate_stages)
        elif seconds is None or rate is None:
            total = config.num_prompts or (DEFAULT_NUM_PROMPTS if seconds is None else math.inf)
        else:
            total = rate * seconds
        total = min(total, config.num_prompts or math.inf)
        return None if math.isinf(total) else max(1, round(total))

    @property
    def description(self) -> str:
        """One line for the summary."""
        return f"{self._source}: {describe_span(self.count, self.duration_ns)}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must know before trusting results of this workload."""
        return (*self._warnings, *without_effect(self._config))

    def pieces(self) -> Iterator[RequestPiece]:
        """All requests, once; raises :class:`WorkloadError`."""
        pieces = self._generated() if self._config.trace is None else self._traced()
        for piece in pieces:
            self.count += len(piece)
            self.last_arrival_ns = int(piece.arrival_ns[-1])
            yield RequestPiece(
                piece.arrival_ns,
                with_prefix(piece.prompt_tokens, self.common_prefix_tokens),
                piece.output_tokens,
            )
        if not self.count:
            raise WorkloadError(nothing_arrives(self._config))

    def _generated(self) -> Iterator[RequestPiece]:
        config, seed = self._config, self._seed
        pairs = pool = None
        if config.lengths_from is not None:
            pool = length_pool(config, seed)
            pairs = stream(seed, Stream.LENGTH_PAIRS)
            self._warnings = pool.warnings
            self._source = f"lengths drawn from {config.lengths_from}"
        else:
            draw_prompts, draw_outputs = prompt_drawer(config, seed), output_drawer(config, seed)
            self._source = describe_lengths(config)
        arrivals = arrivals_of(
            config, seed, config.num_prompts, most=MOST_REQUESTS, piece=self._rows
        )
        for times in self._cut(arrivals):
            if pool is not None and pairs is not None:
                lengths = empirical_lengths(
                    pairs, len(times), pool.prompt_tokens, pool.output_tokens
                )
            else:
                lengths = draw_prompts(len(times)), draw_outputs(len(times))
            yield RequestPiece(times, *lengths)

    def _cut(self, arrivals: Pieces) -> Iterator[Int64Array]:
        """Arrivals in pieces of this stream's size, and the length of their period."""
        while True:
            try:
                times = next(arrivals)
            except StopIteration as end:
                self.duration_ns = end.value
                return
            for start in range(0, len(times), self._rows):
                yield times[start : start + self._rows]

    def _traced(self) -> Iterator[RequestPiece]:
        """As the whole trace is replayed: sped up, cut to the duration, then to the count."""
        config = self._config
        assert config.trace is not None
        self._source = config.trace
        trace = TracePieces(resolve(config.trace), config.trace_format, self._rows)
        asked_ns = None if config.duration is None else round(config.duration * 1e9)
        cut_by_duration = cut_by_count = False
        cuts = [0, 0]
        for arrivals, prompts, outputs in trace:
            times = sped_up(arrivals, config.trace_speedup)
            kept = len(times)
            if asked_ns is not None:
                kept = int(np.searchsorted(times, asked_ns, side="left"))
                cut_by_duration = kept < len(times)
            left = None if config.num_prompts is None else config.num_prompts - self.count
            if left is not None and left <= kept:
                kept, cut_by_count, cut_by_duration = left, True, False
            if kept:
                longest = (config.max_input_length, config.max_output_length)
                lengths = prompts[:kept], outputs[:kept]
                clipped = [clipped_lengths(*each) for each in zip(lengths, longest, strict=True)]
                cuts = [cut + more for cut, (_, more) in zip(cuts, clipped, strict=True)]
                self.duration_ns = int(times[kept - 1])
                yield RequestPiece(times[:kept], clipped[0][0], clipped[1][0])
            if cut_by_duration or cut_by_count:
                break
        self._finish_trace(trace, cuts, asked_ns if cut_by_duration else None, cut=cut_by_count)

    def _finish_trace(
        self, trace: TracePieces, cuts: list[int], asked_ns: int | None, *, cut: bool
    ) -> None:
        """Collect what is known at the end of a trace, or where it was cut."""
        config = self._config
        warnings = list(trace.warnings)
        if asked_ns is not None:
            self.duration_ns = asked_ns
        elif not cut:
            if config.duration is not None:
                warnings.append(
                    f"duration={config.duration:g} s is longer than the trace, which lasts "
                    f"{self.duration_ns / 1e9:.6g} s"
                )
            warnings += too_few(config, self.count)
        warnings += [
            f"{count:,} {kind} lengths of the trace were cut to max_{kind}_length="
            f"{getattr(config, f'max_{kind}_length')}"
            for kind, count in zip(("input", "output"), cuts, strict=True)
            if count
        ]
        self._warnings = tuple(warnings)


def empty_workload(config: WorkloadConfig) -> Workload:
    """A workload whose requests will follow."""
    none = np.zeros(0, dtype=np.int64)
    return Workload(
        arrival_ns=none,
        prompt_tokens=none,
        output_tokens=none,
        max_concurrency=config.max_concurrency,
        duration_ns=0,
        description="",
    )


def refuse_what_needs_all(config: WorkloadConfig) -> None:
    """Raise :class:`WorkloadError` for workloads that cannot be made piece by piece."""
    reasons = (
        ("classes", bool(config.classes), "classes are merged as wholes"),
        ("session_turns", config.session_turns is not None, "turns wait for answers"),
        (
            "random_prompts_per_prefix",
            config.random_prompts_per_prefix is not None,
            "repeated prompts are compared with all others",
        ),
        (
            "random_num_prefixes",
            config.random_num_prefixes > 1,
            "only one prefix, common to all requests, is known beforehand",
        ),
        (
            "request_rate",
            config.trace is not None and config.request_rate is not None,
            "new times of a trace depend on its length",
        ),
    )
    for field, given, why in reasons:
        if given:
            value = "given" if field == "classes" else getattr(config, field)
            raise WorkloadError(
                f"{field}={value} is not possible with --streaming (measurement.streaming): {why}; "
                "leave one of them out"
            )
