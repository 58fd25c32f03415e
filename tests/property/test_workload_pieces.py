"""Requests that are made piece by piece are those that are made at once, whatever the pieces."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given

from llm_inference_simulator.workload import build_workload
from llm_inference_simulator.workload.pieces import RequestStream
from llm_inference_simulator.workload_config import WorkloadConfig

BURSTS = {
    "kind": "bursts",
    "base_rate": 1.0,
    "burst_rate": 9.0,
    "burst_seconds": 5.0,
    "period": 20.0,
}

LOADS = st.sampled_from(
    [
        {"num_prompts": 57},
        {"num_prompts": 57, "request_rate": 3.0},
        {"num_prompts": 57, "request_rate": 3.0, "burstiness": 0.3},
        {"num_prompts": 57, "request_rate": 3.0, "burstiness": float("inf")},
        {"duration": 40.0, "request_rate": 3.0},
        {"duration": 40.0, "request_rate": 3.0, "num_prompts": 31},
        {"duration": 40.0, "request_rate": 3.0, "burstiness": float("inf")},
        {"rate_stages": ((2.0, 20.0), (0.0, 5.0), (4.0, 10.5))},
        {"rate_stages": ((2.0, 20.0), (4.0, 10.5)), "num_prompts": 45},
        {"rate_schedule": BURSTS, "duration": 60.0},
        {"rate_schedule": BURSTS, "duration": 60.0, "num_prompts": 50},
    ]
)
LENGTHS = st.sampled_from(
    [
        {"random_input_len": 300, "random_output_len": 20},
        {"random_input_len": 300, "random_output_len": 20, "random_range_ratio": 0.6},
        {"avg_input_length": 300.0, "max_input_length": 900, "avg_output_length": 40.0},
        {"avg_input_length": 300.0, "random_output_len": 9, "random_prefix_len": 70},
        {"lengths_from": "azure-code-2023"},
    ]
)
PIECES = st.sampled_from([1, 2, 7, 50, 56, 57, 58, 1000])


def assert_same(fields: dict[str, Any], seed: int, rows: int) -> None:
    config = WorkloadConfig.parse(fields)
    whole = build_workload(config, seed)
    stream = RequestStream(config, seed, rows)
    pieces = list(stream.pieces())
    assert all(0 < len(piece) <= rows for piece in pieces)
    for name in ("arrival_ns", "prompt_tokens", "output_tokens"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        assert joined.tolist() == getattr(whole, name).tolist(), name
    assert stream.count == len(whole)
    assert stream.duration_ns == whole.duration_ns
    assert stream.description == whole.description
    assert stream.warnings == whole.warnings


@given(LOADS, LENGTHS, st.integers(0, 2**70), PIECES)
def test_generated_requests(
    load: dict[str, Any], lengths: dict[str, Any], seed: int, rows: int
) -> None:
    assert_same({**load, **lengths}, seed, rows)


CUTS = st.sampled_from(
    [
        {},
        {"num_prompts": 10},
        {"num_prompts": 5000},
        {"duration": 30.0},
        {"duration": 30.0, "num_prompts": 20},
        {"duration": 90000.0},
        {"trace_speedup": 3.0, "duration": 20.0},
        {"max_input_length": 60, "max_output_length": 7},
        {"random_prefix_len": 12},
    ]
)
ROWS = st.lists(
    st.tuples(st.integers(0, 4000), st.integers(1, 99), st.integers(0, 9)), min_size=1, max_size=40
).filter(lambda rows: any(output for _, _, output in rows))


def vidur(rows: list[tuple[int, int, int]]) -> str:
    lines = [f"{gap / 1000},{prompt},{output}" for gap, prompt, output in rows]
    return "\n".join(["arrived_at,num_prefill_tokens,num_decode_tokens", *lines, ""])


def burstgpt(rows: list[tuple[int, int, int]]) -> str:
    lines = [f"{gap / 1000},ChatGPT,{prompt},{output},x,y" for gap, prompt, output in rows]
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    return "\n".join([header, *lines, ""])


def in_order(rows: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    times = np.cumsum([gap for gap, _, _ in rows]).tolist()
    return [(time, *row[1:]) for time, row in zip(times, rows, strict=True)]


@example([(0, 1, 1)] * 20, {"duration": 30.0, "num_prompts": 20}, vidur, 1, False)
@given(ROWS.map(in_order), CUTS, st.sampled_from([vidur, burstgpt]), PIECES, st.booleans())
def test_traced_requests(
    rows: list[tuple[int, int, int]], cut: dict[str, Any], write: Any, piece: int, zipped: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.csv")
        data = write(rows).encode()
        path.write_bytes(gzip.compress(data) if zipped else data)
        assert_same({"trace": str(path), **cut}, 0, piece)


@given(PIECES.filter(lambda rows: rows > 2), st.sampled_from([{}, {"duration": 600.0}]))
def test_the_shipped_trace(rows: int, cut: dict[str, Any]) -> None:
    assert_same({"trace": "azure-code-2023", "num_prompts": 300, **cut}, 0, rows)
