"""What a measurement is: points asked for, what came out, and the file that holds them.

A file of points is JSON lines: a header (:class:`BenchmarkHeader`) and a :class:`BenchmarkPoint` a
line. Units are in the names.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llm_inference_simulator.sections import Count, NonNegativeReal, Section, WholeNumber

SCHEMA_VERSION = 1

PointKind = Literal["prefill", "decode", "mixed"]
RunnerName = Literal["offline", "server"]


class PlannedPoint(Section):
    """A point to measure.

    ``prefill``: ``batch_size`` prompts of ``prompt_tokens``, each on ``context_tokens`` computed
    before. ``decode``: ``batch_size`` requests that each read ``context_tokens``. ``mixed``: a
    prompt of ``prompt_tokens`` joins that decode.
    """

    kind: PointKind
    batch_size: Count
    prompt_tokens: WholeNumber = 0
    context_tokens: WholeNumber = 0

    @model_validator(mode="after")
    def _has_work(self) -> Self:
        if self.kind != "decode" and self.prompt_tokens < 1:
            raise ValueError(f"prompt_tokens={self.prompt_tokens}: a {self.kind} point needs some")
        if self.kind != "prefill" and self.context_tokens < 1:
            raise ValueError(f"context_tokens={self.context_tokens}: {self.kind} reads some")
        return self

    @property
    def key(self) -> str:
        """Names the point in files: equal points have equal keys."""
        text = json.dumps(self.model_dump(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class RequestTiming(Section):
    """A request that a server answered, as its client saw it."""

    prompt_tokens: Count
    output_tokens: Count
    start_s: float
    """Seconds after the first request of the repeat was sent."""
    ttft_ms: NonNegativeReal
    gaps_ms: tuple[NonNegativeReal, ...]
    """Between the answer's parts; a gap a token where the server sends each by itself."""


class BenchmarkPoint(Section):
    """A point that was measured: steps (offline) or requests (server), repeat by repeat."""

    point: PlannedPoint
    steps: tuple[dict[str, Any], ...] = ()
    """Engine steps in the format of step logs, all repeats one after the other."""
    requests: tuple[tuple[RequestTiming, ...], ...] = ()
    """Answered requests of each repeat."""
    failures: dict[str, Count] = Field(default_factory=dict)
    """Requests that failed, by kind."""
    median_ms: NonNegativeReal | None = None
    """Of the steps, or of the requests' gaps (decode) or TTFT (prefill); None: all failed."""
    spread: NonNegativeReal | None = None
    """Interquartile range over the median."""
    outliers: WholeNumber = 0
    """Values more than five interquartile ranges from the median."""
    load_average: NonNegativeReal | None = None
    """Of the machine when the point ended; None: the system does not tell."""

    @property
    def has_data(self) -> bool:
        """Whether anything came out; a point whose requests all failed is still to be measured."""
        return bool(self.steps or self.requests)


class BenchmarkHeader(Section):
    """What all points of a file have in common."""

    type: Literal["header"] = "header"
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    runner: RunnerName
    model: str
    xpu: str
    tensor_parallel_size: Count = 1
    engine: dict[str, Any] = Field(default_factory=dict)
    """Settings of the engine, in the keys of step logs."""
    environment: dict[str, Any] = Field(default_factory=dict)

    def same_subject(self, other: BenchmarkHeader) -> str | None:
        """Name the first field in which another file's subject differs; None: the same."""
        for name in ("runner", "model", "xpu", "tensor_parallel_size", "engine"):
            if getattr(self, name) != getattr(other, name):
                return name
        return None


class BenchmarkData(Section):
    """A file of points."""

    header: BenchmarkHeader
    points: tuple[BenchmarkPoint, ...]
