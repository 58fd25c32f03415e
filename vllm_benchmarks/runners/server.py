"""Measure an engine behind any server that speaks OpenAI's streaming completions.

The number of requests sent at once sets the decode batch. A request that fails is counted by kind
and kept apart; the answered ones of the point stay.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_benchmarks.runners.sse_client import (
    Endpoint,
    RequestError,
    StreamedAnswer,
    stream_completion,
)
from vllm_benchmarks.runners.statistics import load_average, repeated
from vllm_benchmarks.schema import BenchmarkPoint, PlannedPoint, RequestTiming

_FIRST_TOKEN_ID = 10
"""Below are the special tokens of most vocabularies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRunner:
    """Sends the requests of points to an endpoint."""

    endpoint: Endpoint
    model: str
    """Name under which the server offers the model."""
    vocabulary: int
    repeats: int
    decode_steps: int
    seed: int = 0

    @staticmethod
    def measures(point: PlannedPoint) -> bool:
        """Whether a client can tell the point's steps apart: lone prompts, and pure decode."""
        if point.kind == "prefill":
            return point.batch_size == 1 and point.context_tokens == 0
        return point.kind == "decode"

    def warm_up(self, plan: Sequence[PlannedPoint]) -> str | None:
        """Send the largest batch once; returns what went wrong if nothing was answered."""
        largest = max(plan, key=lambda point: point.batch_size * point.context_tokens)
        answers = asyncio.run(self._repeat(largest, -1))
        failed = [answer for answer in answers if isinstance(answer, RequestError)]
        if len(failed) < len(answers):
            return None
        return f"{failed[0].kind}: {failed[0]}"

    def measure(self, point: PlannedPoint) -> BenchmarkPoint:
        """Send a point's requests, repeat by repeat."""
        answered: list[tuple[RequestTiming, ...]] = []
        failures: Counter[str] = Counter()
        for repeat in range(self.repeats):
            answers = asyncio.run(self._repeat(point, repeat))
            good = [answer for answer in answers if isinstance(answer, StreamedAnswer)]
            for answer in answers:
                if isinstance(answer, RequestError):
                    failures[answer.kind] += 1
            if good:
                start_s = min(answer.sent_s for answer in good)
                answered.append(tuple(_timing(answer, start_s) for answer in good))
        values = [
            value
            for requests in answered
            for request in requests
            for value in (request.gaps_ms if point.kind == "decode" else (request.ttft_ms,))
        ]
        told = repeated(values)
        return BenchmarkPoint(
            point=point,
            requests=tuple(answered),
            failures=dict(failures),
            median_ms=told and told.median,
            spread=told and told.spread,
            outliers=told.outliers if told else 0,
            load_average=load_average(),
        )

    async def _repeat(
        self, point: PlannedPoint, repeat: int
    ) -> list[StreamedAnswer | RequestError]:
        """All requests of a repeat at once."""
        requests = (self._request(point, repeat, index) for index in range(point.batch_size))
        return await asyncio.gather(*requests)

    async def _request(
        self, point: PlannedPoint, repeat: int, index: int
    ) -> StreamedAnswer | RequestError:
        body = self.body(point, repeat, index)
        try:
            answer = await stream_completion(self.endpoint, body)
            return _checked(answer, len(body["prompt"]), body["max_tokens"])
        except RequestError as failure:
            return failure

    def body(self, point: PlannedPoint, repeat: int, index: int) -> dict[str, Any]:
        """A request of exact lengths; no two prompts begin alike, so no cache can help."""
        dice = random.Random(f"{self.seed} {point.key} {repeat} {index}")
        length = point.prompt_tokens if point.kind == "prefill" else point.context_tokens
        last = max(_FIRST_TOKEN_ID, self.vocabulary - 1)
        tokens = 1 if point.kind == "prefill" else self.decode_steps
        return {
            "model": self.model,
            "prompt": [dice.randint(_FIRST_TOKEN_ID, last) for _ in range(length)],
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def _checked(answer: StreamedAnswer, prompt_tokens: int, asked: int) -> StreamedAnswer:
    """Fill in what the server did not say; refuse an answer of another length than asked."""
    if not answer.part_s:
        raise RequestError("empty", "the answer has no output")
    if answer.prompt_tokens is None:
        answer.prompt_tokens = prompt_tokens
    if answer.output_tokens is None:
        answer.output_tokens = len(answer.part_s)
    if answer.output_tokens != asked:
        raise RequestError("short", f"{answer.output_tokens} tokens instead of {asked}")
    return answer


def _timing(answer: StreamedAnswer, start_s: float) -> RequestTiming:
    parts = answer.part_s
    return RequestTiming(
        prompt_tokens=max(1, answer.prompt_tokens or 0),
        output_tokens=max(1, answer.output_tokens or 0),
        start_s=answer.sent_s - start_s,
        ttft_ms=1e3 * (parts[0] - answer.sent_s),
        gaps_ms=tuple(1e3 * (b - a) for a, b in itertools.pairwise(parts)),
    )


def report_failures(point: BenchmarkPoint) -> None:
    """Say on stderr what failed at a point."""
    if point.failures:
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(point.failures.items()))
        print(f"warning: {describe(point.point)}: failed requests: {told}", file=sys.stderr)


def describe(point: PlannedPoint) -> str:
    """A point in a few words."""
    parts = [f"{point.kind} {point.batch_size} x"]
    if point.prompt_tokens:
        parts.append(f"{point.prompt_tokens} prompt tokens")
    if point.context_tokens:
        parts.append(f"context {point.context_tokens}")
    return " ".join(parts)
