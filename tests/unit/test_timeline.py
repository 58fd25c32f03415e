"""The timeline: its slices are the result's own times to the nanosecond, and viewers take it."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.report.phases import PHASES
from llm_inference_simulator.report.timeline import (
    STATUS,
    TimelineScope,
    count_events,
    write_timeline,
)
from llm_inference_simulator.results import SimulationResult
from tests.report_runs import DISAGGREGATED, run

Event = dict[str, Any]

RUNS: dict[str, dict[str, Any]] = {
    "one engine": {},
    "prefill and decode engines": DISAGGREGATED,
    "layer by layer": {
        **DISAGGREGATED,
        "transfer": {"bandwidth_gb_s": 5.0, "mode": "layerwise"},
    },
    "pipeline": {"cluster": {"pipeline_parallel_size": 4}},
    "a front end": {
        "front_end": {"request_latency_ms": 3.0, "response_latency_ms": 2.0},
        **DISAGGREGATED,
    },
    "failing prefill and decode engines": {
        **DISAGGREGATED,
        "cluster": {
            "pools": [{"role": "prefill", "n_engines": 2}, {"role": "decode", "n_engines": 2}]
        },
        "fleet": {
            "max_retries": 2,
            "request_timeout_s": 3.0,
            "events": [
                {"at_s": 3.0, "engine": 0, "change": "fail", "back_after_s": 1.0},
                {"at_s": 5.0, "engine": 2, "change": "fail", "back_after_s": 1.0},
            ],
        },
    },
    "little memory": {
        "engine": {"num_gpu_blocks_override": 400, "max_model_len": 4096},
    },
    "failures and timeouts": {
        "cluster": {"data_parallel_size": 2},
        "fleet": {
            "request_timeout_s": 1.0,
            "max_queue": 20,
            "max_retries": 1,
            "events": [{"at_s": 3.0, "engine": 0, "change": "fail", "back_after_s": 2.0}],
        },
    },
}


@pytest.fixture(scope="module")
def results() -> dict[str, SimulationResult]:
    return {}


@pytest.fixture(params=RUNS)
def result(
    request: pytest.FixtureRequest, results: dict[str, SimulationResult]
) -> SimulationResult:
    if request.param not in results:
        results[request.param] = run(RUNS[request.param])
    return results[request.param]


def events_of(
    result: SimulationResult, tmp_path: Path, scope: TimelineScope | None = None
) -> list[Event]:
    path = tmp_path / "trace.json"
    written = write_timeline(result, path, scope)
    data = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    events: list[Event] = data["traceEvents"]
    assert len(events) == written
    check_schema(data)
    return events


def ns(event: Mapping[str, Any], key: str = "ts") -> int:
    value = event[key] * 1000
    assert value == int(value)
    return int(value)


# --- the format ---------------------------------------------------------------------------------


def check_schema(data: Mapping[str, Any]) -> None:
    """The Trace Event Format as its public description has it, for the phases that are used."""
    assert data["displayTimeUnit"] in ("ms", "ns")
    needed = {
        "M": {"args"},
        "X": {"ts", "dur", "tid"},
        "C": {"ts", "args"},
        "b": {"ts", "cat", "id2"},
        "e": {"ts", "cat", "id2"},
        "s": {"ts", "cat", "id", "tid"},
        "f": {"ts", "cat", "id", "tid", "bp"},
    }
    kinds: dict[str, Any] = {
        "name": str,
        "cat": str,
        "id": str,
        "id2": dict,
        "bp": str,
        "pid": int,
        "tid": int,
        "args": dict,
        "ts": (int, Decimal),
        "dur": Decimal,
        "ph": str,
    }
    for event in data["traceEvents"]:
        assert {"name", "ph", "pid"} | needed[event["ph"]] <= set(event), event
        for key, value in event.items():
            assert isinstance(value, kinds[key]), event
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] > 0
        if event["ph"] == "C":
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())


def by_phase(events: Iterable[Event], *phases: str) -> list[Event]:
    return [event for event in events if event["ph"] in phases]


def test_slices_of_a_thread_do_not_overlap(result: SimulationResult, tmp_path: Path) -> None:
    ends: dict[tuple[int, int], int] = {}
    for event in by_phase(events_of(result, tmp_path), "X"):
        thread, start = (event["pid"], event["tid"]), ns(event)
        assert start >= ends.get(thread, 0)
        ends[thread] = start + ns(event, "dur")


def test_every_process_and_thread_has_a_name(result: SimulationResult, tmp_path: Path) -> None:
    events = events_of(result, tmp_path)
    named = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    assert {event["pid"] for event in events} == named
    assert len(named) == 1 + len(result.engines)


# --- what it says -------------------------------------------------------------------------------


def test_request_slices_add_up_to_the_results_own_times(
    result: SimulationResult, tmp_path: Path
) -> None:
    requests = result.requests
    stacks: dict[int, list[tuple[str, int]]] = defaultdict(list)
    durations: dict[int, dict[str, int]] = defaultdict(dict)
    arguments: dict[int, Mapping[str, Any]] = {}
    ends: dict[int, int] = {}
    for event in by_phase(events_of(result, tmp_path), "b", "e"):
        row = int(event["id2"]["local"], 16)
        if event["ph"] == "b":
            if stacks[row]:
                # A phase begins where the one before ended, the first with the request itself.
                assert ns(event) == ends.get(row, stacks[row][0][1])
            stacks[row].append((event["name"], ns(event)))
            arguments.setdefault(row, event.get("args", {}))
        else:
            name, start = stacks[row].pop()
            assert name == event["name"]
            ends[row] = ns(event)
            durations[row][name] = ns(event) - start
    assert not any(stacks.values())
    assert sorted(durations) == np.flatnonzero(requests["finished_ns"] >= 0).tolist()
    for row, found in durations.items():
        whole = found.pop(f"request {row}")
        assert whole == requests["finished_ns"][row] - requests["arrival_ns"][row]
        assert sum(found.values()) == whole
        assert set(found) <= set(PHASES)
        assert arguments[row]["status"] == STATUS[int(requests["status"][row])]
        if requests["status"][row] != 1:
            continue
        assert whole == requests["e2el_ns"][row]
        assert found.get("queued", 0) == requests["queueing_ns"][row]
        assert found.get("queued", 0) + found.get("prefill", 0) == requests["ttft_ns"][row]


def test_step_slices_add_up_to_the_engines_totals(result: SimulationResult, tmp_path: Path) -> None:
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for event in by_phase(events_of(result, tmp_path), "X"):
        sums = found[event["pid"] - 2]
        sums["steps"] += 1
        sums["busy_ns"] += ns(event, "dur")
        for name in ("prefill_tokens", "decode_seqs"):
            sums[name] += event["args"][name]
        assert event["args"]["bound"] in (
            "compute",
            "memory",
            "communication",
            "latency",
            "overhead",
        )
    failing = result.config.fleet.events
    for index, engine in enumerate(result.engines):
        assert found[index]["steps"] == engine.steps
        assert found[index]["prefill_tokens"] == engine.total.prefill_tokens
        assert found[index]["decode_seqs"] == engine.total.decode_seqs
        # The stages of a pipeline count with their mean, and a lost step only until it was lost.
        if result.setup.pools[0].pipeline_parallel_size == 1 and not failing:
            assert found[index]["busy_ns"] == engine.busy_ns


def test_counters_follow_the_steps(result: SimulationResult, tmp_path: Path) -> None:
    events = events_of(result, tmp_path)
    assert result.steps is not None
    blocks = [pool.capacity.num_gpu_blocks - 1 for pool in result.setup.pool_of_engine]
    values: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for event in by_phase(events, "C"):
        ((name, value),) = event["args"].items()
        values[event["pid"] - 2, name].append((ns(event), value))
    for engine, size in enumerate(blocks):
        own = result.steps["engine"] == engine
        if not own.any():
            continue
        for name, expected in (
            ("waiting", result.steps["waiting"][own]),
            ("running", result.steps["running"][own]),
            ("kv_blocks", size - result.steps["free_blocks"][own]),
        ):
            times = [at for at, _ in values[engine, name]]
            assert times == sorted(times)
            # The value that holds at a step's start is that of its schedule.
            held = np.searchsorted(times, result.steps["start_ns"][own], side="right") - 1
            seen = np.array([value for _, value in values[engine, name]])[held]
            assert (seen == expected).all()
        assert values[engine, "running"][-1][1] == 0


def test_flows_go_from_prefill_steps_to_decode_steps(tmp_path: Path) -> None:
    result = run(DISAGGREGATED)
    events = events_of(result, tmp_path)
    slices = defaultdict(list)
    for event in by_phase(events, "X"):
        slices[event["pid"], event["tid"]].append((ns(event), ns(event) + ns(event, "dur")))
    flows: dict[int, dict[str, Event]] = defaultdict(dict)
    for event in by_phase(events, "s", "f"):
        flows[int(event["id"], 16)][event["ph"]] = event
    assert len(flows) == len(result.requests["arrival_ns"])
    for row, ends in flows.items():
        columns = {name: int(column[row]) for name, column in result.requests.items()}
        bound = {}
        for phase, event in ends.items():
            own = slices[event["pid"], event["tid"]]
            bound[phase] = next(pair for pair in own if pair[0] <= ns(event) < pair[1])
        assert ends["s"]["pid"] == columns["prefill_engine"] + 2
        assert ends["f"]["pid"] == columns["engine"] + 2
        assert bound["s"][1] == columns["first_token_ns"]
        assert bound["f"][1] == columns["second_token_ns"]
        assert ns(ends["s"]) <= columns["transfer_end_ns"] <= ns(ends["f"])


# --- what it leaves out -------------------------------------------------------------------------


def rows_of(events: Iterable[Event]) -> set[int]:
    return {int(event["id2"]["local"], 16) for event in by_phase(events, "b")}


def test_a_window_keeps_what_overlaps_it_whole(tmp_path: Path) -> None:
    result = run()
    events = events_of(result, tmp_path, TimelineScope(window_ns=(2 * 10**9, 3 * 10**9)))
    requests = result.requests
    inside = (requests["arrival_ns"] <= 3e9) & (requests["finished_ns"] >= 2e9)
    assert rows_of(events) == set(np.flatnonzero(inside).tolist())
    steps = by_phase(events, "X")
    assert all(ns(e) <= 3e9 and ns(e) + ns(e, "dur") >= 2e9 for e in steps)
    assert 0 < len(steps) < result.engines[0].steps


def test_requests_can_be_named_or_be_the_slowest(tmp_path: Path) -> None:
    result = run(DISAGGREGATED)
    named = events_of(result, tmp_path, TimelineScope(requests=((3, 3), (10, 12))))
    assert rows_of(named) == {3, 10, 11, 12}
    assert {int(e["id"], 16) for e in by_phase(named, "s")} == {3, 10, 11, 12}
    slowest = events_of(result, tmp_path, TimelineScope(slowest=5))
    assert rows_of(slowest) == set(np.argsort(-result.requests["e2el_ns"])[:5].tolist())
    with pytest.raises(ConfigError, match="requests 0 to 199, not 200"):
        write_timeline(result, tmp_path / "x.json", TimelineScope(requests=((0, 200),)))


def test_the_estimate_of_events_is_near(result: SimulationResult, tmp_path: Path) -> None:
    written = write_timeline(result, tmp_path / "t.json")
    assert 0.3 * written < count_events(result, TimelineScope()) < 3 * written


def test_equal_runs_write_equal_gzip_files(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        write_timeline(run(), tmp_path / name)
    first = (tmp_path / "a.json.gz").read_bytes()
    assert first == (tmp_path / "b.json.gz").read_bytes()
    assert json.loads(gzip.decompress(first))["otherData"]["model"] == "llama-3.1-8b"


def test_names_from_files_stay_strings(tmp_path: Path) -> None:
    result = run({"cluster": {"pools": [{"name": 'a"}],[{"é\\', "n_engines": 1}]}})
    events = events_of(result, tmp_path)
    assert any('a"}],[{"é\\' in str(event.get("args")) for event in events)


# --- the command line ---------------------------------------------------------------------------

WORDS = ["--model", "llama-7b", "--xpu", "h100-sxm", "--quiet"]
WORDS += ["--num-prompts", "20", "--request-rate", "10", "--random-output-len", "8"]


def test_the_command_writes_a_window_of_some_requests(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    narrowed = ["--timeline-window", "0.5", "1.5", "--timeline-requests", "0-9"]
    assert main([*WORDS, "--timeline", str(path), *narrowed]) == 0
    data = json.loads(path.read_text(), parse_float=Decimal)
    check_schema(data)
    assert rows_of(data["traceEvents"]) < set(range(10))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--timeline", "{}/t.txt"], "end the name in .json or .json.gz"),
        (["--timeline-window", "0", "1"], "give --timeline FILE.json too"),
        (["--timeline-requests", "1"], "give --timeline FILE.json too"),
        (["--timeline", "{}/t.json", "--timeline-window", "2", "1"], "must be above the first"),
        (["--timeline", "{}/t.json", "--timeline-window", "-1", "1"], "expected 2 arguments"),
        (["--timeline", "{}/t.json", "--timeline-window", "0", "nan"], "must be above"),
        (["--timeline", "{}/t.json", "--timeline-window", "0"], "expected 2 arguments"),
        (["--timeline", "{}/t.json", "--timeline-requests", "9-3"], "'9-3' is no number or range"),
        (["--timeline", "{}/t.json", "--timeline-requests", "slowest:0"], "slowest:50"),
        (["--timeline", "{}/t.json", "--timeline-requests", "99"], "has requests 0 to 19"),
        (["--timeline", "{}/no/t.json"], "does not exist: create it first"),
        (["--timeline", "{}/t.json", "--output", "{}/t.json"], "name the same file"),
    ],
)
def test_bad_input_gets_one_message(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, *(flag.format(tmp_path) for flag in flags)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
