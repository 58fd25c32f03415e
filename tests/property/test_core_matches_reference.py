"""The Rust core and the pure-Python reference do the same, step by step and token by token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, event, example, given
from hypothesis import settings as hypothesis_settings

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import (
    AutoscalingSettings,
    EngineSettings,
    FleetSettings,
    TransferSettings,
)
from tests.reference.cluster import Cluster, Job, Run, Transfers
from tests.reference.engines import StepNs, Sums
from tests.reference.fleet import Autoscaling, FleetRules
from tests.reference.routers import ROUND_ROBIN, Routing
from tests.reference.scheduler import Settings

Costs = tuple[int, ...]
"""Of a step, a prompt token, a decoding request, a key, a token of all who step together."""


@dataclass(frozen=True)
class Case:
    """A cluster, its workload and how clients reach it."""

    engines: tuple[tuple[Settings, Costs], ...]
    jobs: tuple[Job, ...]
    routing: Routing = ROUND_ROBIN
    max_concurrency: int | None = None
    request_latency_ns: int = 0
    response_latency_ns: int = 0
    transfers: Transfers | None = None
    fleet: FleetRules | None = None


def fixed_ns(costs: Costs, sums: Sums) -> int:
    priced = ("prefill_tokens", "decode_seqs", "decode_context_tokens", "group_tokens")
    return max(1, costs[0] + sum(ns * sums[name] for ns, name in zip(costs[1:], priced)))  # noqa: B905


def stage_costs(settings: Settings, costs: Costs) -> list[Costs]:
    """One a stage: every other one has a longer constant and prices tokens differently."""
    step, prefill_token, decode_seq, *others = costs
    odd = (step + 37, prefill_token // 2, 2 * decode_seq, *others)
    return [odd if stage % 2 else costs for stage in range(settings.pipeline_parallel_size)]


def run_reference(case: Case) -> Run:
    engines: list[tuple[Settings, list[StepNs]]] = [
        (settings, [partial(fixed_ns, own) for own in stage_costs(settings, costs)])
        for settings, costs in case.engines
    ]
    return Cluster(
        engines,
        case.jobs,
        case.routing,
        case.max_concurrency,
        case.request_latency_ns,
        case.response_latency_ns,
        transfers=case.transfers,
        fleet=case.fleet,
    ).simulate()


def build_core(
    case: Case, *, record_steps: bool = True, step_by_step: bool = False
) -> core.Simulation:
    arguments = arguments_of(case) | {"record_steps": record_steps, "step_by_step": step_by_step}
    return core.Simulation(**arguments)


def arguments_of(case: Case) -> dict[str, Any]:
    def column(values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.array(values, dtype=np.int64)

    lengths = [len(job.blocks) for job in case.jobs]
    return {
        "pools": [
            (
                EngineSettings(**asdict(settings)),
                [core.CostModel.fixed(*own) for own in stage_costs(settings, costs)],
                1,
            )
            for settings, costs in case.engines
        ],
        "router": case.routing.policy,
        "router_seed": case.routing.seed,
        "router_view_delay_ns": case.routing.view_delay_ns,
        "router_imbalance": case.routing.imbalance,
        "arrival_ns": column([job.arrival_ns for job in case.jobs]),
        "prompt_tokens": column([job.prompt for job in case.jobs]),
        "output_tokens": column([job.output for job in case.jobs]),
        "priority": column([job.priority for job in case.jobs]),
        "after": column([job.after for job in case.jobs]),
        "think_ns": column([job.think_ns for job in case.jobs]),
        "block_offsets": column([sum(lengths[:i]) for i in range(len(lengths) + 1)]),
        "block_ids": column([block for job in case.jobs for block in job.blocks]),
        "transfer": case.transfers and TransferSettings(**asdict(case.transfers)),
        "fleet": case.fleet and fleet_settings(case.fleet),
        "max_concurrency": case.max_concurrency,
        "request_latency_ns": case.request_latency_ns,
        "response_latency_ns": case.response_latency_ns,
    }


def fleet_settings(rules: FleetRules) -> FleetSettings:
    given = rules.autoscaling
    scaling = None if given is None else AutoscalingSettings(**asdict(given))
    return FleetSettings(
        planned=rules.planned,
        max_retries=rules.max_retries,
        timeout_ns=rules.timeout_ns,
        max_queue=rules.max_queue,
        autoscaling=scaling,
    )


def finish(run: core.Simulation, max_events: int = 10**6) -> core.Simulation:
    for _ in range(10**5):
        if run.run_slice(max_events).done:
            return run
    raise AssertionError("the core does not end")


def rows_of(columns: dict[str, Any]) -> list[dict[str, int]]:
    names = list(columns)
    return [
        dict(zip(names, (int(value) for value in row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def stats_of(run: core.Simulation) -> list[dict[str, Any]]:
    names = [name for name in dir(core.EngineStats) if not name.startswith("_")]
    return [{name: getattr(own, name) for name in names} for own in run.engine_stats()]


def assert_same_rows(kind: str, ours: list[dict[str, int]], theirs: list[dict[str, int]]) -> None:
    for number, (mine, reference) in enumerate(zip(ours, theirs, strict=False)):
        assert set(mine) == set(reference), kind
        wrong = {
            name: (mine[name], reference[name]) for name in mine if mine[name] != reference[name]
        }
        assert not wrong, (
            f"first differing {kind}: {number}; (core, reference): {wrong}\n"
            f"core      {mine}\nreference {reference}"
        )
    assert len(ours) == len(theirs), f"{kind}: core has {len(ours)}, reference {len(theirs)}"


def assert_equal(run: core.Simulation, expected: Run) -> None:
    assert_same_rows("step", rows_of(run.step_columns()), expected.steps)
    assert_same_rows("request", rows_of(run.request_columns()), expected.requests)
    count = len(expected.requests)
    times, offsets = run.token_times(np.arange(count, dtype=np.int64))
    split = [times[offsets[i] : offsets[i + 1]].tolist() for i in range(count)]
    assert split == expected.token_times
    counted = np.arange(count) % 3 != 1
    gaps = run.token_gaps(counted)
    expected_gaps = sorted(
        b - a
        for number, own in enumerate(expected.token_times)
        if counted[number]
        for a, b in pairwise(own)
    )
    assert gaps.count == len(expected_gaps)
    assert gaps.at_ranks(np.arange(gaps.count, dtype=np.int64)).tolist() == expected_gaps


# What is tried: caches of a few blocks, so that requests fight for them


@st.composite
def engine_settings(draw: st.DrawFn) -> Settings:
    block_size = draw(st.integers(1, 5))
    stages = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    link = st.tuples(
        st.sampled_from([0, 0, 3, 90]), st.integers(0, 9), st.sampled_from([10**9, 3 * 10**8])
    )
    max_model_len = draw(st.sampled_from([24, 40, 64]))
    chunked = draw(st.sampled_from([True, True, True, False]))
    budget = st.integers(1, 40) if chunked else st.integers(max_model_len, max_model_len + 20)
    return Settings(
        max_num_seqs=draw(st.sampled_from([1, 2, 3, 4, 4, 5, 6])),
        max_num_batched_tokens=draw(budget),
        max_model_len=max_model_len,
        block_size=block_size,
        num_gpu_blocks=1 + draw(st.integers(4, 30)) // block_size + draw(st.integers(1, 4)),
        enable_chunked_prefill=chunked,
        long_prefill_token_threshold=draw(st.sampled_from([0, 0, 1, 3, 8])),
        long_prefill_token_threshold_adaptive=draw(st.booleans()),
        enable_prefix_caching=draw(st.booleans()),
        scheduling_policy=draw(st.sampled_from(["fcfs", "fcfs", "priority"])),
        scheduler_reserve_full_isl=draw(st.booleans()),
        watermark_blocks=draw(st.sampled_from([0, 0, 1, 2])),
        async_scheduling=draw(st.booleans()),
        step_overhead_ns=draw(st.sampled_from([0, 0, 7, 150])),
        batching_strategy=draw(
            st.sampled_from(["continuous", "continuous", "continuous", "static", "windowed"])
        ),
        batch_window_ns=draw(st.sampled_from([0, 1, 60, 1000])),
        pipeline_parallel_size=stages,
        stage_links=tuple(draw(link) for _ in range(stages - 1)),
    )


@st.composite
def workload(draw: st.DrawFn, settings: Settings) -> tuple[Job, ...]:
    fits = (settings.num_gpu_blocks - 1) * settings.block_size
    gap = st.sampled_from([0, 0, 0, 1, 10, 100, 700])
    names: dict[tuple[int, ...], int] = {}
    jobs, now = [], 0
    for _ in range(draw(st.integers(1, 14) | st.integers(6, 14))):
        now += draw(gap)
        # A short prompt with a long output outgrows the cache after it was admitted.
        longest = draw(st.sampled_from([fits // 3, fits // 3, fits * 2 // 3, fits + 2]))
        prompt = draw(st.integers(0, 3) | st.integers(1, max(2, longest)))
        output = draw(st.integers(0, 15) | st.integers(fits // 2, max(fits // 2, fits - prompt)))
        # A path through a tree with two branches at each block: prefixes are shared often.
        full = prompt // settings.block_size
        path = draw(st.lists(st.sampled_from([0, 0, 0, 1]), max_size=full))
        if draw(st.booleans()):
            path = (path + [0] * full)[:full]
        blocks = tuple(names.setdefault(tuple(path[: i + 1]), len(names)) for i in range(len(path)))
        jobs.append(Job(now, prompt, output, draw(st.integers(0, 2)), blocks))
    for _ in range(draw(st.sampled_from([0, 1, 2, 3]))):
        add_turn(draw, jobs, settings, names)
    return tuple(jobs)


def add_turn(
    draw: st.DrawFn, jobs: list[Job], settings: Settings, names: dict[tuple[int, ...], int]
) -> None:
    """Continue a job that nobody continues yet: its prompt and answer, then new tokens."""
    continued = {job.after for job in jobs}
    before = draw(st.sampled_from([i for i in range(len(jobs)) if i not in continued]))
    old, size = jobs[before], settings.block_size
    said = old.prompt + old.output
    # What is said is named to its end, so that the answer's blocks can be found too.
    spoken = [names.setdefault((-1, before, i), len(names)) for i in range(said // size)]
    own = old.blocks[: old.prompt // size]
    blocks = (*own, *spoken[len(own) :])
    jobs[before] = replace(old, blocks=blocks)
    prompt, output = said + draw(st.integers(0, 6)), draw(st.integers(0, 9))
    arrival = jobs[-1].arrival_ns + draw(st.sampled_from([0, 0, 50, 2000]))
    think = draw(st.sampled_from([0, 0, 1, 60, 500, 5000]))
    jobs.append(Job(arrival, prompt, output, draw(st.integers(0, 2)), blocks, before, think))


def routings() -> st.SearchStrategy[Routing]:
    policies = st.sampled_from(POLICIES)
    return st.builds(
        Routing,
        policies,
        st.integers(0, 2**64 - 1),
        st.sampled_from([0, 1, 100, 1000]),
        st.sampled_from([0, 1, 2, 32]),
    )


POLICIES = [
    "round_robin",
    "random",
    "least_outstanding",
    "least_outstanding_tokens",
    "power_of_two",
    "session_affinity",
    "prefix_aware",
]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    settings = draw(engine_settings())
    count = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
    engines: list[tuple[Settings, Costs]] = []
    for _ in range(count):
        costs = draw(
            st.tuples(
                st.sampled_from([0, 1, 100]),
                st.sampled_from([0, 1, 10]),
                st.sampled_from([0, 5]),
                st.sampled_from([0, 1]),
            )
        )
        own = settings
        unequal = draw(st.booleans())
        if engines and unequal:
            # Contents are named per block, so the engines share the block size.
            own = replace(draw(engine_settings()), block_size=settings.block_size)
        engines.append((own, costs))
    return Case(
        tuple(engines),
        draw(workload(settings)),
        draw(routings()),
        draw(st.none() | st.none() | st.integers(1, 5)),
        draw(st.sampled_from([0, 0, 0, 1, 90])),
        draw(st.sampled_from([0, 0, 0, 1, 130])),
    )


@st.composite
def disaggregated_cases(draw: st.DrawFn) -> Case:
    """Prefill and decode engines in any order, on links where transfers take a while."""
    case = draw(cases())
    settings = case.engines[0][0]
    roles = draw(st.permutations(["prefill", "decode", *draw(st.lists(ROLES, max_size=3))]))
    engines = []
    for role in roles:
        own = draw(engine_settings()) if draw(st.booleans()) else settings
        engine = replace(
            own,
            role=role,
            block_size=settings.block_size,
            batching_strategy="continuous",
            link_bytes_per_s=draw(LINK_BYTES_PER_S),
        )
        engines.append((engine, draw(st.sampled_from([costs for _, costs in case.engines]))))
    transfers = Transfers(
        draw(st.sampled_from([1, 7, 100])),
        draw(st.none() | LINK_BYTES_PER_S),
        draw(st.sampled_from([0, 0, 1, 40])),
        draw(st.sampled_from([0, 0, 1, 3])),
    )
    return replace(case, engines=tuple(engines), transfers=transfers)


@st.composite
def changing_cases(draw: st.DrawFn) -> Case:
    """Engines die, drain, come up; requests time out; queues are bounded."""
    case = draw(cases())
    while len(case.engines) < 2:
        case = replace(case, engines=case.engines * draw(st.integers(2, 4)))
    last = max(job.arrival_ns for job in case.jobs) + 3000
    change = st.tuples(
        st.integers(0, last),
        st.integers(0, len(case.engines) - 1),
        st.sampled_from(["fail", "fail", "drain", "up", "up"]),
    )
    autoscaling = st.builds(
        Autoscaling,
        st.integers(1, len(case.engines)),
        st.sampled_from([50, 333]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([0, 1, 100, 1000]),
    )
    rules = FleetRules(
        tuple(sorted(draw(st.lists(change, max_size=8)), key=lambda planned: planned[0])),
        draw(st.integers(0, 3)),
        draw(st.none() | st.sampled_from([1, 200, 1000, 3000])),
        draw(st.none() | st.none() | st.integers(0, 4)),
        draw(st.none() | autoscaling),
    )
    return replace(case, fleet=rules)


@st.composite
def changing_disaggregated_cases(draw: st.DrawFn) -> Case:
    """Prefill and decode engines die, drain and come up, with transfers between them."""
    rules = draw(changing_cases()).fleet
    case = draw(disaggregated_cases())
    assert rules
    # Most of what happens happens soon after an arrival.
    moment = st.builds(
        lambda job, later: job.arrival_ns + later, st.sampled_from(case.jobs), st.integers(0, 900)
    )
    change = st.tuples(
        moment,
        st.integers(0, len(case.engines) - 1),
        st.sampled_from(["fail", "fail", "drain", "up", "up"]),
    )
    planned = draw(st.lists(change, min_size=1, max_size=9))
    planned.sort(key=lambda planned: planned[0])
    scaling = draw(st.sampled_from([None, None, rules.autoscaling]))
    return replace(case, fleet=replace(rules, planned=tuple(planned), autoscaling=scaling))


@st.composite
def grouped_cases(draw: st.DrawFn) -> Case:
    """Some engines step together, beside others that do not, whatever they do."""
    case = draw(cases() | disaggregated_cases() | changing_cases() | changing_disaggregated_cases())
    shared = draw(st.sampled_from([0, 3, 20]))
    engines: list[tuple[Settings, Costs]] = []
    for group, (settings, costs) in enumerate(case.engines):
        own = replace(settings, batching_strategy="continuous", data_parallel_group=group)
        if draw(st.integers(0, 4)) == 0:
            engines.append((settings, (*costs, shared)))
            continue
        for _ in range(draw(st.sampled_from([1, 2, 2, 3]))):
            unequal = replace(
                own,
                max_num_seqs=draw(st.sampled_from([own.max_num_seqs, 1, 3])),
                num_gpu_blocks=own.num_gpu_blocks + draw(st.sampled_from([0, 0, 3])),
            )
            step, *others = costs
            engines.append((unequal, (step + draw(st.sampled_from([0, 0, 9])), *others, shared)))
    fleet = case.fleet and replace(case.fleet, autoscaling=None)
    return replace(case, engines=tuple(engines), fleet=fleet)


ROLES = st.sampled_from(["prefill", "decode"])
LINK_BYTES_PER_S = st.sampled_from([10**8, 3 * 10**8, 10**9, 10**9, 2 * 10**9 + 1, 10**12])


slow_to_draw = hypothesis_settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@slow_to_draw
@given(cases())
def test_core_equals_reference(case: Case) -> None:
    expected = run_reference(case)
    if any(row["preemptions"] for row in expected.requests):
        event("preempted")
    if any(row["cached_tokens"] for row in expected.requests):
        event("prefix hit")
    if any(row["status"] == 2 for row in expected.requests):
        event("rejected")
    assert_equal(finish(build_core(case)), expected)


TIGHT_PREFILL = Settings(
    max_num_seqs=4,
    max_num_batched_tokens=4,
    max_model_len=40,
    block_size=1,
    num_gpu_blocks=6,
    long_prefill_token_threshold=2,
    scheduler_reserve_full_isl=False,
    async_scheduling=True,
    role="prefill",
    link_bytes_per_s=10**9,
)
PROMISED = Case(
    (
        (TIGHT_PREFILL, (100, 0, 0, 0)),
        (replace(TIGHT_PREFILL, role="decode", num_gpu_blocks=30), (100, 0, 0, 0)),
    ),
    (Job(0, 5, 3), Job(0, 2, 3)),
    transfers=Transfers(1),
)
"""The second prompt is complete, its step in flight, when the first runs out of blocks (12.3)."""


@slow_to_draw
@example(PROMISED)
@example(replace(PROMISED, transfers=Transfers(1, layers=2)))
@given(disaggregated_cases())
def test_disaggregated_core_equals_reference(case: Case) -> None:
    expected = run_reference(case)
    starts = Counter(
        row["transfer_end_ns"] for row in expected.requests if row["transfer_end_ns"] >= 0
    )
    event(f"transfers: {min(3, sum(starts.values()))}")
    if any(row["preemptions"] for row in expected.requests):
        event("preempted")
    assert_equal(finish(build_core(case)), expected)
    sliced = finish(build_core(case, record_steps=False), 1)
    assert rows_of(sliced.request_columns()) == expected.requests


PATIENT = Settings(
    max_num_seqs=4,
    max_num_batched_tokens=40,
    max_model_len=40,
    block_size=2,
    num_gpu_blocks=20,
    enable_prefix_caching=True,
)
ABORTED = Case(
    ((PATIENT, (100, 0, 0, 0)),),
    (Job(0, 6, 20, blocks=(0, 1, 2)), Job(1200, 6, 2, blocks=(0, 1, 2))),
    fleet=FleetRules(timeout_ns=450),
)
"""The first request times out in its fifth step; the second finds what it left (13.5)."""


@slow_to_draw
@example(ABORTED)
@example(replace(ABORTED, engines=((replace(PATIENT, async_scheduling=True), (100, 0, 0, 0)),)))
@given(changing_cases())
def test_changing_core_equals_reference(case: Case) -> None:
    expected = run_reference(case)
    for name, status in (("rejected", 2), ("failed", 3), ("timed out", 4)):
        if any(row["status"] == status for row in expected.requests):
            event(name)
    if any(row["retries"] and row["status"] == 1 for row in expected.requests):
        event("retried and completed")
    run = finish(build_core(case))
    assert_equal(run, expected)
    assert all(engine.used_blocks == 0 for engine in run.engine_stats())
    sliced = finish(build_core(case, record_steps=False), 1)
    assert rows_of(sliced.request_columns()) == expected.requests


def test_a_content_of_one_request_is_found_again_where_a_cache_outlived_it() -> None:
    side = Settings(
        max_num_seqs=1, max_num_batched_tokens=1, max_model_len=24, block_size=1, num_gpu_blocks=6,
        enable_prefix_caching=True, scheduler_reserve_full_isl=False, async_scheduling=False,
        link_bytes_per_s=10**8,
    )  # fmt: skip
    case = Case(
        tuple((replace(side, role=role), (0, 0, 0, 0)) for role in ("prefill", "decode")),
        (Job(0, 1, 2, blocks=(0,)),),
        transfers=Transfers(1, None, 0, 0),
        fleet=FleetRules(((1, 1, "fail"),), 1, None, None, None),
    )
    expected = run_reference(case)
    assert expected.requests[0]["retries"] == 1
    assert_equal(finish(build_core(case)), expected)


@slow_to_draw
@given(changing_disaggregated_cases())
def test_changing_disaggregated_core_equals_reference(case: Case) -> None:
    expected = run_reference(case)
    for name, status in (("rejected", 2), ("failed", 3), ("timed out", 4)):
        if any(row["status"] == status for row in expected.requests):
            event(name)
    for row in expected.requests:
        if row["retries"] and row["status"] == 1:
            event(f"retried and completed, {'' if row['transfer_end_ns'] > 0 else 'not '}sent")
    run = finish(build_core(case))
    assert_equal(run, expected)
    assert all(engine.used_blocks == 0 for engine in run.engine_stats())
    sliced = finish(build_core(case, record_steps=False), 1)
    assert rows_of(sliced.request_columns()) == expected.requests


@slow_to_draw
@given(grouped_cases())
def test_core_of_engines_that_step_together_equals_reference(case: Case) -> None:
    expected = run_reference(case)
    run = finish(build_core(case))
    assert_equal(run, expected)
    stats = run.engine_stats()
    assert all(engine.used_blocks == 0 for engine in stats)
    if any(engine.dummy_steps for engine in stats):
        event("an idle engine was dragged along")
    if any(row["preemptions"] for row in expected.requests):
        event("preempted")
    sliced = finish(build_core(case, record_steps=False), 1)
    assert sliced.trace_hash() == run.trace_hash()
    assert rows_of(sliced.request_columns()) == expected.requests


@slow_to_draw
@given(cases() | disaggregated_cases() | changing_cases())
def test_a_group_of_one_is_an_engine_by_itself(case: Case) -> None:
    if case.fleet:
        case = replace(case, fleet=replace(case.fleet, autoscaling=None))
    alone = [(replace(own, batching_strategy="continuous"), costs) for own, costs in case.engines]
    grouped = [
        (replace(own, data_parallel_group=group), costs) for group, (own, costs) in enumerate(alone)
    ]
    expected = finish(build_core(replace(case, engines=tuple(alone))))
    run = finish(build_core(replace(case, engines=tuple(grouped))))
    assert run.trace_hash() == expected.trace_hash()
    assert stats_of(run) == stats_of(expected)
    assert rows_of(run.request_columns()) == rows_of(expected.request_columns())
    assert rows_of(run.step_columns()) == rows_of(expected.step_columns())


TWO_BLOCKS = Settings(
    max_num_seqs=2,
    max_num_batched_tokens=2,
    max_model_len=24,
    block_size=3,
    num_gpu_blocks=3,
    scheduling_policy="priority",
    scheduler_reserve_full_isl=False,
)
"""A request out of blocks can be its own victim (4.4): nothing is scheduled."""


@pytest.mark.parametrize(
    ("settings", "jobs", "clients"),
    [
        pytest.param(
            TWO_BLOCKS,
            (Job(0, 2, 3), Job(0, 1, 2)),
            {},
            id="an idle engine that selected nothing after a preemption schedules again",
        ),
        pytest.param(
            replace(TWO_BLOCKS, async_scheduling=True),
            (Job(0, 2, 3), Job(0, 1, 2)),
            {},
            id="token times after a schedule that preempted and selected nothing",
        ),
        pytest.param(
            TWO_BLOCKS,
            (*(Job(0, 0, 0),) * 3, Job(0, 2, 3), Job(1, 1, 2)),
            {"max_concurrency": 3, "request_latency_ns": 1},
            id="requests sent in one nanosecond keep their order",
        ),
        pytest.param(
            replace(TWO_BLOCKS, num_gpu_blocks=12, block_size=1, max_num_batched_tokens=5),
            (Job(0, 3, 14, 2), Job(0, 2, 7, 1), Job(0, 1, 9, 1), Job(0, 2, 9, 1), Job(0, 9, 5, 2)),
            {},
            id="equal requests don't preempt each other for ever",
        ),
        pytest.param(
            replace(TWO_BLOCKS, max_num_seqs=3, batching_strategy="windowed", batch_window_ns=10),
            (Job(0, 1, 1, priority=1), Job(5, 1, 1, priority=0)),
            {},
            id="a window counts from the earliest to join, not from the most urgent",
        ),
    ],
)
def test_cases_that_fuzzing_found(
    settings: Settings, jobs: tuple[Job, ...], clients: dict[str, int]
) -> None:
    case = Case(((settings, (1, 0, 0, 0)),), jobs, **clients)  # type: ignore[arg-type]
    assert_equal(finish(build_core(case)), run_reference(case))


@slow_to_draw
@given(cases())
def test_slices_and_recording_change_nothing(case: Case) -> None:
    whole = finish(build_core(case))
    for max_events in (1, 7):
        sliced = finish(build_core(case), max_events)
        assert sliced.trace_hash() == whole.trace_hash()
        assert rows_of(sliced.request_columns()) == rows_of(whole.request_columns())
        assert rows_of(sliced.step_columns()) == rows_of(whole.step_columns())
    assert finish(build_core(case, record_steps=False)).trace_hash() == whole.trace_hash()


@st.composite
def long_cases(draw: st.DrawFn) -> Case:
    """Long outputs and rare arrivals: most steps only decode."""
    settings = replace(
        draw(engine_settings()),
        max_model_len=400,
        max_num_batched_tokens=draw(st.sampled_from([3, 40, 400])),
        enable_chunked_prefill=True,
        num_gpu_blocks=draw(st.sampled_from([30, 120, 500])),
        batching_strategy="continuous",
    )
    jobs, now = [], 0
    for _ in range(draw(st.integers(1, 10))):
        now += draw(st.sampled_from([0, 1, 99, 100, 101, 700, 5000, 20_000]))
        length = st.integers(1, 30)
        jobs.append(Job(now, draw(length), draw(length | st.integers(30, 300))))
    costs = draw(st.sampled_from([(100, 0, 0, 0), (100, 3, 5, 0), (1, 0, 5, 1)]))
    case = draw(cases())
    count = draw(st.integers(1, 3))
    return replace(case, engines=((settings, costs),) * count, jobs=tuple(jobs))


@slow_to_draw
@given(cases() | long_cases(), st.sampled_from([1, 7, 10**6]))
def test_steps_taken_together_change_nothing(case: Case, max_events: int) -> None:
    stepped = finish(build_core(case, record_steps=False, step_by_step=True))
    coasted = finish(build_core(case, record_steps=False), max_events)
    assert coasted.trace_hash() == stepped.trace_hash()
    assert stats_of(coasted) == stats_of(stepped)
    assert rows_of(coasted.request_columns()) == rows_of(stepped.request_columns())
    requests = np.arange(len(case.jobs), dtype=np.int64)
    for ours, theirs in zip(
        coasted.token_times(requests), stepped.token_times(requests), strict=True
    ):
        assert ours.tolist() == theirs.tolist()


def test_workloads_are_interesting() -> None:
    """Enough of what is drawn must preempt, or equality proves little."""
    seen: Counter[str] = Counter()

    @hypothesis_settings(slow_to_draw, max_examples=200, derandomize=True, database=None)
    @given(cases())
    def count(case: Case) -> None:
        run = run_reference(case)
        seen["all"] += 1
        seen["preempted"] += any(row["preemptions"] for row in run.requests)
        seen["hits"] += any(row["cached_tokens"] for row in run.requests)
        seen["rejected"] += any(row["status"] == 2 for row in run.requests)

    count()
    print(seen)
    assert seen["preempted"] > 0.3 * seen["all"]
    assert seen["hits"] > 0.1 * seen["all"]
