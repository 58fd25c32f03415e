"""Sessions and agentic chains: turns follow answers, prompts grow, clients think."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload_config import WorkloadConfig

SECOND = 10**9
FIXED = {"think_time_distribution": "fixed", "tool_call_time_distribution": "fixed"}


def build(seed: int = 0, /, **fields: Any) -> Workload:
    return build_workload(WorkloadConfig.parse(fields), seed)


def test_a_chain_is_turns_with_tool_calls_and_a_growing_prompt() -> None:
    workload = build(
        session_turns=2,
        tool_calls_per_turn=2,
        think_time=3.0,
        tool_call_time=0.5,
        tool_result_len=4,
        random_input_len=10,
        random_output_len=5,
        random_prefix_len=100,
        num_prompts=7,
        **FIXED,
    )
    assert workload.after is not None
    assert workload.think_ns is not None
    assert workload.after.tolist() == [-1, 0, 1, 2, 3, 4, -1]
    tool, think = SECOND // 2, 3 * SECOND
    assert workload.think_ns.tolist() == [0, tool, tool, think, tool, tool, 0]
    # 100 of the prefix, 10 a turn, 5 an answer, 4 a tool's result.
    assert workload.prompt_tokens.tolist() == [110, 119, 128, 143, 152, 161, 110]
    assert workload.segments is not None
    offsets, ids = workload.segments.blocks(5)
    blocks = [ids[a:b].tolist() for a, b in pairwise(offsets)]
    # What is named reaches to the answer's end, and the next prompt begins with all of it.
    assert [len(own) for own in blocks] == [23, 24, 26, 29, 31, 33, 23]
    for earlier, later in pairwise(blocks[:6]):
        assert later[: len(earlier)] == earlier
    assert blocks[6][:20] == blocks[0][:20]
    assert not set(blocks[6][20:]) & {block for own in blocks[:6] for block in own}


def test_each_session_has_one_of_the_prefixes() -> None:
    workload = build(
        session_turns=3,
        num_prompts=300,
        random_input_len=10,
        random_output_len=6,
        random_prefix_len=16,
        random_num_prefixes=4,
    )
    assert workload.segments is not None
    offsets, ids = workload.segments.blocks(16)
    first = ids[offsets[:-1]].reshape(100, 3)
    assert (first == first[:, :1]).all()
    assert len(np.unique(first)) == 4


def test_rates_count_requests_and_sessions_arrive_more_rarely() -> None:
    workload = build(session_turns=4, tool_calls_per_turn=1, request_rate=40.0, duration=1000.0)
    assert workload.after is not None
    starts = workload.arrival_ns[workload.after < 0]
    # 5 sessions/s of 8 requests: a Poisson number of sessions.
    assert abs(len(starts) - 5000) < 5 * 5000**0.5
    assert len(workload) == 8 * len(starts)
    assert workload.duration_ns == 1000 * SECOND
    counted = build(session_turns=4, request_rate=10.0, num_prompts=400)
    assert counted.arrival_ns[-1] == 40 * SECOND
    at_once = build(session_turns=4, num_prompts=10)
    assert len(at_once) == 10
    assert not at_once.arrival_ns.any()


def test_means_are_those_asked_for() -> None:
    workload = build(
        session_turns=3.5,
        session_distribution="geometric",
        tool_calls_per_turn=1.5,
        think_time=8.0,
        tool_call_time=2.0,
        num_prompts=200_000,
    )
    assert workload.after is not None
    assert workload.think_ns is not None
    sessions = int((workload.after < 0).sum())
    # Turns have the variance m(m - 1), calls m(m + 1): of a sum of a random number of terms.
    variance = 3.5 * (1.5 * 2.5) + 3.5 * 2.5 * 2.5**2
    error = (variance / sessions) ** 0.5
    assert abs(len(workload) / sessions - 3.5 * 2.5) < 5 * error
    waits = workload.think_ns[workload.after >= 0] / SECOND
    turns, calls = 2.5, 3.5 * 1.5
    expected = (8.0 * turns + 2.0 * calls) / (turns + calls)
    assert abs(waits.mean() - expected) < 5 * waits.std() / len(waits) ** 0.5


def test_a_longer_workload_begins_with_a_shorter_one() -> None:
    fields: dict[str, Any] = {
        "session_turns": 3.0,
        "session_distribution": "geometric",
        "tool_calls_per_turn": 0.5,
        "think_time": 1.0,
        "tool_call_time": 1.0,
        "random_range_ratio": 0.5,
    }
    short, long = build(3, num_prompts=500, **fields), build(3, num_prompts=1300, **fields)
    for name in ("prompt_tokens", "output_tokens", "after", "think_ns"):
        assert getattr(short, name).tolist() == getattr(long, name)[:500].tolist()
    capped = build(3, num_prompts=500, request_rate=50.0, duration=1000.0, **fields)
    whole = build(3, request_rate=50.0, duration=1000.0, **fields)
    assert len(capped) == 500
    assert capped.arrival_ns.tolist() == whole.arrival_ns[:500].tolist()
    assert capped.duration_ns == capped.arrival_ns[-1]


def session_run(**workload: Any) -> tuple[dict[str, Any], Workload]:
    config = SimulatorConfig.from_dict(
        {
            "model": "llama-3.1-8b",
            "xpu": "h100-sxm",
            "cluster": {"data_parallel_size": 2, "router": "session_affinity"},
            "workload": {
                "session_turns": 5,
                "think_time": 2.0,
                "num_prompts": 300,
                "request_rate": 20.0,
                "random_input_len": 200,
                "random_range_ratio": 0.5,
                "random_output_len": 60,
                **workload,
            },
        }
    )
    return simulate(config).requests, build_workload(config.workload, config.seed)


def test_a_session_never_overtakes_itself_and_thinks_as_long_as_it_should() -> None:
    rows, workload = session_run()
    assert workload.after is not None
    assert workload.think_ns is not None
    later = np.flatnonzero(workload.after >= 0)
    assert len(later) == 240
    answered = rows["finished_ns"][workload.after[later]]
    assert rows["arrival_ns"][later].tolist() == (answered + workload.think_ns[later]).tolist()
    # Whole blocks of what was said before are found, the last answer's last token excepted.
    said = rows["prompt_tokens"] + rows["output_tokens"]
    found = (said[workload.after[later]] - 1) // 16 * 16
    assert rows["cached_tokens"][later].tolist() == found.tolist()
    assert not rows["cached_tokens"][workload.after < 0].any()


def test_thinking_takes_no_place_of_a_closed_loop() -> None:
    rows, workload = session_run(max_concurrency=4, request_rate=float("inf"))
    assert workload.after is not None
    assert workload.think_ns is not None
    later = workload.after >= 0
    ready = rows["finished_ns"][workload.after[later]] + workload.think_ns[later]
    assert (rows["arrival_ns"][later] >= ready).all()
    events = [(time, 1) for time in rows["arrival_ns"]] + [(t, -1) for t in rows["finished_ns"]]
    depth = np.cumsum([change for _, change in sorted(events)])
    assert depth.max() == 4


def test_a_trace_may_say_how_long_clients_think(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 10, "output_length": 5, "session_id": "a"},
        {"timestamp": 0, "input_length": 9, "output_length": 5, "session_id": 2, "think_time": 7},
        {"timestamp": 1, "input_length": 20, "output_length": 5, "session_id": "a"},
        {"timestamp": 1, "input_length": 30, "output_length": 1, "session_id": "a"}
        | {"think_time": 1500.5},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    workload = build(trace=str(path), trace_speedup=2.0)
    assert workload.after is not None
    assert workload.think_ns is not None
    assert workload.after.tolist() == [-1, -1, 0, 2]
    assert workload.think_ns.tolist()[2:] == [0, 750_250_000]
    assert workload.warnings == ("1 think_time are of first turns: they have no effect",)


@pytest.mark.parametrize(
    ("think", "message"),
    [
        ('"think_time": -1, "session_id": 1', "think_time='-1' is negative"),
        ('"think_time": "5", "session_id": 1', 'think_time="5" is not a number'),
        ('"think_time": 1e300, "session_id": 1', "think_time"),
        ('"think_time": 5', "there is no session_id"),
    ],
)
def test_bad_think_times_of_traces_are_refused(think: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"timestamp": 0, "input_length": 1, "output_length": 1, {think}}}\n')
    with pytest.raises(WorkloadError, match=message):
        build(trace=str(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"think_time": 2.0}, "think_time=2.0 describes generated sessions: give session_turns"),
        ({"session_turns": 2.5}, "session_turns=2.5 is not whole"),
        ({"session_turns": 0.5}, "session_turns=0.5"),
        ({"session_turns": 3, "tool_calls_per_turn": 0.3}, "tool_calls_per_turn=0.3 is not whole"),
        ({"session_turns": 3, "trace": "azure-conv-2023"}, "a trace has its own"),
        ({"session_turns": 3, "random_prompts_per_prefix": 2}, "random_prompts_per_prefix=2"),
    ],
)
def test_contradicting_sessions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**fields)


def test_sessions_beyond_what_is_held_are_refused() -> None:
    with pytest.raises(WorkloadError, match="session_turns=10000 make 20,000 sessions"):
        build(session_turns=10_000, num_prompts=200_000_000)
    with pytest.raises(WorkloadError, match="make prompts of"):
        build(session_turns=10, num_prompts=10, random_input_len=2**29)
