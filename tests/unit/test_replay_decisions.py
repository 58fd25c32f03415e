"""The replay of recorded decisions: equal where it must be, loud where it is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.errors import WorkloadError
from tests.property.test_reference_replays_vllm import ALL, GOLDEN
from vllm_benchmarks import replay_decisions
from vllm_benchmarks.decision_traces import read_trace

TINY = GOLDEN[0]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name.partition(".")[0])
def test_the_core_decides_as_vllm_did(path: Path) -> None:
    comparison = replay_decisions.compare(read_trace(path))
    assert comparison.difference is None
    assert comparison.equal == comparison.compared > 0


@pytest.mark.conformance
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name.partition(".")[0])
def test_the_core_decides_as_vllm_always_did(path: Path) -> None:
    assert replay_decisions.compare(read_trace(path)).difference is None


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write(path: Path, lines: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n", encoding="utf-8")
    return path


def test_a_difference_is_shown_with_the_lines_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(TINY)
    place = next(i for i, line in enumerate(lines) if i > 10 and line.get("schedule"))
    lines[place]["free"] += 1
    assert replay_decisions.main([str(TINY)]) == 0
    assert replay_decisions.main([str(TINY), str(write(tmp_path / "t.jsonl", lines))]) == 1
    out = capsys.readouterr().out
    assert f"first difference at line {place + 1}" in out
    assert f'"free": {lines[place]["free"]}' in out
    assert f'"free": {lines[place]["free"] - 1}' in out
    assert "1 of 2 traces equal" in out


def test_a_trace_without_counts_compares_what_it_has(tmp_path: Path) -> None:
    lines = lines_of(TINY)
    for line in lines:
        for name in ("free", "waiting", "running"):
            line.pop(name, None)
    comparison = replay_decisions.compare(read_trace(write(tmp_path / "t.jsonl", lines)))
    assert comparison.difference is None


HEADER = {"header": lines_of(TINY)[0]["header"]}
ADD = {"add": {"id": 0, "prompt": 8, "max_tokens": 2, "priority": 0, "arrival": 0.0}}


def header(**changes: Any) -> dict[str, Any]:
    return {"header": {**HEADER["header"], **changes}}


def addition(**changes: Any) -> dict[str, Any]:
    return {"add": {**ADD["add"], **changes}}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "is empty"),
        ([ADD], "line 1: the first line must be the header"),
        ([HEADER, HEADER], "line 2: a second header"),
        ([{"header": {"block_size": 16}}], "line 1: num_gpu_blocks"),
        ([{"header": {**HEADER["header"], "block_sise": 1}}], "'block_sise'; did you mean"),
        ([{"header": {**HEADER["header"], "block_size": "16"}}], "block_size='16' must be of type"),
        ([HEADER, {"nothing": 1}], "line 2: expected one of header, add, schedule, update"),
        ([HEADER, {"add": {"id": 0}}], "line 2: prompt, max_tokens, priority, arrival missing"),
        ([HEADER, ADD, ADD], "a request id is added twice"),
        ([HEADER, {"update": {"tokens": [], "finished": []}}], "line 2: no scheduled step"),
        ([HEADER, {"add": {**ADD["add"], "prompt": 10**6}}], "line 2: request 0 would be refused"),
        ([HEADER, {"schedule": [], "fre": 3}], "'fre'; did you mean 'free'"),
        ([header(block_size=10**12)], "line 1: block_size=1000000000000 must be from 1"),
        ([header(block_size=0)], "line 1: block_size=0 must be from 1"),
        ([header(watermark=float("nan"))], "line 1: watermark=nan must be from 0 to 1"),
        ([header(scheduling_policy="lifo")], "line 1: scheduling_policy="),
        (
            [header(enable_chunked_prefill=False, max_num_batched_tokens=1)],
            "line 1: max_num_batched_tokens=1",
        ),
        ([HEADER, addition(prompt=-1)], "line 2: prompt=-1 must be from 1"),
        ([HEADER, addition(prompt=10**15)], "line 2: prompt=1000000000000000 must be from 1"),
        ([HEADER, addition(arrival=-1.0)], "line 2: arrival=-1.0 must be from 0"),
        ([HEADER, addition(arrival=float("inf"))], "line 2: arrival=inf must be from 0"),
        ([HEADER, addition(priority=2**63)], "line 2: priority="),
        ([HEADER, addition(blocks=["x"])], "line 2: blocks holds 'x'"),
        ([HEADER, addition(blocks=[2**63])], "line 2: blocks holds 9223372036854775808"),
        ([HEADER, {"update": {"tokens": []}}], "line 2: finished missing"),
        ([HEADER, {"update": {"tokens": [], "finished": 3}}], "finished=3 must be of type list"),
        ([HEADER, {"update": {"tokens": [], "finished": ["a"]}}], "line 2: finished holds 'a'"),
        ([HEADER, {"update": {"tokens": [], "finished": []}, "free": 1}], "unknown field 'free'"),
        ([HEADER, {"schedule": []}], "line 2: preempted missing"),
        ([HEADER, {"schedule": [[0, 1]], "preempted": []}], "line 2: schedule holds [0, 1]"),
        ([HEADER, {"schedule": [[0, 0, "a"]], "preempted": []}], "line 2: schedule holds 'a'"),
        ([HEADER, {"schedule": [], "preempted": [], "free": -1}], "line 2: free=-1 must be from"),
        ([HEADER, {"schedule": [], "preempted": [True]}], "line 2: preempted holds True"),
    ],
)
def test_bad_traces_are_refused_with_their_line(
    tmp_path: Path, lines: list[Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert replay_decisions.main([str(path)]) == 2
    assert message in capsys.readouterr().err


def test_unreadable_traces_are_refused(tmp_path: Path) -> None:
    truncated = tmp_path / "t.jsonl.gz"
    truncated.write_bytes(TINY.read_bytes()[:-40])
    half = tmp_path / "half.jsonl"
    half.write_text('{"header": {', encoding="utf-8")
    for path, message in (
        (truncated, "truncated"),
        (half, "line 1 is not a JSON object"),
        (tmp_path / "none", "No such file"),
    ):
        with pytest.raises(WorkloadError, match=message):
            read_trace(path)
