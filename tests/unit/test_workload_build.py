"""The workload section of a configuration becomes request columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload.build import DEFAULT_NUM_PROMPTS
from llm_inference_simulator.workload_config import WorkloadConfig

SECOND = 10**9


def build(seed: int = 0, /, **fields: Any) -> Workload:
    return build_workload(WorkloadConfig.parse(fields), seed)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Five requests at 0, 1, 2, 3 and 10 s."""
    path = tmp_path / "trace.jsonl"
    rows = [(0, 10, 1), (1000, 20, 2), (2000, 30, 3), (3000, 40, 4), (10000, 50, 5)]
    path.write_text(
        "".join(
            f'{{"timestamp": {t}, "input_length": {p}, "output_length": {o}}}\n' for t, p, o in rows
        )
    )
    return str(path)


@pytest.fixture
def untimed(tmp_path: Path) -> str:
    path = tmp_path / "untimed.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n10,1\n20,2\n30,3\n")
    return str(path)


def test_the_default_is_vllms() -> None:
    workload = build()
    assert len(workload) == DEFAULT_NUM_PROMPTS == 1000
    assert not workload.arrival_ns.any()
    assert set(workload.prompt_tokens.tolist()) == {1024}
    assert set(workload.output_tokens.tolist()) == {128}
    assert workload.description == "1024 in, 128 out: 1,000 requests at once"
    assert workload.max_concurrency is None
    assert workload.warnings == ()


def test_a_closed_loop_intends_all_requests_at_time_zero() -> None:
    workload = build(max_concurrency=8, num_prompts=20)
    assert workload.max_concurrency == 8
    assert not workload.arrival_ns.any()


def test_the_prefix_comes_on_top_of_the_prompt() -> None:
    assert set(build(random_prefix_len=64, num_prompts=5).prompt_tokens.tolist()) == {1088}


def test_a_trace_is_replayed_whole(trace: str) -> None:
    workload = build(trace=trace)
    assert workload.arrival_ns.tolist() == [0, SECOND, 2 * SECOND, 3 * SECOND, 10 * SECOND]
    assert workload.prompt_tokens.tolist() == [10, 20, 30, 40, 50]
    assert workload.output_tokens.tolist() == [1, 2, 3, 4, 5]
    assert workload.duration_ns == 10 * SECOND
    assert workload.description == f"{trace}: 5 requests over 10 s"


