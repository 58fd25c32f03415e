"""Decisions that runs write replay equal, and the timeline of runs is the one of the spec."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import WorkloadError
from vllm_benchmarks.decision_traces import DecisionTrace, read_trace
from vllm_benchmarks.replay_decisions import compare

MS = 1_000_000
TINY = ["--num-gpu-blocks-override", "40", "--max-model-len", "512"]
SYNC = "--no-async-scheduling"

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The files of one run, read."""

    result: dict[str, Any]
    requests: list[dict[str, int]]
    steps: list[dict[str, int]]
    traces: list[DecisionTrace]

    @property
    def hits(self) -> int:
        return sum(engine["prefix_cache_hits"] for engine in self.result["engines"])

    @property
    def preemptions(self) -> int:
        return sum(engine["preemptions"] for engine in self.result["engines"])


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Simulates rows of a Mooncake trace; every trace of decisions must replay equal."""

    def simulate(rows: list[Row], *words: str, engines: int = 1) -> Outcome:
        trace, result, requests, steps, decisions = (
            tmp_path / name for name in ("t.jsonl", "r.json", "q.csv", "s.csv", "x.jsonl")
        )
        trace.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        files = ["--output", result, "--requests-output", requests, "--steps-output", steps]
        common = ["--model", "llama-7b", "--xpu", "h100-sxm", "--quiet", "--trace", str(trace)]
        # Without a calibration: its front end would shift what the spec's timeline says.
        common += ["--performance-model", "roofline"]
        common += ["--trace-block-size", "16", "--data-parallel-size", str(engines)]
        written = [*map(str, files), "--decisions-output", str(decisions)]
        assert main([*common, *written, *words]) == 0
        names = [f"x.engine{k}.jsonl" for k in range(engines)] if engines > 1 else ["x.jsonl"]
        assert sorted(path.name for path in tmp_path.glob("x*")) == names
        traces = [read_trace(tmp_path / name) for name in names]
        for one in traces:
            comparison = compare(one)
            assert comparison.difference is None
            assert comparison.equal == comparison.compared > 0
        return Outcome(json.loads(result.read_text()), read_csv(requests), read_csv(steps), traces)

    return simulate


def read_csv(path: Path) -> list[dict[str, int]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: int(float(value)) for name, value in row.items()} for row in rows]


def row(timestamp: float, prompt: int, output: int, **marks: Any) -> Row:
    return {"timestamp": timestamp, "input_length": prompt, "output_length": output, **marks}


def shared_rows(count: int, *, gap_ms: float, longest: int = 25, priorities: int = 1) -> list[Row]:
    """Requests that begin with one of three prefixes and go on with blocks of their own."""
    draw = random.Random(5)
    rows = []
    for index in range(count):
        blocks = draw.randint(6, longest)
        group, shared = draw.randrange(3), draw.randint(2, 5)
        ids = [100 * group + place for place in range(shared)]
        ids += [10_000 + 100 * index + place for place in range(blocks - shared)]
        prompt = 16 * blocks - draw.randint(0, 15)
        marks: dict[str, Any] = {"hash_ids": ids}
        if priorities > 1:
            marks["priority"] = draw.randrange(priorities)
        rows.append(row(gap_ms * index, prompt, draw.randint(1, 100), **marks))
    return rows


def session_rows(
    sessions: int, turns: int, *, gap_ms: float = 3.0, priorities: int = 1
) -> list[Row]:
    """Conversations whose turns repeat what was said and add to it."""
    draw = random.Random(6)
    rows: list[Row] = []
    for turn in range(turns):
        for session in range(sessions):
            earlier = [one for one in rows if one["session_id"] == session]
            said = earlier[-1]["input_length"] + earlier[-1]["output_length"] if earlier else 0
            marks = {"session_id": session, "priority": draw.randrange(priorities)}
            prompt = said + draw.randint(5, 60)
            rows.append(row(gap_ms * len(rows) + 40 * turn, prompt, draw.randint(5, 50), **marks))
    return rows


# --- Replays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
@pytest.mark.parametrize("caching", [True, False], ids=["caching", "plain"])
def test_shared_prefixes_replay_equal(run: Run, order: list[str], caching: bool) -> None:
    words = [] if caching else ["--no-enable-prefix-caching"]
    outcome = run(shared_rows(80, gap_ms=7), *order, *words)
    assert outcome.result["completed"] == 80
    assert (outcome.hits > 0) == caching
    assert any("blocks" in add for add in outcome.traces[0].additions) == caching


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--no-enable-prefix-caching"],
        ["--max-num-batched-tokens", "300", "--long-prefill-token-threshold", "50"],
        ["--no-scheduler-reserve-full-isl", "--watermark", "0.05"],
    ],
    ids=["caching", "plain", "chunks", "watermark"],
)
def test_a_tiny_cache_replays_equal(
    run: Run, order: list[str], policy: str, words: list[str]
) -> None:
    rows = shared_rows(80, gap_ms=7, priorities=3 if policy == "priority" else 1)
    outcome = run(rows, *TINY, *order, "--scheduling-policy", policy, *words)
    assert outcome.result["completed"] == 80
    assert outcome.preemptions > 5
    recorded = sum(len(line.content.get("preempted", ())) for line in outcome.traces[0].lines)
    assert recorded == outcome.preemptions == sum(one["preemptions"] for one in outcome.requests)


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
@pytest.mark.parametrize("tiny", [True, False])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_sessions_replay_equal(run: Run, order: list[str], tiny: bool, policy: str) -> None:
    rows = session_rows(8, 4, priorities=2 if policy == "priority" else 1)
    words = TINY if tiny else []
    outcome = run(rows, *words, *order, "--scheduling-policy", policy)
    assert outcome.result["completed"] == len(rows)
    assert outcome.hits > 0
    assert (outcome.preemptions > 0) == tiny


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
def test_turns_and_others_sent_in_one_nanosecond_replay_equal(run: Run, order: list[str]) -> None:
    # An answer frees two places at once: rows then join in another order than the file's.
    rows = [{**one, "timestamp": 0} for one in session_rows(8, 4)]
    words = ["--max-concurrency", "5", "--scheduling-policy", "priority"]
    outcome = run(rows, *TINY, *words, *order)
    assert outcome.result["completed"] == len(rows)


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
@pytest.mark.parametrize(
    "words",
    [
        ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "512"],
        ["--batching-strategy", "static", "--max-batch-size", "6"],
    ],
    ids=["whole prompts", "static"],
)
def test_settings_of_our_own_traces_replay_equal(
    run: Run, words: list[str], order: list[str]
) -> None:
    outcome = run(shared_rows(60, gap_ms=3), *TINY, *words, *order)
    assert outcome.result["completed"] == 60


def test_windowed_batching_cannot_be_replayed(run: Run) -> None:
    with pytest.raises(WorkloadError, match="batching_strategy=windowed cannot be replayed"):
        run([row(0, 10, 2)], "--batching-strategy", "windowed")


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
def test_equal_priorities_of_waiting_senders_replay_equal(run: Run, order: list[str]) -> None:
    # In a closed loop the moment of sending, which breaks ties, is later than the trace's times.
    words = ["--max-concurrency", "6", "--scheduling-policy", "priority"]
    outcome = run(shared_rows(80, gap_ms=0, priorities=2), *TINY, *words, *order)
    assert outcome.preemptions > 5


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
def test_arrivals_within_a_microsecond_replay_equal(run: Run, order: list[str]) -> None:
    rows = shared_rows(60, gap_ms=0.0003, priorities=2)
    outcome = run(rows, *TINY, "--scheduling-policy", "priority", *order)
    assert outcome.preemptions > 5


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
def test_each_of_two_engines_has_its_file(run: Run, order: list[str]) -> None:
    rows = shared_rows(80, gap_ms=4)
    outcome = run(rows, *TINY, *order, engines=2)
    added = [{add["id"] for add in trace.additions} for trace in outcome.traces]
    for engine, ids in enumerate(added):
        routed = {index for index, one in enumerate(outcome.requests) if one["engine"] == engine}
        assert ids == routed
        assert len(ids) == 40
    assert outcome.preemptions > 5


# --- Prefix caching ---------------------------------------------------------------------------


def test_hits_shorten_the_first_token(run: Run) -> None:
    ids = list(range(60))
    rows = [row(500 * index, 970, 5, hash_ids=[*ids, 100 + index]) for index in range(5)]
    cached = run(rows)
    plain = run(rows, "--no-enable-prefix-caching")
    assert cached.hits == 4 * 960
    assert plain.hits == 0
    assert [one["cached_tokens"] for one in cached.requests] == [0, 960, 960, 960, 960]
    assert [one["cached_tokens"] for one in plain.requests] == [0] * 5
    assert cached.requests[0]["ttft_ns"] == plain.requests[0]["ttft_ns"]
    for with_hit, without in zip(cached.requests[1:], plain.requests[1:], strict=True):
        assert with_hit["ttft_ns"] < without["ttft_ns"]
    assert cached.result["mean_ttft_ms"] < plain.result["mean_ttft_ms"]


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
@pytest.mark.parametrize(("prompt", "output"), [(100, 30), (100, 28), (100, 29), (96, 200), (5, 5)])
def test_a_second_turn_finds_the_blocks_of_question_and_answer(
    run: Run, prompt: int, output: int, order: list[str]
) -> None:
    said = prompt + output
    rows = [row(0, prompt, output, session_id="a"), row(1, said + 40, 3, session_id="a")]
    first, second = run(rows, *order).requests
    assert first["cached_tokens"] == 0
    # The last token of an answer is never computed, so a block that it completes is not found.
    assert second["cached_tokens"] == (said - 1) // 16 * 16


@pytest.mark.parametrize("words", [[], ["--response-latency-ms", "2.5"]])
def test_a_turn_waits_for_the_answer_before_it(run: Run, words: list[str]) -> None:
    rows = session_rows(6, 4)
    outcome = run(rows, *words)
    turns: dict[int, list[dict[str, int]]] = {}
    for one, told in zip(rows, outcome.requests, strict=True):
        turns.setdefault(one["session_id"], []).append({**told, "due": one["timestamp"] * MS})
    waited = 0
    for mine in turns.values():
        for before, after in itertools.pairwise(mine):
            assert after["arrival_ns"] == max(after["due"], before["finished_ns"])
            waited += after["arrival_ns"] > after["due"]
    assert waited > 3


# --- The timeline -----------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "later"), [([SYNC], 1), ([], 2)], ids=["sync", "async"])
def test_who_arrives_during_a_step_joins_the_next_or_the_one_after(
    run: Run, order: list[str], later: int
) -> None:
    outcome = run([row(0, 100, 40), row(50, 100, 5)], *order)
    arrival = outcome.requests[1]["arrival_ns"]
    assert arrival == 50 * MS
    during = [
        index
        for index, step in enumerate(outcome.steps)
        if step["start_ns"] < arrival < step["end_ns"]
    ]
    ends = [step["end_ns"] for step in outcome.steps]
    assert [ends.index(outcome.requests[1]["first_token_ns"]) - k for k in during] == [later]


@pytest.mark.parametrize("order", [[], [SYNC]], ids=["async", "sync"])
def test_latencies_of_the_front_end_shift_an_idle_engine_exactly(
    run: Run, order: list[str]
) -> None:
    rows = [row(5, 300, 10), row(1000, 64, 3)]
    plain = run(rows, *order)
    words = ["--request-latency-ms", "3.25", "--response-latency-ms", "1.5"]
    shifted = run(rows, *order, *words)
    for before, after in zip(plain.requests, shifted.requests, strict=True):
        assert after["arrival_ns"] == before["arrival_ns"]
        for name in ("ttft_ns", "e2el_ns"):
            assert after[name] == before[name] + 4_750_000
        assert after["tpot_ns"] == before["tpot_ns"]


def starts(outcome: Outcome) -> list[int]:
    return [step["start_ns"] for step in outcome.steps]


def ends(outcome: Outcome) -> list[int]:
    return [step["end_ns"] for step in outcome.steps]


def test_overhead_comes_before_each_synchronous_step(run: Run) -> None:
    rows = [row(0, 100, 20)]
    plain = run(rows, SYNC)
    outcome = run(rows, SYNC, "--scheduling-overhead-ms", "2")
    assert len(outcome.steps) == len(plain.steps) == 20
    assert starts(plain) == [0, *ends(plain)[:-1]]
    assert starts(outcome) == [2 * MS, *(end + 2 * MS for end in ends(outcome)[:-1])]
    assert outcome.requests[0]["e2el_ns"] == plain.requests[0]["e2el_ns"] + 20 * 2 * MS


def test_overhead_hides_behind_a_running_step(run: Run) -> None:
    rows = [row(0, 100, 20)]
    plain = run(rows)
    outcome = run(rows, "--scheduling-overhead-ms", "2")
    assert len(outcome.steps) == len(plain.steps) == 20
    assert starts(outcome) == [2 * MS, *ends(outcome)[:-1]]
    assert outcome.requests[0]["e2el_ns"] == plain.requests[0]["e2el_ns"] + 2 * MS


def test_overhead_longer_than_a_step_shows_in_part(run: Run) -> None:
    outcome = run([row(0, 100, 20)], "--scheduling-overhead-ms", "30")
    done = ends(outcome)
    decided = [0, 0, *done[:-2]]
    before = [0, *done[:-1]]
    expected = [max(at + 30 * MS, end) for at, end in zip(decided, before, strict=True)]
    assert starts(outcome) == expected
    assert any(start > end for start, end in zip(expected, before, strict=True))
