"""Generated multi-turn sessions and agentic chains: who continues whom, and after which thought."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.arrivals import to_ns
from llm_inference_simulator.workload.columns import (
    MAX_REQUESTS,
    MAX_TIME_NS,
    MAX_TOKENS,
    Int64Array,
)
from llm_inference_simulator.workload.streams import Stream, stream
from llm_inference_simulator.workload_config import RequestsConfig

TURNS, CALLS, THINK_TIMES, TOOL_TIMES = range(4)
"""Parts of the stream of sessions."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sessions:
    """Requests of sessions, one entry each, session after session in the order of their turns."""

    number: Int64Array
    """Of the session, from 0 on."""
    is_tool_result: NDArray[np.bool_]
    """Whether it carries a tool's result instead of what a user says."""
    think_ns: Int64Array
    """From the answer before in the session; 0 for the first request."""

    def __len__(self) -> int:
        return len(self.number)

    @property
    def count(self) -> int:
        """Number of sessions."""
        return int(self.number[-1]) + 1 if len(self) else 0

    def conversations(self, said: Int64Array, answers: Int64Array) -> Int64Array:
        """Prompt lengths of requests that add ``said`` tokens to what was said in the session."""
        total = np.cumsum(said + answers)
        before = np.concatenate([np.zeros(1, dtype=np.int64), total[:-1]])
        start = np.searchsorted(self.number, self.number, side="left")
        prompts: Int64Array = before - before[start] + said
        if prompts.max(initial=0) > MAX_TOKENS:
            raise WorkloadError(
                f"session_turns make prompts of {int(prompts.max()):,} tokens, more than "
                f"{MAX_TOKENS:,}: lower them or the lengths"
            )
        return prompts


def counted_sessions(config: RequestsConfig, seed: int, n_requests: int) -> Sessions:
    """As many sessions as ``n_requests`` take; the last one is cut there."""
    count = math.ceil(n_requests / config.requests_per_session)
    while True:
        sessions = draw_sessions(config, seed, count)
        # Streams are drawn from the beginning, so more sessions begin with the same ones.
        if len(sessions) >= n_requests:
            return first_requests(sessions, n_requests)
        count *= 2


def first_requests(sessions: Sessions, n: int) -> Sessions:
    """The first ``n`` requests."""
    return Sessions(
        number=sessions.number[:n],
        is_tool_result=sessions.is_tool_result[:n],
        think_ns=sessions.think_ns[:n],
    )


def draw_sessions(config: RequestsConfig, seed: int, count: int) -> Sessions:
    """Draw ``count`` whole sessions: turns, tool calls in each, and the times between.

    Raises :class:`WorkloadError` where there would be too many requests.
    """
    assert config.session_turns is not None
    if count * config.requests_per_session > MAX_REQUESTS:
        raise WorkloadError(
            f"session_turns={config.session_turns:g} make {count:,} sessions "
            f"{count * config.requests_per_session:.3g} requests, more than {MAX_REQUESTS:,}: "
            "lower it, the rate or the duration"
        )
    turns = _counts(config, seed, TURNS, config.session_turns - 1, count) + 1
    calls = _counts(config, seed, CALLS, config.tool_calls_per_turn, int(turns.sum()))
    session_of_turn = np.repeat(np.arange(count, dtype=np.int64), turns)
    number = np.repeat(session_of_turn, calls + 1)
    is_tool_result = np.ones(len(number), dtype=np.bool_)
    is_tool_result[np.cumsum(calls + 1) - (calls + 1)] = False
    think_ns = np.where(
        is_tool_result,
        _times(
            stream(seed, Stream.SESSIONS, TOOL_TIMES),
            config.tool_call_time,
            config.tool_call_time_distribution,
            len(number),
        ),
        _times(
            stream(seed, Stream.SESSIONS, THINK_TIMES),
            config.think_time,
            config.think_time_distribution,
            len(number),
        ),
    )
    is_first = np.diff(number, prepend=-1) > 0
    think_ns[is_first] = 0
    return Sessions(number=number, is_tool_result=is_tool_result, think_ns=think_ns)


def _counts(config: RequestsConfig, seed: int, part: int, mean: float, n: int) -> Int64Array:
    """Whole numbers from 0 on: ``mean`` each, or geometric with that mean."""
    if config.session_distribution == "fixed":
        return np.full(n, int(mean), dtype=np.int64)
    generator = stream(seed, Stream.SESSIONS, part)
    return generator.geometric(1 / (1 + mean), n).astype(np.int64) - 1


def _times(generator: np.random.Generator, mean_s: float, distribution: str, n: int) -> Int64Array:
    if distribution == "fixed":
        return np.full(n, int(to_ns(mean_s)), dtype=np.int64)
    drawn = mean_s * generator.standard_exponential(n)
    return to_ns(np.minimum(drawn, MAX_TIME_NS / 1e9))