def test_speedup_comes_before_the_duration(trace: str) -> None:
    workload = build(trace=trace, trace_speedup=2.0, duration=1.5)
    assert workload.arrival_ns.tolist() == [0, SECOND // 2, SECOND]
    assert workload.duration_ns == 3 * SECOND // 2


def test_num_prompts_takes_the_first(trace: str) -> None:
    workload = build(trace=trace, num_prompts=2)
    assert workload.prompt_tokens.tolist() == [10, 20]
    assert workload.duration_ns == SECOND


def test_a_trace_that_is_too_short_warns(trace: str) -> None:
    workload = build(trace=trace, num_prompts=9, duration=60.0)
    assert len(workload) == 5
    assert workload.duration_ns == 10 * SECOND
    assert any("duration=60 s is longer" in warning for warning in workload.warnings)
    assert any("num_prompts=9 exceeds the 5" in warning for warning in workload.warnings)


def test_long_requests_of_a_trace_are_cut_and_counted(trace: str) -> None:
    workload = build(trace=trace, max_input_length=30, max_output_length=4)
    assert workload.prompt_tokens.tolist() == [10, 20, 30, 30, 30]
    assert workload.output_tokens.tolist() == [1, 2, 3, 4, 4]
    assert workload.warnings == (
        "2 input lengths of the trace were cut to max_input_length=30",
        "1 output lengths of the trace were cut to max_output_length=4",
    )


def test_a_rate_replaces_the_times_of_a_trace(trace: str) -> None:
    workload = build(trace=trace, request_rate=2.0)
    assert workload.prompt_tokens.tolist() == [10, 20, 30, 40, 50]
    assert workload.arrival_ns[-1] == workload.duration_ns == 5 * SECOND // 2


def test_a_trace_used_up_before_the_duration_warns(trace: str) -> None:
    workload = build(trace=trace, request_rate=2.0, duration=1000.0)
    assert len(workload) == 5
    assert any("used up" in warning for warning in workload.warnings)


def test_a_trace_without_times_arrives_at_once_with_a_warning(untimed: str) -> None:
    workload = build(trace=untimed)
    assert workload.arrival_ns.tolist() == [0, 0, 0]
    assert any("no arrival times" in warning for warning in workload.warnings)
    timed = build(trace=untimed, request_rate=1.0)
    assert timed.warnings == ()


def test_lengths_from_a_trace_keep_pairs(trace: str) -> None:
    workload = build(lengths_from=trace, num_prompts=200, request_rate=5.0)
    assert (workload.prompt_tokens == 10 * workload.output_tokens).all()
    assert np.unique(workload.output_tokens).tolist() == [1, 2, 3, 4, 5]


def test_burstiness_without_a_rate_warns(trace: str) -> None:
    assert "burstiness=0.5 has no effect" in build(burstiness=0.5).warnings[0]
    assert "burstiness=0.5 has no effect" in build(burstiness=0.5, trace=trace).warnings[0]
    assert build(burstiness=0.5, request_rate=1.0).warnings == ()


def test_one_stream_never_shifts_another() -> None:
    base = {"request_rate": 5.0, "num_prompts": 200, "random_range_ratio": 0.5}
    first = build(3, **base)
    other_rate = build(3, **{**base, "request_rate": 50.0})
    assert (first.prompt_tokens == other_rate.prompt_tokens).all()
    assert (first.output_tokens == other_rate.output_tokens).all()
    other_input = build(3, **base, random_input_len=99)
    assert (first.arrival_ns == other_input.arrival_ns).all()
    assert (first.output_tokens == other_input.output_tokens).all()
    other_output = build(3, **base, random_output_len=7)
    assert (first.prompt_tokens == other_output.prompt_tokens).all()
    assert (first.arrival_ns == other_output.arrival_ns).all()


def test_streams_differ_from_each_other_and_by_seed() -> None:
    fields = {"num_prompts": 100, "random_input_len": 500, "random_output_len": 500}
    first, second = (
        build(1, random_range_ratio=0.9, **fields),
        build(2, random_range_ratio=0.9, **fields),
    )
    assert (first.prompt_tokens != first.output_tokens).any()
    assert (first.prompt_tokens != second.prompt_tokens).any()


@pytest.mark.parametrize("lengths", [{"random_range_ratio": 0.5}, {"avg_input_length": 300.0}])
def test_a_longer_workload_begins_with_the_shorter(lengths: dict[str, Any]) -> None:
    short, long = build(num_prompts=50, **lengths), build(num_prompts=500, **lengths)
    assert (long.prompt_tokens[:50] == short.prompt_tokens).all()


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        (
            {"random_input_len": 1, "random_range_ratio": 0.5},
            ["random_input_len=1", "empty prompts"],
        ),
        ({"request_rate": 0.001, "duration": 0.5}, ["duration=0.5", "first request"]),
        ({"avg_output_length": 0.5}, ["avg_output_length=0.5"]),
        ({"random_prefix_len": 2**31}, ["random_prefix_len=2147483648"]),
        ({"random_input_len": 2**31}, ["random_input_len=2147483648"]),
        ({"num_prompts": 10**12}, ["num_prompts=1000000000000"]),
        (
            {"trace": "azure-conv-2023", "request_rate": 5.0, "trace_speedup": 2.0},
            ["trace_speedup=2.0", "request_rate=5.0"],
        ),
        ({"trace": "azure-conv-2023", "trace_speedup": 1e-12}, ["trace_speedup=1e-12", "clock"]),
        (
            {"trace": "azure-conv-2023", "request_rate": float("inf"), "duration": 5.0},
            ["duration=5.0", "request_rate=inf"],
        ),
        ({"trace": "azure-conf-2023"}, ["azure-conf-2023", "did you mean 'azure-conv-2023'"]),
        ({"trace": "missing.csv"}, ["missing.csv", "does not exist", "azure-conv-2023"]),
        ({"lengths_from": "missing.csv"}, ["missing.csv", "does not exist"]),
        (
            {"trace": "azure-conv-2023", "trace_format": "mooncake"},
            ["trace_format=mooncake", "azure"],
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises((ConfigError, WorkloadError)) as caught:
        build(**fields)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("fields", [{"duration": 5.0}, {"trace_speedup": 2.0}])
def test_times_of_a_trace_without_times_are_refused(untimed: str, fields: dict[str, Any]) -> None:
    with pytest.raises(WorkloadError, match="no arrival times"):
        build(trace=untimed, **fields)
