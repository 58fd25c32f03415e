"""A user's own request columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload import Workload
from llm_inference_simulator.workload.columns import describe_span


def test_columns_are_copied_and_read_only() -> None:
    arrivals = np.array([0, 5, 5], dtype=np.int64)
    workload = Workload.from_columns(arrivals, [1, 2, 3], np.array([4.0, 5.0, 6.0]))
    arrivals[0] = 99
    assert workload.arrival_ns.tolist() == [0, 5, 5]
    assert workload.output_tokens.tolist() == [4, 5, 6]
    for column in (workload.arrival_ns, workload.prompt_tokens, workload.output_tokens):
        assert column.dtype == np.int64
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    assert workload.duration_ns == 5
    assert len(workload) == 3


def test_strided_columns_become_contiguous() -> None:
    back = np.arange(10)[::-2]
    workload = Workload.from_columns(np.zeros(5, dtype=np.uint8), back, back)
    assert workload.prompt_tokens.tolist() == [9, 7, 5, 3, 1]
    assert workload.prompt_tokens.flags.c_contiguous
    assert workload.arrival_ns.dtype == np.int64


def test_zero_lengths_pass_because_the_engine_rejects_them() -> None:
    workload = Workload.from_columns([0], [0], [0], max_concurrency=2, duration_ns=10)
    assert workload.prompt_tokens.tolist() == [0]
    assert (workload.max_concurrency, workload.duration_ns) == (2, 10)


GOOD: dict[str, Any] = {"arrival_ns": [0, 1], "prompt_tokens": [3, 4], "output_tokens": [5, 6]}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"arrival_ns": [1, 0]}, ["arrival_ns", "row 1", "is 0", "sort"]),
        ({"arrival_ns": [0, -1]}, ["arrival_ns", "row 1", "-1", "negative"]),
        ({"arrival_ns": [0, 2**62 + 1]}, ["arrival_ns", "row 1", "4611686018427387905"]),
        ({"prompt_tokens": [3, float("nan")]}, ["prompt_tokens", "row 1", "nan"]),
        ({"prompt_tokens": [3, float("inf")]}, ["prompt_tokens", "row 1", "inf"]),
        ({"prompt_tokens": [3.5, 4]}, ["prompt_tokens", "row 0", "3.5", "whole"]),
        ({"prompt_tokens": ["3", "4"]}, ["prompt_tokens", "dtype"]),
        ({"prompt_tokens": [True, False]}, ["prompt_tokens", "bool"]),
        ({"prompt_tokens": [3, None]}, ["prompt_tokens", "dtype"]),
        ({"prompt_tokens": [[3], [4]]}, ["prompt_tokens", "shape (2, 1)"]),
        ({"prompt_tokens": [[3], [4, 5]]}, ["prompt_tokens", "ragged"]),
        ({"output_tokens": [5]}, ["output_tokens", "1 row", "2"]),
        ({"output_tokens": [5, 2**31]}, ["output_tokens", "row 1", "2147483648", "2147483647"]),
        ({"max_concurrency": 0}, ["max_concurrency=0"]),
        ({"max_concurrency": True}, ["max_concurrency=True"]),
        ({"duration_ns": 0}, ["duration_ns=0", "last arrival"]),
        (
            {"arrival_ns": [], "prompt_tokens": [], "output_tokens": []},
            ["no requests"],
        ),
    ],
)
def test_bad_columns_name_column_and_row(change: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(WorkloadError) as caught:
        Workload.from_columns(**{**GOOD, **change})
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("n", "duration_ns", "words"),
    [
        (1000, 0, "1,000 requests at once"),
        (1, 500_000_000, "1 request over 0.5 s"),
        (19366, 3_501_721_937_000, "19,366 requests over 3,502 s"),
    ],
)
def test_describe_span(n: int, duration_ns: int, words: str) -> None:
    assert describe_span(n, duration_ns) == words
