"""The workload of a configuration: which requests arrive, when, and what they are like."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llm_inference_simulator.rate_schedule import RateSchedule
from llm_inference_simulator.sections import (
    LONGEST_S,
    Count,
    Duration,
    GoodputMetric,
    Length,
    NonNegativeReal,
    PositiveOrInf,
    PositiveReal,
    Ratio,
    Seconds,
    Section,
    WholeNumber,
)

Stages = Annotated[tuple[tuple[NonNegativeReal, Duration], ...], Field(min_length=1)]

TraceFormat = Literal[
    "auto", "azure", "mooncake", "burstgpt", "sharegpt", "servegen", "vidur", "vllm-bench"
]

MOST_TURNS = 10_000
MOST_CALLS = 1_000
"""A session of both mean lengths still fits memory many times."""
SESSION_FIELDS = (
    "session_distribution",
    "think_time",
    "think_time_distribution",
    "tool_calls_per_turn",
    "tool_call_time",
    "tool_call_time_distribution",
    "tool_result_len",
)
LOAD_FIELDS = (
    "request_rate",
    "burstiness",
    "num_prompts",
    "duration",
    "rate_stages",
    "rate_schedule",
)
"""What says when and how many requests arrive; all else says what they are like."""


class RequestsConfig(Section):
    """Requests of one kind: when they arrive, and what they are like."""

    request_rate: PositiveOrInf | None = None
    """Requests per second; inf: all at once; None: the trace's own times, or all at once."""
    burstiness: PositiveOrInf = 1.0
    """Shape of gamma-distributed gaps: 1 is Poisson, below it burstier, inf constant gaps."""
    num_prompts: Count | None = None
    """Number of requests; None: 1,000, or what ``duration``, ``rate_stages`` or the trace gives."""
    duration: Duration | None = None
    """Seconds in which requests arrive; a trace is cut there."""
    rate_stages: Stages | None = None
    """Load in stages: (requests per second, seconds) of each; a rate of 0 is a pause."""
    rate_schedule: RateSchedule | None = None
    """A rate that changes with time, instead of ``request_rate``; ends with ``duration``."""

    session_turns: Annotated[float, Field(ge=1, le=MOST_TURNS, allow_inf_nan=False)] | None = None
    """Mean turns of a multi-turn session, each continuing the one before; None: no sessions.
    Rates and ``num_prompts`` count requests all the same, not sessions."""
    session_distribution: Literal["fixed", "geometric"] = "fixed"
    """How turns (of a session) and tool calls (of a turn) are spread around their means."""
    think_time: Seconds = 0.0
    """Mean seconds from an answer until the session's next turn is sent."""
    think_time_distribution: Literal["exponential", "fixed"] = "exponential"
    tool_calls_per_turn: Annotated[float, Field(ge=0, le=MOST_CALLS, allow_inf_nan=False)] = 0.0
    """Mean answers of a turn that call a tool, each followed by a request with its result."""
    tool_call_time: Seconds = 0.0
    """Mean seconds from such an answer until the tool's result is sent."""
    tool_call_time_distribution: Literal["exponential", "fixed"] = "exponential"
    tool_result_len: Count | None = None
    """Tokens that a tool's result adds to the prompt; None: as many as a user's turn."""

    random_input_len: Count = 1024
    random_output_len: Count = 128
    random_range_ratio: Ratio = 0.0
    """Lengths are uniform in [len * (1 - ratio), len * (1 + ratio)], as in vLLM."""
    random_prefix_len: WholeNumber = 0
    """Tokens of a shared prefix before each prompt."""
    random_num_prefixes: Count = 1
    """Different prefixes; each request has one of them, all equally likely."""
    random_prompts_per_prefix: Count | None = None
    """Different prompts for each prefix, asked again and again; None: every prompt is new."""
    random_prompt_order: Literal["random", "cyclic"] = "random"
    """Which of them comes next: any, or each in turn, in an order that is drawn once."""

    avg_input_length: Length | None = None
    """Mean of log-normal prompt lengths (given, it replaces ``random_input_len``)."""
    max_input_length: Count | None = None
    avg_output_length: Length | None = None
    """Mean of log-normal output lengths (given, it replaces ``random_output_len``)."""
    max_output_length: Count | None = None

    trace: str | None = None
    """A trace file or the name of a shipped one: arrival times and lengths."""
    trace_format: TraceFormat = "auto"
    trace_block_size: Count = 512
    """Tokens that one hash id of a trace stands for."""
    trace_speedup: PositiveReal = 1.0
    lengths_from: str | None = None
    """A trace whose (prompt, output) pairs are drawn at random; ``request_rate`` sends them."""

    @property
    def arrival_seconds(self) -> float | None:
        """Configured length of the arrival period; None where a count or a trace ends it."""
        if self.rate_stages is not None:
            return sum(seconds for _, seconds in self.rate_stages)
        if self.duration is None and self.rate_schedule is not None:
            return self.rate_schedule.seconds
        return self.duration

    @property
    def requests_per_session(self) -> float:
        """Mean; 1 without sessions."""
        turns = 1.0 if self.session_turns is None else self.session_turns
        return turns * (1 + self.tool_calls_per_turn)

    def with_load_times(self, factor: float) -> Self:
        """The same with all rates ``factor`` times as high."""
        if factor == 1:
            return self
        load: dict[str, Any] = {}
        if self.request_rate is not None:
            load["request_rate"] = self.request_rate * factor
        if self.rate_stages is not None:
            load["rate_stages"] = tuple((rate * factor, time) for rate, time in self.rate_stages)
        if self.rate_schedule is not None:
            load["rate_schedule"] = self.rate_schedule.times(factor)
        return self.model_copy(update=load)

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        if self.rate_stages is not None:
            self._refuse_beside("rate_stages", "request_rate", "duration", "trace", "rate_schedule")
            if not any(rate for rate, _ in self.rate_stages):
                raise ValueError("rate_stages: every rate is 0, so no request arrives; raise one")
        if self.rate_schedule is not None:
            self._refuse_beside("rate_schedule", "request_rate", "trace")
            if self.burstiness != 1.0:
                raise ValueError(
                    f"burstiness={self.burstiness} and rate_schedule are both given: a rate that "
                    "changes with time makes Poisson arrivals; leave one out"
                )
            if self.arrival_seconds is None:
                raise ValueError(
                    f"rate_schedule of kind {self.rate_schedule.kind} has no end: give duration"
                )
        total = self.arrival_seconds
        if total is not None and total > LONGEST_S:
            raise ValueError(
                f"rate_stages last {total:g} s together: at most {LONGEST_S:g} s; shorten them"
            )
        return self

    def _refuse_beside(self, clock: Literal["rate_stages", "rate_schedule"], *fields: str) -> None:
        for field in fields:
            value = getattr(self, field)
            if value is not None:
                shown = field if isinstance(value, Section) else f"{field}={value}"
                says = "stages say" if clock == "rate_stages" else "a schedule says"
                raise ValueError(
                    f"{shown} and {clock} are both given: {says} when requests arrive; leave one "
                    "out"
                )

    @model_validator(mode="after")
    def _sessions_fit(self) -> Self:
        if self.session_turns is None:
            for field in SESSION_FIELDS:
                value = getattr(self, field)
                if value != type(self).model_fields[field].default:
                    raise ValueError(
                        f"{field}={value} describes generated sessions: give session_turns too (1 "
                        "for sessions of one turn)"
                    )
            return self
        if self.trace is not None:
            raise ValueError(
                f"session_turns={self.session_turns} generates sessions, but a trace has its own: "
                "leave one out"
            )
        if self.random_prompts_per_prefix is not None:
            raise ValueError(
                f"random_prompts_per_prefix={self.random_prompts_per_prefix} repeats prompts, but "
                f"those of sessions (session_turns={self.session_turns}) grow: leave one out"
            )
        for field in ("session_turns", "tool_calls_per_turn"):
            value = getattr(self, field)
            if self.session_distribution == "fixed" and value != int(value):
                raise ValueError(
                    f"{field}={value} is not whole: give session_distribution=geometric, or a "
                    "whole number"
                )
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        lengths = [
            name
            for name, given in (
                ("trace", self.trace is not None),
                ("lengths_from", self.lengths_from is not None),
                ("avg_input_length or avg_output_length", self._is_log_normal),
                ("random_*_len", bool(self._random_fields_set())),
            )
            if given
        ]
        if len(lengths) > 1:
            raise ValueError(
                f"lengths come from one source, but {' and '.join(lengths)} are given: leave all "
                "but one out"
            )
        if self.random_prompts_per_prefix is not None or self.random_num_prefixes > 1:
            self._check_prefixes()
        if self.random_prompt_order != "random" and self.random_prompts_per_prefix is None:
            raise ValueError(
                f"random_prompt_order={self.random_prompt_order!r} needs "
                "random_prompts_per_prefix: without it every prompt is new"
            )
        if self.trace is None and self.lengths_from is None and self.trace_format != "auto":
            raise ValueError(
                f"trace_format={self.trace_format!r} needs a trace: give one or leave it out"
            )
        if self.trace is None and self.trace_speedup != 1.0:
            raise ValueError(
                f"trace_speedup={self.trace_speedup} needs a trace: for generated arrivals raise "
                "request_rate instead"
            )
        if self._duration_is_idle and self.request_rate in (None, math.inf):
            raise ValueError(
                f"duration={self.duration} needs a finite request_rate: all requests arrive at "
                "once without one, so give request_rate or num_prompts"
            )
        for kind in ("input", "output"):
            average = getattr(self, f"avg_{kind}_length")
            longest = getattr(self, f"max_{kind}_length")
            if average is None and longest is not None and self.trace is None:
                raise ValueError(
                    f"max_{kind}_length={longest} needs avg_{kind}_length (log-normal lengths)"
                )
            if average is not None and longest is not None and average > longest:
                raise ValueError(f"avg_{kind}_length={average} exceeds max_{kind}_length={longest}")
        return self

    @property
    def _duration_is_idle(self) -> bool:
        """Whether a duration means something only with a rate."""
        return self.duration is not None and self.trace is None and self.rate_schedule is None

    def _check_prefixes(self) -> None:
        field = (
            "random_num_prefixes" if self.random_num_prefixes > 1 else "random_prompts_per_prefix"
        )
        source = "trace" if self.trace is not None else "lengths_from"
        if self.trace is not None or self.lengths_from is not None:
            raise ValueError(
                f"{field}={getattr(self, field)} needs generated prompts, but {source} gives their "
                "lengths: leave one out"
            )
        if self.random_num_prefixes > 1 and not (
            self.random_prefix_len or self.random_prompts_per_prefix
        ):
            raise ValueError(
                f"random_num_prefixes={self.random_num_prefixes} needs random_prefix_len: give the "
                "length of the prefixes"
            )

    @property
    def _is_log_normal(self) -> bool:
        return self.avg_input_length is not None or self.avg_output_length is not None

    def _random_fields_set(self) -> set[str]:
        # A value equal to its default counts as not given: a complete dump must load again.
        fields = {
            name
            for name in ("random_input_len", "random_output_len", "random_range_ratio")
            if getattr(self, name) != type(self).model_fields[name].default
        }
        if self._is_log_normal:
            # One side log-normal and the other fixed is a sensible mixture.
            if self.avg_input_length is None:
                fields.discard("random_input_len")
            if self.avg_output_length is None:
                fields.discard("random_output_len")
        return fields


