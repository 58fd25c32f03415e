"""Rates that change with time: as many requests in each interval as the rate's integral says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings

from llm_inference_simulator.cli.run_config import build_config
from llm_inference_simulator.cli.run_flags import build_run_parser
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload_config import WorkloadConfig

Integral = Callable[[float], float]


def build(seed: int = 0, /, **fields: Any) -> Workload:
    return build_workload(WorkloadConfig.parse(fields), seed)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[dict[str, Any], Integral]:
    """A schedule, and the requests that it makes up to a time (the rate's integral by hand)."""
    low, high = draw(st.floats(0.0, 50.0)), draw(st.floats(1.0, 100.0))
    period = draw(st.floats(3.0, 300.0))
    kind = draw(st.sampled_from(["diurnal", "ramp", "bursts"]))
    if kind == "diurnal":
        amplitude = min(low, high)

        def diurnal(t: float) -> float:
            turn = 2 * math.pi * t / period
            return high * t + amplitude * period / (2 * math.pi) * (1 - math.cos(turn))

        return {"kind": kind, "mean_rate": high, "amplitude": amplitude, "period": period}, diurnal
    if kind == "ramp":
        ends = draw(st.permutations([low, high]))

        def ramp(t: float) -> float:
            rising = min(t, period)
            slope = (ends[1] - ends[0]) / period
            return ends[0] * rising + slope * rising**2 / 2 + ends[1] * (t - rising)

        numbers = {"from_rate": ends[0], "to_rate": ends[1], "seconds": period}
        return {"kind": kind, **numbers}, ramp
    burst = draw(st.floats(0.05, 1.0)) * period

    def bursts(t: float) -> float:
        whole, rest = divmod(t, period)
        in_burst = whole * burst + min(rest, burst)
        return high * in_burst + low * (t - in_burst)

    numbers = {"base_rate": low, "burst_rate": high, "burst_seconds": burst, "period": period}
    return {"kind": kind, **numbers}, bursts


@hypothesis_settings(deadline=None)
@given(schedules(), st.integers(0, 2**32), st.floats(50.0, 900.0))
def test_intervals_hold_the_integral_of_the_rate(
    schedule: tuple[dict[str, Any], Integral], seed: int, duration: float
) -> None:
    fields, integral = schedule
    # A load without any request is refused, so enough of them are wanted.
    assume(integral(duration) > 40)
    workload = build(seed, rate_schedule=fields, duration=duration)
    assert workload.duration_ns == round(duration * 1e9)
    assert (np.diff(workload.arrival_ns) >= 0).all()
    edges = np.linspace(0, duration, 8)
    counts, _ = np.histogram(workload.arrival_ns / 1e9, edges)
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        expected = integral(end) - integral(start)
        # Six standard deviations of a Poisson number, and its longer tail where few are expected.
        assert abs(count - expected) <= 6 * math.sqrt(expected) + 12


def test_counts_vary_as_poisson_numbers_do() -> None:
    fields = {"kind": "bursts", "base_rate": 5, "burst_rate": 40, "burst_seconds": 1, "period": 2}
    workload = build(rate_schedule=fields, duration=8000.0)
    seconds = np.bincount(workload.arrival_ns // 10**9, minlength=8000)
    for counts, rate in ((seconds[::2], 40), (seconds[1::2], 5)):
        assert counts.mean() == pytest.approx(rate, abs=5 * (rate / 4000) ** 0.5)
        # The variance of a sample's variance is about (2 rate² + rate) / n.
        assert counts.var() == pytest.approx(rate, abs=5 * ((2 * rate**2 + rate) / 4000) ** 0.5)


def test_a_count_ends_the_schedule_and_changes_nothing_before() -> None:
    fields = {"kind": "diurnal", "mean_rate": 20, "amplitude": 20, "period": 60}
    whole = build(rate_schedule=fields, duration=300.0)
    cut = build(rate_schedule=fields, duration=300.0, num_prompts=1000)
    assert cut.arrival_ns.tolist() == whole.arrival_ns[:1000].tolist()
    assert cut.duration_ns == cut.arrival_ns[-1]


def test_a_ramp_lasts_as_long_as_it_rises_unless_said_otherwise() -> None:
    fields = {"kind": "ramp", "from_rate": 0, "to_rate": 50, "seconds": 40}
    assert build(rate_schedule=fields).duration_ns == 40 * 10**9
    assert build(rate_schedule=fields, duration=100.0).duration_ns == 100 * 10**9


def test_the_flag_gives_the_same_as_the_file() -> None:
    words = ["--model", "llama-7b", "--xpu", "gb10", "--rate-schedule"]
    flag = "bursts:base_rate=1,burst-rate=9,burst_seconds=10,period=60"
    parsed = build_run_parser("program").parse_all([*words, flag, "--duration", "300"])
    schedule = build_config(vars(parsed)).workload.rate_schedule
    assert schedule is not None
    given = {"base_rate": 1.0, "burst_rate": 9.0, "burst_seconds": 10.0, "period": 60.0}
    assert schedule.model_dump(exclude_none=True) == {"kind": "bursts", **given}
    with pytest.raises(ConfigError, match="'burst_rate' is not NAME=NUMBER"):
        build_run_parser("program").parse_all([*words, "bursts:burst_rate"])


RAMP = {"kind": "ramp", "from_rate": 0.0, "to_rate": 5.0, "seconds": 10.0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate_schedule": {"kind": "ramp", "from_rate": 1.0}}, "to_rate is missing"),
        ({"rate_schedule": {**RAMP, "period": 4.0}}, "period=4.0 is not of ramp"),
        ({"rate_schedule": {**RAMP, "to_rate": 0.0}}, "every rate is 0"),
        ({"rate_schedule": {**RAMP, "kind": "rampe"}}, "did you mean 'ramp'"),
        ({"rate_schedule": {**RAMP, "second": 4.0}}, "did you mean 'seconds'"),
        ({"rate_schedule": RAMP, "request_rate": 4.0}, "request_rate=4.0 and rate_schedule"),
        ({"rate_schedule": RAMP, "rate_stages": ((1.0, 5.0),)}, "rate_schedule and rate_stages"),
        ({"rate_schedule": RAMP, "trace": "azure-conv-2023"}, "trace=azure-conv-2023 and rate"),
        ({"rate_schedule": RAMP, "burstiness": 2.0}, "burstiness=2.0 and rate_schedule"),
        (
            {"rate_schedule": {"kind": "diurnal", "mean_rate": 2.0, "amplitude": 3.0}},
            "period is missing",
        ),
        (
            {"rate_schedule": {"kind": "diurnal", "mean_rate": 2, "amplitude": 3, "period": 9}},
            "amplitude=3.0 exceeds mean_rate=2.0",
        ),
        (
            {"rate_schedule": {"kind": "diurnal", "mean_rate": 2, "amplitude": 1, "period": 9}},
            "diurnal has no end: give duration",
        ),
    ],
)
def test_contradicting_schedules_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**fields)


def test_a_schedule_of_too_many_requests_is_refused() -> None:
    with pytest.raises(WorkloadError, match="rate_schedule at its highest, 5 requests/s"):
        build(rate_schedule=RAMP, duration=1e8)
