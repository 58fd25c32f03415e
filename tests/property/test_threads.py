"""Engines on several threads give the bits of engines in one loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

import llm_inference_simulator._core as core
from tests.property.test_core_matches_reference import (
    Case,
    arguments_of,
    cases,
    finish,
    long_cases,
    stats_of,
)
from tests.property.test_streaming_core import SIZES, WARM_UPS, Streamed, independent, whole

BLIND = st.sampled_from(["round_robin", "random"])
THREADS = st.integers(2, 5)


@st.composite
def blind_clusters(draw: st.DrawFn, of: st.SearchStrategy[Case]) -> Case:
    """Several engines, a router that does not look at them, no closed loop, no sessions."""
    case = draw(of)
    engines = tuple(draw(st.sampled_from(case.engines)) for _ in range(draw(st.integers(2, 5))))
    routing = replace(case.routing, policy=draw(BLIND))
    ordered = sorted(case.jobs, key=lambda job: job.arrival_ns)
    jobs = tuple(replace(job, after=-1, think_ns=0) for job in ordered)
    return replace(case, engines=engines, routing=routing, jobs=jobs, max_concurrency=None)


def everything_of(run: core.Simulation) -> dict[str, Any]:
    columns = run.request_columns()
    rows = {name: column.tolist() for name, column in columns.items()}
    count = len(columns["status"])
    times, offsets = run.token_times(np.arange(count, dtype=np.int64))
    gaps = run.token_gaps(np.arange(count) % 3 != 1)
    return {
        "rows": rows,
        "token_times": (times.tolist(), offsets.tolist()),
        "gaps": gaps.at_ranks(np.arange(gaps.count, dtype=np.int64)).tolist(),
        "hash": run.trace_hash(),
        "engines": stats_of(run),
    }


@given(blind_clusters(cases() | long_cases()), THREADS, st.sampled_from([1, 3, 50, 10**6]))
def test_threads_change_nothing(case: Case, threads: int, max_events: int) -> None:
    arguments = arguments_of(case) | {"after": None, "think_ns": None}
    one = finish(core.Simulation(**arguments))
    several = finish(core.Simulation(**arguments, threads=threads), max_events)
    assert everything_of(several) == everything_of(one)


@given(blind_clusters(cases() | long_cases()).map(independent), THREADS, SIZES, WARM_UPS)
def test_threads_change_nothing_in_streamed_runs(
    case: Case, threads: int, sizes: list[int], warm_up_ns: int
) -> None:
    one = Streamed(case, sizes, warm_up_ns)
    several = Streamed(case, sizes, warm_up_ns, threads=threads)
    expected = {name: column.tolist() for name, column in one.rows().items()}
    assert {name: column.tolist() for name, column in several.rows().items()} == expected
    assert several.run.trace_hash() == one.run.trace_hash()
    assert stats_of(several.run) == stats_of(one.run)
    mine, theirs = several.run.gap_histogram(), one.run.gap_histogram()
    assert mine[0].tolist() == theirs[0].tolist()
    assert mine[1:] == theirs[1:]


@given(cases(), THREADS)
def test_clusters_whose_engines_matter_to_one_another_stay_in_one_loop(
    case: Case, threads: int
) -> None:
    one = finish(core.Simulation(**arguments_of(case)))
    several = finish(core.Simulation(**arguments_of(case), threads=threads))
    assert everything_of(several) == everything_of(one)


@given(blind_clusters(cases()), THREADS, st.integers(1, 40))
def test_a_look_at_a_run_on_threads_changes_nothing(case: Case, threads: int, events: int) -> None:
    run = whole(case, threads=threads)
    run.run_slice(events)
    partly = run.request_columns()
    expected = everything_of(finish(whole(case)))
    assert everything_of(finish(run)) == expected
    ended = partly["status"] > 0
    finished = np.array(expected["rows"]["finished_ns"])
    assert partly["finished_ns"][ended].tolist() == finished[ended].tolist()
