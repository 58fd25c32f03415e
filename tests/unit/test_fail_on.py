"""Conditions of --fail-on."""

from __future__ import annotations

import pytest

from llm_inference_simulator.cli.fail_on import Condition, parse_conditions
from llm_inference_simulator.errors import ConfigError


def parse(text: str, *, goodput: bool = False) -> Condition:
    return parse_conditions([text], percentile_names=["p50", "p99"], goodput=goodput)[0]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("p99_ttft_ms>500", False),
        ("p99_ttft_ms>=500", True),
        ("p99_ttft_ms<500", False),
        (" p99_ttft_ms <= 5e2 ", True),
        ("failed>0", False),
    ],
)
def test_operators(text: str, holds: bool) -> None:
    summary = {"p99_ttft_ms": 500.0, "failed": 0}
    assert (parse(text).violation(summary) is not None) == holds


def test_an_undefined_metric_fails_the_gate() -> None:
    message = parse("mean_tpot_ms>50").violation({"mean_tpot_ms": None})
    assert message is not None
    assert "undefined" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p99_ttft_ms=500", "METRIC OPERATOR NUMBER"),
        ("p99_ttft_ms", "METRIC OPERATOR NUMBER"),
        ("p99_tftt_ms>1", "did you mean 'p99_ttft_ms'"),
        ("p95_ttft_ms>1", "add 95 to --metric-percentiles"),
        ("p99_ttft_ms>fast", "'fast' is not a number"),
        ("p99_ttft_ms>nan", "'nan' is not a number"),
        ("request_goodput<1", "give --goodput"),
    ],
)
def test_bad_conditions_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--fail-on") as caught:
        parse(text)
    assert message in str(caught.value)


def test_goodput_is_known_where_objectives_are_given() -> None:
    assert parse("slo_attainment<0.99", goodput=True).metric == "slo_attainment"
