"""What holds for every workload."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload.arrivals import arrival_times, staged_arrival_times
from llm_inference_simulator.workload.traces import Trace, load_trace
from llm_inference_simulator.workload_config import WorkloadConfig

SEEDS = st.integers(0, 2**64)
RATES = st.floats(0.01, 1e4)
BURSTINESS = st.one_of(st.just(float("inf")), st.floats(0.1, 100))


def build(seed: int, **fields: Any) -> Workload:
    return build_workload(WorkloadConfig.parse(fields), seed)


@settings(deadline=None)
@given(SEEDS, RATES, BURSTINESS, st.integers(1, 300))
def test_a_count_gives_sorted_arrivals_at_the_exact_mean_rate(
    seed: int, rate: float, burstiness: float, n: int
) -> None:
    workload = build(seed, request_rate=rate, burstiness=burstiness, num_prompts=n)
    assert len(workload) == n
    assert (np.diff(workload.arrival_ns) >= 0).all()
    assert workload.arrival_ns[0] >= 0
    # One nanosecond for the rounding, and the precision of a double.
    assert int(workload.arrival_ns[-1]) == pytest.approx(n / rate * 1e9, rel=1e-14, abs=1)
    assert workload.duration_ns == workload.arrival_ns[-1]


STAGES = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.floats(5, 300)), st.floats(2, 20)), min_size=1, max_size=5
)


@settings(deadline=None)
@given(SEEDS, STAGES)
def test_stages_hold_their_rates_and_their_counts_add_up(
    seed: int, stages: list[tuple[float, float]]
) -> None:
    arrivals, period_ns = staged_arrival_times(np.random.default_rng(seed), stages)
    ends = np.rint(np.cumsum([seconds for _, seconds in stages]) * 1e9)
    assert period_ns == ends[-1]
    assert (np.diff(arrivals) >= 0).all()
    counts = np.diff(np.searchsorted(arrivals, [0, *ends]))
    assert counts.sum() == len(arrivals)
    for count, (rate, seconds) in zip(counts, stages, strict=True):
        # Poisson: mean and variance are both rate x seconds; six deviations, and one for the ends.
        assert abs(count - rate * seconds) <= 6 * (rate * seconds) ** 0.5 + (rate > 0)


@settings(deadline=None)
@given(SEEDS, st.floats(5, 500), BURSTINESS, st.floats(4, 50), st.integers(1, 30_000))
def test_a_duration_bounds_all_arrivals(
    seed: int, rate: float, burstiness: float, duration: float, cap: int
) -> None:
    arrivals, period_ns = arrival_times(
        np.random.default_rng(seed),
        rate=rate,
        burstiness=burstiness,
        num_prompts=cap,
        duration_s=duration,
    )
    assert len(arrivals) <= cap
    assert (np.diff(arrivals) >= 0).all()
    assert (arrivals < round(duration * 1e9)).all()
    if len(arrivals) == cap:
        assert period_ns == arrivals[-1]
        return
    assert period_ns == round(duration * 1e9)
    # The count of a renewal process: mean about rate * t, variance about rate * t / burstiness.
    spread = (rate * duration / burstiness) ** 0.5
    bias = 1 / burstiness + 2
    assert abs(len(arrivals) - rate * duration) <= 8 * spread + 8 * bias


LENGTH_FIELDS = st.fixed_dictionaries(
    {"random_input_len": st.integers(10, 500), "random_output_len": st.integers(1, 500)}
)


@settings(deadline=None)
@given(SEEDS, RATES, RATES, LENGTH_FIELDS, LENGTH_FIELDS)
def test_streams_do_not_touch_each_other(
    seed: int, rate: float, other_rate: float, lengths: dict[str, int], others: dict[str, int]
) -> None:
    common: dict[str, Any] = {"num_prompts": 20, "random_range_ratio": 0.5}
    one = build(seed, request_rate=rate, **lengths, **common)
    two = build(seed, request_rate=other_rate, **lengths, **common)
    three = build(seed, request_rate=rate, **others, **common)
    assert (one.prompt_tokens == two.prompt_tokens).all()
    assert (one.output_tokens == two.output_tokens).all()
    assert (one.arrival_ns == three.arrival_ns).all()


@settings(deadline=None)
@given(SEEDS, st.integers(1, 4096), st.floats(0, 0.99), st.integers(0, 64))
def test_ranged_lengths_stay_in_vllms_range(
    seed: int, mean: int, ratio: float, prefix: int
) -> None:
    low = np.floor(mean * (1 - ratio))
    if low + prefix < 1:
        return
    workload = build(
        seed,
        num_prompts=50,
        random_input_len=mean,
        random_output_len=mean,
        random_range_ratio=ratio,
        random_prefix_len=prefix,
    )
    high = np.ceil(mean * (1 + ratio))
    assert workload.prompt_tokens.min() >= max(low + prefix, 1)
    assert workload.prompt_tokens.max() <= high + prefix
    assert workload.output_tokens.min() >= max(low, 1)
    assert workload.output_tokens.max() <= high


@settings(deadline=None)
@given(SEEDS, st.integers(1, 10_000), st.floats(0, 1))
def test_log_normal_means_hold_for_every_limit(seed: int, longest: int, share: float) -> None:
    mean = 1 + share * (longest - 1)
    n = 4000
    lengths = build(
        seed, num_prompts=n, avg_output_length=mean, max_output_length=longest
    ).output_tokens
    assert lengths.min() >= 1
    assert lengths.max() <= longest
    # The variance of values in [1, longest] is at most (mean - 1) (longest - mean).
    spread = ((mean - 1) * (longest - mean) / n + 0.25 / n) ** 0.5
    assert abs(lengths.mean() - mean) <= 6 * spread + 1e-9


ROWS = st.lists(
    st.tuples(st.integers(0, 10**14), st.integers(0, 2**31 - 1), st.integers(1, 2**31 - 1)),
    min_size=1,
    max_size=30,
)
Row = tuple[int, int, int]


def as_azure(rows: list[Row]) -> str:
    start = datetime(2023, 11, 16, 18, 15, 46, tzinfo=UTC)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for time, prompt, output in rows:
        second, rest = divmod(time, 10**9)
        stamp = (start + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{stamp}.{rest:09d},{prompt},{output}")
    return "\r\n".join(lines)


def as_mooncake(rows: list[Row]) -> str:
    return "\n".join(
        f'{{"timestamp": {time // 10**6}.{time % 10**6:06d}, "input_length": {prompt}, '
        f'"output_length": {output}}}'
        for time, prompt, output in rows
    )


def in_seconds(time: int) -> str:
    return f"{time // 10**9}.{time % 10**9:09d}"


def as_burstgpt(rows: list[Row]) -> str:
    lines = ["Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"]
    lines += [f"{in_seconds(t)},GPT-4,{p},{o},{p + o},API log" for t, p, o in rows]
    return "\n".join(lines)


def as_vidur(rows: list[Row]) -> str:
    lines = ["arrived_at,num_prefill_tokens,num_decode_tokens"]
    return "\n".join(lines + [f"{in_seconds(t)},{p},{o}" for t, p, o in rows])


@pytest.mark.parametrize("write", [as_azure, as_mooncake, as_burstgpt, as_vidur])
@settings(deadline=None)
@given(rows=ROWS)
def test_timed_formats_come_back_to_the_nanosecond(
    tmp_path_factory: pytest.TempPathFactory, write: Any, rows: list[Row]
) -> None:
    trace = read(tmp_path_factory, write(rows))
    ordered = sorted(rows, key=lambda row: row[0])
    assert trace.arrival_ns is not None
    assert trace.arrival_ns.tolist() == [row[0] - ordered[0][0] for row in ordered]
    assert trace.prompt_tokens.tolist() == [row[1] for row in ordered]
    assert trace.output_tokens.tolist() == [row[2] for row in ordered]
    assert bool(trace.warnings) == (ordered != rows)


@settings(deadline=None)
@given(rows=ROWS)
def test_bench_results_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    result = {
        "input_lens": [row[1] for row in rows],
        "output_lens": [row[2] for row in rows],
        "start_times": [row[0] / 1e9 for row in rows],
    }
    trace = read(tmp_path_factory, json.dumps(result))
    ordered = sorted(rows, key=lambda row: round(row[0] / 1e9 * 1e9))
    assert trace.arrival_ns is not None
    # 10^14 ns is within the exact range of a double.
    assert trace.arrival_ns.tolist() == [row[0] - ordered[0][0] for row in ordered]
    assert trace.prompt_tokens.tolist() == [row[1] for row in ordered]


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(4, 1024), st.integers(4, 1024)), min_size=1, max_size=20)
)
def test_sharegpt_lengths_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int]]
) -> None:
    entries = [
        {"conversations": [{"value": "x" * (4 * prompt)}, {"value": "y" * (4 * output)}]}
        for prompt, output in rows
    ]
    trace = read(tmp_path_factory, json.dumps(entries))
    assert list(zip(trace.prompt_tokens, trace.output_tokens, strict=True)) == rows


def read(factory: pytest.TempPathFactory, text: str) -> Trace:
    path: Path = factory.mktemp("trace") / "trace"
    path.write_text(text, newline="")
    return load_trace(path)
