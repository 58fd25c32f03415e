"""Whatever happens to engines, no request is lost or counted twice and all blocks come back."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings

import llm_inference_simulator._core as core
from llm_inference_simulator.cluster import (
    AutoscalingSettings,
    EngineSettings,
    FleetSettings,
    TransferSettings,
)

MS = 1_000_000
Role = Literal["aggregated", "prefill", "decode"]
ROUTERS = (
    "round_robin",
    "random",
    "least_outstanding",
    "least_outstanding_tokens",
    "power_of_two",
    "session_affinity",
    "prefix_aware",
)


def random_run(
    seed: int,
    router: str,
    fleet: dict[str, Any],
    stages: int,
    layers: int | None = None,
    *,
    grouped: bool = False,
    **engine: Any,
) -> core.Simulation:
    """Two thousand requests on twelve engines, which change about a hundred times.

    ``layers``: five of them prefill and seven decode, and so many layers are sent one by one.
    ``grouped``: those of a role step together.
    """
    rng = np.random.default_rng(seed)
    count, engines = 2000, 12
    arrivals = np.sort(rng.integers(0, 4000 * MS, count))
    times = np.sort(rng.integers(0, 4500 * MS, 100))
    planned = tuple(
        (int(time), int(rng.integers(engines)), str(rng.choice(["fail", "drain", "up", "up"])))
        for time in times
    )
    after = np.where(rng.random(count) < 0.2, np.arange(count) - 1, -1)
    after[0] = -1
    blocks = rng.integers(0, 6, count)
    offsets = np.concatenate([[0], np.cumsum(blocks)])
    ids = [
        family * 10 + i
        for size, family in zip(blocks, rng.integers(0, 20, count), strict=True)
        for i in range(size)
    ]
    settings = EngineSettings(
        link_bytes_per_s=10**9,
        max_num_seqs=16,
        max_num_batched_tokens=256,
        max_model_len=512,
        block_size=16,
        num_gpu_blocks=80,
        scheduler_reserve_full_isl=False,
        pipeline_parallel_size=stages,
        stage_links=((1000, 100, 10**9),) * (stages - 1),
        **engine,
    )
    cost = core.CostModel.fixed(2 * MS // stages, 2_000, 50_000)
    sides: list[tuple[Role, int]] = [("aggregated", engines)]
    if layers is not None:
        sides = [("prefill", 5), ("decode", 7)]
    return core.Simulation(
        pools=[
            (
                replace(settings, role=role, data_parallel_group=place if grouped else None),
                [cost] * stages,
                size,
            )
            for place, (role, size) in enumerate(sides)
        ],
        transfer=None
        if layers is None
        else TransferSettings(kv_bytes_per_token=100_000, latency_ns=MS, layers=layers),
        router=router,
        arrival_ns=arrivals.astype(np.int64),
        prompt_tokens=np.maximum(rng.integers(0, 300, count), blocks * 16).astype(np.int64),
        output_tokens=rng.integers(0, 120, count).astype(np.int64),
        after=after.astype(np.int64),
        think_ns=rng.choice([0, 1, 50 * MS, 700 * MS], count).astype(np.int64),
        block_offsets=offsets.astype(np.int64),
        block_ids=np.array(ids, dtype=np.int64),
        fleet=FleetSettings(planned=planned, **fleet),
    )


scalings = st.builds(
    AutoscalingSettings,
    min_engines=st.integers(1, 12),
    interval_ns=st.integers(5 * MS, 200 * MS),
    start_above=st.integers(0, 5),
    drain_below=st.integers(0, 3),
    startup_ns=st.integers(0, 500 * MS),
)
fleets = st.fixed_dictionaries(
    {
        "max_retries": st.integers(0, 4),
        "timeout_ns": st.none() | st.integers(1, 3000 * MS),
        "max_queue": st.none() | st.integers(0, 20),
        "autoscaling": st.none() | scalings,
    }
)


def test_every_request_ends_once_and_every_block_comes_back() -> None:
    """Over at least 100,000 events, each of which hypothesis may place differently."""
    totals: Counter[str] = Counter()

    @hypothesis_settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(
        st.integers(0, 2**32),
        st.sampled_from(ROUTERS),
        fleets,
        st.sampled_from([1, 1, 3]),
        st.sampled_from([None, 0, 8]),
        st.sampled_from([False, False, True]),
        st.booleans(),
        st.booleans(),
    )
    def check(
        seed: int,
        router: str,
        fleet: dict[str, Any],
        stages: int,
        layers: int | None,
        grouped: bool,
        overlapped: bool,
        caching: bool,
    ) -> None:
        run = random_run(
            seed,
            router,
            fleet,
            stages,
            layers,
            grouped=grouped and fleet["autoscaling"] is None,
            async_scheduling=overlapped,
            enable_prefix_caching=caching,
        )
        progress = run.run_slice(2**62)
        assert progress.done
        columns = run.request_columns()
        status, engine = columns["status"], columns["engine"]
        assert progress.answered == progress.arrived == len(status)
        assert np.bincount(status, minlength=5)[1:].sum() == len(status)
        assert (columns["finished_ns"] >= columns["arrival_ns"]).all()
        assert (columns["retries"] <= fleet["max_retries"]).all()
        # A request enters one engine of a side more often than it is retried, unless none was up.
        entered = sum(stats.requests for stats in run.engine_stats())
        sides = 1 if layers is None else 2
        assert entered <= sides * ((engine >= 0).sum() + columns["retries"].sum())
        assert all(stats.used_blocks == 0 for stats in run.engine_stats())
        done = status == 1
        times, offsets = run.token_times(np.flatnonzero(done).astype(np.int64))
        assert (np.diff(offsets) == columns["output_tokens"][done]).all()
        inside = np.ones(len(times), dtype=bool)
        inside[offsets[:-1][offsets[:-1] < len(times)]] = False
        assert (np.diff(times)[inside[1:]] > 0).all()
        totals[f"steps, {layers} layers"] += progress.steps
        totals["requests"] += len(status)

    check()
    print(totals)
    assert sum(totals.values()) >= 200_000
    for layers in (None, 0, 8):
        assert totals[f"steps, {layers} layers"] >= 20_000
