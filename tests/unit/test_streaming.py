"""Streamed runs: the figures of the run in one piece, without its rows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from llm_inference_simulator import SimulationInterrupted, SimulatorConfig, simulate, streaming
from llm_inference_simulator.cli import main
from llm_inference_simulator.diagnostics import find_saturation
from llm_inference_simulator.errors import ConfigError, WorkloadError
from llm_inference_simulator.histograms import RELATIVE_ERROR, Histogram
from llm_inference_simulator.queue_trend import QueueTrend
from llm_inference_simulator.workload import pieces
from llm_inference_simulator.workload_config import WorkloadConfig

FIELDS: dict[str, Any] = {
    "model": "llama-7b",
    "xpu": "gb10",
    "workload": {
        "request_rate": 2.0,
        "num_prompts": 400,
        "random_input_len": 100,
        "random_output_len": 12,
        "random_range_ratio": 0.5,
    },
    "measurement": {
        "warm_up": 3.0,
        "goodput": {"ttft": 150.0},
        "metric_percentiles": (1, 50, 99.9),
    },
}


def config(streams: bool, **sections: dict[str, Any]) -> SimulatorConfig:
    data = {**FIELDS}
    for name, fields in sections.items():
        data[name] = {**data.get(name, {}), **fields}
    data["measurement"] = {**data["measurement"], "streaming": streams}
    return SimulatorConfig.from_dict(data)


def flat(value: Any, place: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for name, item in value.items() for k, v in flat(item, f"{place}.{name}").items()
        }
    return {place: value}


LOADS: list[dict[str, Any]] = [
    {},
    {"max_concurrency": 3},
    {"request_rate": 60.0},
    {"random_prefix_len": 200},
    {"random_input_len": 3000, "random_output_len": 2500, "random_range_ratio": 0.9},
]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: " ".join(load) or "plain")
@pytest.mark.parametrize("rows", [7, 64])
def test_every_figure_is_that_of_the_run_in_one_piece(
    load: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "BLOCK_ROWS", rows)
    monkeypatch.setattr(pieces, "PIECE_ROWS", rows)
    whole = simulate(config(False, workload=load))
    blocks: list[dict[str, Any]] = []
    streamed = simulate(
        config(True, workload=load), row_sink=lambda columns: blocks.append(dict(columns))
    )
    assert len(blocks) == math.ceil(400 / rows)
    for name, column in whole.requests.items():
        joined = np.concatenate([block[name] for block in blocks])
        assert joined.dtype == column.dtype
        assert joined.tolist() == column.tolist(), name
    expected, found = flat(whole.summary()), flat(streamed.summary())
    assert set(expected) == set(found)
    percentile = re.compile(r"\.(p[\d.]+|median)_\w+_ms")
    for name in set(expected) - {".measurement.percentiles", ".config.measurement.streaming"}:
        if percentile.fullmatch(name):
            assert found[name] == pytest.approx(expected[name], rel=RELATIVE_ERROR), name
        elif isinstance(expected[name], float):
            assert found[name] == pytest.approx(expected[name], rel=1e-12), name
        else:
            assert found[name] == expected[name], name


def test_a_result_says_where_its_percentiles_come_from() -> None:
    result = simulate(config(True, workload={"num_prompts": 60}))
    said = result.summary()["measurement"]["percentiles"]
    assert said == "from histograms of 512 buckets an octave, relative error at most 0.10%"
    whole = simulate(config(False, workload={"num_prompts": 60}))
    assert whole.summary()["measurement"]["percentiles"] == "exact"


def test_rows_that_were_not_kept_are_no_empty_table(tmp_path: Path) -> None:
    result = simulate(config(True, workload={"num_prompts": 60}))
    for ask in (
        lambda: result.requests["ttft_ns"],
        result.to_arrow,
        lambda: list(result.requests),
        result.detailed,
        result.itls,
        lambda: result.write_requests(tmp_path / "rows.csv"),
    ):
        with pytest.raises(ConfigError, match="was not kept: the run was streamed"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_interrupted_runs_have_what_had_ended() -> None:
    def stop(progress: Any) -> None:
        if progress.answered > 100:
            raise KeyboardInterrupt

    with pytest.raises(SimulationInterrupted) as interrupted:
        simulate(config(True), progress=stop)
    summary = interrupted.value.result.summary()
    assert interrupted.value.requests == 400
    assert not summary["complete"]
    assert 0 < summary["completed"] < 400


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        ({"workload": {"session_turns": 3.0}}, "session_turns=3.0 is not possible"),
        ({"workload": {"random_prompts_per_prefix": 3}}, "random_prompts_per_prefix=3 is not"),
        ({"fleet": {"max_queue": 3}}, "fleet has requests leave early"),
    ],
)
def test_what_needs_all_requests_is_refused(sections: dict[str, Any], problem: str) -> None:
    with pytest.raises((ConfigError, WorkloadError), match=problem):
        simulate(config(True, **sections))


BASE = ["--model", "llama-7b", "--xpu", "gb10", "--num-prompts", "200", "--request-rate", "4"]


def test_the_command_writes_rows_and_result(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("w.json", "w.parquet", "s.json", "s.parquet")}
    outputs = ["--output", files["w.json"], "--requests-output", files["w.parquet"]]
    assert main([*BASE, "--quiet", *outputs]) == 0
    outputs = ["--output", files["s.json"], "--requests-output", files["s.parquet"]]
    assert main([*BASE, "--quiet", "--streaming", *outputs]) == 0
    whole, streamed = (json.loads(Path(files[f"{name}.json"]).read_text()) for name in "ws")
    assert streamed["mean_ttft_ms"] == whole["mean_ttft_ms"]
    assert streamed["provenance"]["trace_hash"] == whole["provenance"]["trace_hash"]
    assert streamed["config"]["measurement"]["streaming"] is True
    assert pq.read_table(files["w.parquet"]).equals(pq.read_table(files["s.parquet"]))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_trace_is_read_piece_by_piece(tmp_path: Path) -> None:
    words = ["--model", "llama-7b", "--xpu", "gb10", "--trace", "azure-code-2023", "--quiet"]
    words += ["--num-prompts", "60"]
    whole, streamed = tmp_path / "w.parquet", tmp_path / "s.parquet"
    assert main([*words, "--requests-output", str(whole)]) == 0
    assert main([*words, "--streaming", "--requests-output", str(streamed)]) == 0
    assert pq.read_table(whole).equals(pq.read_table(streamed))


BAD_TRACES = [
    ('[{"conversations": []}]', "this is sharegpt"),
    ('{"timestamp": 0, "input_length": 5, "output_length": 5}', "this is mooncake"),
    ("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n9,5,5\n1,5,5\n", "row 3: it is"),
    ("arrived_at,num_prefill_tokens,num_decode_tokens\n0,5,5\n1,x,5\n", "row 2 .*tokens='x'"),
    ("num_prefill_tokens,num_decode_tokens\n5,5\n", "it has no times"),
    ("arrived_at,num_prefill_tokens,num_decode_tokens\n", "holds no rows"),
]


@pytest.mark.parametrize(("text", "problem"), BAD_TRACES, ids=[each[1] for each in BAD_TRACES])
def test_traces_that_cannot_be_read_so_are_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    load = WorkloadConfig.parse({"trace": str(path)})
    with pytest.raises(WorkloadError, match=problem):
        list(pieces.RequestStream(load, 0, 1).pieces())


@pytest.mark.parametrize(
    "extra",
    [["--save-detailed", "--output", "x.json"], ["--steps-output", "x.csv"]],
    ids=lambda extra: extra[0],
)
def test_outputs_of_what_is_not_kept_are_refused(
    extra: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*BASE, "--streaming", *extra]) == 2
    assert f"{extra[0]} keeps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_threads_change_nothing_in_results(tmp_path: Path) -> None:
    words = [*BASE, "--dp", "3", "--router", "random", "--seed", "5", "--quiet"]
    for streams in ([], ["--streaming"]):
        results = []
        for threads in ("1", "2", "7"):
            path = tmp_path / f"{threads}.json"
            assert main([*words, *streams, "--threads", threads, "--output", str(path)]) == 0
            results.append(json.loads(path.read_text()))
        assert results[0] == results[1] == results[2]


def test_no_threads_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--threads", "0"]) == 2
    assert "threads=0: give at least 1" in capsys.readouterr().err


def test_a_run_on_threads_can_be_interrupted() -> None:
    def stop(progress: Any) -> None:
        if progress.answered > 50:
            raise KeyboardInterrupt

    cluster = {"data_parallel_size": 4}
    for streams in (False, True):
        with pytest.raises(SimulationInterrupted) as interrupted:
            simulate(config(streams, cluster=cluster), progress=stop, threads=2)
        summary = interrupted.value.result.summary()
        assert not summary["complete"]
        assert 0 < summary["measurement"]["arrived"] < 400


VALUES = st.lists(st.integers(0, 2**50) | st.integers(0, 3000), min_size=1, max_size=60)


@given(VALUES, st.integers(1, 20), st.booleans(), st.floats(0, 100))
def test_histograms_keep_means_and_bound_percentiles(
    values: list[int], block: int, fractions: bool, percentile: float
) -> None:
    column = np.array(values, dtype=np.float64 if fractions else np.int64)
    if fractions:
        column = column + np.where(column > 0, 0.25, 0)
    histogram = Histogram()
    for start in range(0, len(column), block):
        histogram.add(column[start : start + block])
    found = histogram.describe([percentile])
    assert found.mean == pytest.approx(column.mean(), rel=1e-12)
    assert found.std == pytest.approx(column.std(), rel=1e-9, abs=1e-9 * column.max())
    exact = float(np.percentile(column, percentile))
    assert found.percentiles[0][1] == pytest.approx(exact, rel=RELATIVE_ERROR, abs=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from([0.7, 1.0, 1.3]), st.integers(40, 30_000))
def test_the_queue_trend_is_that_of_all_rows(seed: int, load: float, count: int) -> None:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1000, count)).astype(np.int64)
    service = rng.exponential(1000 * load, count)
    free, admitted = 0.0, np.empty(count, dtype=np.int64)
    for index in range(count):
        free = max(free, float(arrival[index])) + service[index]
        admitted[index] = int(free)
    columns: dict[str, Any] = {
        "arrival_ns": arrival,
        "admitted_ns": admitted,
        "finished_ns": admitted + 7,
        "status": np.ones(count, dtype=np.uint8),
        "output_tokens": rng.integers(1, 90, count),
    }
    trend, block = QueueTrend(), int(rng.integers(1, count + 1))
    for start in range(0, count, block):
        trend.add({name: column[start : start + block] for name, column in columns.items()})
    expected, found = find_saturation(columns, int(admitted.max()) + 7), trend.saturation()
    if expected is None or found is None:
        # Only a case that is close to the bound may fall on either side of it.
        assert expected is found or load == 1.0
        return
    assert found.depth_end == pytest.approx(expected.depth_end, rel=0.02)
    assert found.depth_middle == pytest.approx(expected.depth_middle, rel=0.02)
    assert found.offered_rate == pytest.approx(expected.offered_rate, rel=0.02)
    assert found.sustained_rate == pytest.approx(expected.sustained_rate, rel=0.02)
