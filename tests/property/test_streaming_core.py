"""A streamed core gives the rows, the gaps and the hash of the core in one piece, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import llm_inference_simulator._core as core
from llm_inference_simulator.errors import WorkloadError
from tests.property.test_core_matches_reference import (
    PATIENT,
    Case,
    arguments_of,
    cases,
    finish,
    long_cases,
    stats_of,
)

PER_REQUEST = ("arrival_ns", "prompt_tokens", "output_tokens", "priority")


def independent(case: Case) -> Case:
    """The same requests, none of which waits for another or shares a block."""
    ordered = sorted(case.jobs, key=lambda job: job.arrival_ns)
    jobs = tuple(replace(job, after=-1, think_ns=0, blocks=()) for job in ordered)
    return replace(case, jobs=jobs)


def whole(case: Case, **options: Any) -> core.Simulation:
    return core.Simulation(**(arguments_of(case) | alone() | options))


def alone() -> dict[str, None]:
    names = ("after", "think_ns", "block_offsets", "block_ids")
    return dict.fromkeys(names)


class Streamed:
    """A streamed run of a case, fed and emptied in pieces."""

    def __init__(self, case: Case, sizes: list[int], warm_up_ns: int, **options: Any) -> None:
        self.columns = {name: arguments_of(case)[name] for name in PER_REQUEST}
        empty = {name: column[:0] for name, column in self.columns.items()}
        arguments = arguments_of(case) | alone() | empty
        self.run = core.Simulation(**(arguments | {"streaming": warm_up_ns} | options))
        self.taken: list[dict[str, Any]] = []
        self._go(sizes)

    def _go(self, sizes: list[int]) -> None:
        count, start, turn = len(self.columns["arrival_ns"]), 0, 0
        while True:
            progress = self.run.run_slice(1 + 7 * turn)
            self.taken.append(self.run.take_rows(turn % 4))
            if progress.done:
                break
            if progress.needs_requests:
                end = start + sizes[turn % len(sizes)]
                piece = {name: column[start:end] for name, column in self.columns.items()}
                self.run.feed(**piece, last=end >= count)
                start = min(end, count)
            turn += 1
        self.taken.append(self.run.take_rows(count))

    def rows(self) -> dict[str, Any]:
        rows = {name: np.concatenate([part[name] for part in self.taken]) for name in self.taken[0]}
        requested = rows.pop("requested_output_tokens")
        assert requested.tolist() == self.columns["output_tokens"].tolist()
        return rows


def assert_same(case: Case, sizes: list[int], warm_up_ns: int, **options: Any) -> None:
    expected = finish(whole(case, **options))
    streamed = Streamed(case, sizes, warm_up_ns, **options)
    rows, columns = streamed.rows(), expected.request_columns()
    assert {name: column.tolist() for name, column in rows.items()} == {
        name: column.tolist() for name, column in columns.items()
    }
    assert streamed.run.trace_hash() == expected.trace_hash()
    assert stats_of(streamed.run) == stats_of(expected)
    counted = columns["arrival_ns"] >= warm_up_ns
    pooled = expected.token_gaps(counted)
    gaps = pooled.at_ranks(np.arange(pooled.count, dtype=np.int64)).tolist()
    buckets, total, squares, least, most = streamed.run.gap_histogram()
    assert int(buckets.sum()) == len(gaps)
    assert total == sum(gaps)
    assert squares == sum(gap * gap for gap in gaps)
    if gaps:
        assert (least, most) == (min(gaps), max(gaps))


SIZES = st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 100]), min_size=1, max_size=4).filter(any)
WARM_UPS = st.sampled_from([0, 0, 1, 50, 700])


@given(cases().map(independent), SIZES, WARM_UPS, st.booleans())
def test_pieces_change_nothing(
    case: Case, sizes: list[int], warm_up_ns: int, step_by_step: bool
) -> None:
    assert_same(case, sizes, warm_up_ns, step_by_step=step_by_step)


@given(long_cases().map(independent), SIZES, WARM_UPS, st.booleans())
def test_pieces_of_long_decodes_change_nothing(
    case: Case, sizes: list[int], warm_up_ns: int, step_by_step: bool
) -> None:
    assert_same(case, sizes, warm_up_ns, step_by_step=step_by_step)


@given(cases().map(independent), SIZES, st.integers(0, 3))
def test_common_blocks_are_those_that_every_request_names(
    case: Case, sizes: list[int], blocks: int
) -> None:
    size = case.engines[0][0].block_size
    jobs = tuple(
        replace(job, prompt=max(job.prompt, blocks * size), blocks=tuple(range(blocks)))
        for job in case.jobs
    )
    case = replace(case, jobs=jobs)
    lengths = np.full(len(jobs), blocks)
    named = {
        "block_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "block_ids": np.tile(np.arange(blocks, dtype=np.int64), len(jobs)),
    }
    expected = finish(whole(case, **named))
    streamed = Streamed(case, sizes, 0, common_blocks=blocks)
    rows, columns = streamed.rows(), expected.request_columns()
    assert {name: column.tolist() for name, column in rows.items()} == {
        name: column.tolist() for name, column in columns.items()
    }
    assert streamed.run.trace_hash() == expected.trace_hash()


@given(cases().map(independent), st.integers(1, 30))
def test_a_run_that_is_closed_early_gives_every_row_once(case: Case, events: int) -> None:
    arguments = arguments_of(case) | alone()
    run = core.Simulation(**(arguments | {"streaming": 0}))
    empty = np.zeros(0, dtype=np.int64)
    run.feed(empty, empty, empty, last=True)
    run.run_slice(events)
    run.close_stream()
    rows = run.take_rows(len(case.jobs) + 1)
    assert rows["prompt_tokens"].tolist() == [job.prompt for job in case.jobs]
    stepped = core.Simulation(**arguments)
    stepped.run_slice(events)
    expected = stepped.request_columns()
    completed = expected["status"] == 1
    assert rows["finished_ns"][completed].tolist() == expected["finished_ns"][completed].tolist()


def test_chunks_that_go_back_in_time_are_refused() -> None:
    empty = Case(((PATIENT, (1, 0, 0, 0)),), ())
    run = core.Simulation(**(arguments_of(empty) | alone() | {"streaming": 0}))
    column = np.array([5], dtype=np.int64)
    run.feed(column, column, column, last=False)
    with pytest.raises(WorkloadError, match="request 1: arrival_ns=4 is before the row above"):
        run.feed(column - 1, column, column, last=True)
