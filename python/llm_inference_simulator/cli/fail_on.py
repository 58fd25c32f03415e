"""``--fail-on``: conditions on a result that make the program exit with code 3."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_inference_simulator.errors import ConfigError, unknown_name

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_CONDITION = re.compile(r"\s*([A-Za-z_][\w.]*)\s*(>=|<=|>|<)\s*(\S+)\s*")

_TOTALS = (
    "duration",
    "completed",
    "failed",
    "total_input_tokens",
    "total_output_tokens",
    "request_throughput",
    "output_throughput",
    "total_token_throughput",
)
_WITH_GOODPUT = ("request_goodput", "slo_attainment")
_LATENCIES = ("ttft", "tpot", "itl", "e2el")


@dataclass(frozen=True, slots=True)
class Condition:
    """A metric of the result JSON compared with a number."""

    metric: str
    operator: str
    limit: float

    def violation(self, summary: Mapping[str, Any]) -> str | None:
        """Say that the condition holds, or None.

        An undefined metric counts as holding: a gate must not pass because nothing was measured.
        """
        value = summary[self.metric]
        condition = f"{self.metric} {self.operator} {self.limit:g}"
        if value is None:
            return f"--fail-on {condition}: {self.metric} is undefined, nothing was measured"
        if _OPERATORS[self.operator](value, self.limit):
            return f"--fail-on {condition} holds: {self.metric} is {value:g}"
        return None


def parse_conditions(
    texts: Sequence[str], *, percentile_names: Sequence[str], goodput: bool
) -> list[Condition]:
    """Read conditions and check their metrics before the run.

    ``percentile_names`` are those of the run (``p99``); ``goodput`` says whether it has objectives.
    """
    known = list(_TOTALS)
    known += [
        f"{name}_{metric}_ms"
        for metric in _LATENCIES
        for name in ("mean", "median", "std", *percentile_names)
    ]
    return [_parse(text, known, goodput=goodput) for text in texts]


def _parse(text: str, known: list[str], *, goodput: bool) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"--fail-on {text!r} is not METRIC OPERATOR NUMBER: write it as in 'p99_ttft_ms>500' "
            "(operators > >= < <=; quote it for the shell)"
        )
    metric, sign, limit = match.groups()
    if metric in _WITH_GOODPUT:
        if not goodput:
            raise ConfigError(f"--fail-on {text!r}: {metric} needs objectives: give --goodput")
    elif metric not in known:
        remedy = ""
        percentile = re.fullmatch(r"p(\d+(?:\.\d+)?)_(?:ttft|tpot|itl|e2el)_ms", metric)
        if percentile:
            remedy = f"(add {percentile[1]} to --metric-percentiles)"
        choices = [*known, *_WITH_GOODPUT]
        raise ConfigError(unknown_name("--fail-on metric", metric, choices, remedy=remedy))
    return Condition(metric, sign, _limit(text, limit))


def _limit(text: str, limit: str) -> float:
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    # NaN compares false with everything: the condition could never hold.
    if math.isnan(number):
        raise ConfigError(f"--fail-on {text!r}: {limit!r} is not a number")
    return number