class WorkloadClass(RequestsConfig):
    """One of several kinds of requests that share a cluster, with its own objectives."""

    name: Annotated[str, Field(min_length=1)]
    share: PositiveReal | None = None
    """Of the workload's requests, relative to the other classes' shares; None: the class has a
    load of its own."""
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    """Of all its requests, lower first; None: a trace's own, else 0."""
    goodput: dict[GoodputMetric, PositiveReal] = Field(default_factory=dict)
    """Its objectives in milliseconds; none: those of the measurement."""

    @model_validator(mode="after")
    def _one_load(self) -> Self:
        given = _fields_set(self, LOAD_FIELDS)
        if self.share is not None and (given or self.trace is not None):
            raise ValueError(
                f"share={self.share} and {given[0] if given else 'trace'} are both given: a class "
                "has a share of the workload's requests or a load of its own; leave one out"
            )
        return self


class WorkloadConfig(RequestsConfig):
    """All requests of a simulation."""

    max_concurrency: Count | None = None
    """Closed loop: a request is sent only when fewer than this many are unanswered."""
    classes: tuple[WorkloadClass, ...] = ()
    """Kinds of requests; none: one kind that the fields above describe."""

    @property
    def arrival_seconds(self) -> float | None:
        """As of one kind of requests; of several with loads of their own the longest."""
        if not self.classes or self.classes[0].share is not None:
            return super().arrival_seconds
        periods = [each.arrival_seconds for each in self.classes]
        known = [period for period in periods if period is not None]
        return max(known) if len(known) == len(periods) else None

    @model_validator(mode="after")
    def _classes_fit(self) -> Self:
        if not self.classes:
            return self
        names = [each.name for each in self.classes]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"classes: two are named {twice!r}: give each a name of its own")
        sharing = [each.name for each in self.classes if each.share is not None]
        if sharing and len(sharing) < len(names):
            alone = next(name for name in names if name not in sharing)
            raise ValueError(
                f"classes: {sharing[0]} has a share, {alone} has none: give all a share of the "
                "workload's requests, or each a load of its own (request_rate, trace, ...)"
            )
        theirs = [name for name in RequestsConfig.model_fields if name not in LOAD_FIELDS]
        misplaced = _fields_set(self, theirs if sharing else list(RequestsConfig.model_fields))
        if misplaced:
            raise ValueError(
                f"{misplaced[0]}={getattr(self, misplaced[0])} describes requests of one kind, but "
                "classes are given: set it in each class"
            )
        return self


def _fields_set(section: Section, names: Iterable[str]) -> list[str]:
    """Those that differ from their defaults: a complete dump must load again."""
    fields = type(section).model_fields
    return [name for name in names if getattr(section, name) != fields[name].default]
