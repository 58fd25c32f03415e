"""Points survive a killed collector, and a rerun finishes the plan without repeating any."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_inference_simulator.calibration.step_data import read_step_logs
from llm_inference_simulator.errors import CalibrationError, ConfigError
from vllm_benchmarks.data_collector import collect, read_points, write_step_log
from vllm_benchmarks.schema import BenchmarkHeader, BenchmarkPoint, PlannedPoint

ROOT = Path(__file__).parents[2]
HEADER = BenchmarkHeader(runner="offline", model="m", xpu="cpu", engine={"async": False})
PLAN = [PlannedPoint(kind="decode", batch_size=batch, context_tokens=64) for batch in range(1, 121)]

COLLECT = """
import sys, time
from pathlib import Path
from tests.unit.test_data_collector import HEADER, PLAN, measured
from vllm_benchmarks.data_collector import collect
with collect(Path(sys.argv[1]), HEADER) as collector:
    for point in collector.missing(PLAN):
        with open(sys.argv[2], "a") as log:
            log.write(point.key + "\\n")
        collector.append(measured(point))
        print("point", flush=True)
print("all", flush=True)
"""


def measured(point: PlannedPoint) -> BenchmarkPoint:
    row = {"reqs": [["a", 63, 1, 0]], "exec_s": 0.01, "out": {"a": [1, False]}}
    return BenchmarkPoint(point=point, steps=(row,) * 50, median_ms=10.0, spread=0.0)


def test_kills_at_any_moment_lose_nothing_that_was_measured(tmp_path: Path) -> None:
    path, log = tmp_path / "raw" / "points.jsonl", tmp_path / "begun"
    dice = random.Random(3)
    kept = attempts = 0
    for _ in range(40):
        attempts += 1
        process = subprocess.Popen(
            [sys.executable, "-c", COLLECT, str(path), str(log)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["python", "."])},
            stdout=subprocess.PIPE,
            text=True,
        )
        seen = 0
        patience = dice.randint(1, 30)
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                seen += line == "point\n"
                if seen >= patience:
                    time.sleep(dice.random() * 0.003)
                    break
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        points = read_points(path).points
        # What was said to be on disk is there, and at most the point in the works besides.
        reported = kept + seen + rest.count("point\n")
        assert reported <= len(points) <= reported + 1
        kept = len(points)
        if kept == len(PLAN):
            break
    assert attempts > 3
    assert [each.point for each in read_points(path).points] == PLAN
    begun = log.read_text().split()
    # A point is begun again only where the kill came before its line was whole.
    assert len(begun) - len(set(begun)) <= attempts


def test_a_torn_last_line_is_cut_and_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    with collect(path, HEADER) as collector:
        for point in PLAN[:3]:
            collector.append(measured(point))
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rfind(b"\n") - 1
    for cut in (1, 2, last // 2, last - 1):
        path.write_bytes(whole[:-cut])
        assert len(read_points(path).points) == 2
        with collect(path, HEADER) as collector:
            assert collector.missing(PLAN[:3]) == PLAN[2:3]
            collector.append(measured(PLAN[2]))
        assert path.read_bytes() == whole


def test_a_file_of_another_engine_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    with collect(path, HEADER):
        pass
    other = HEADER.model_copy(update={"engine": {"async": True}})
    with pytest.raises(ConfigError, match=r"measured with engine=.*another --data-dir"):
        collect(path, other).__enter__()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b'{"points": 1}', "point is missing"),
        (b'{"point": {"kind": "decode", "batch_size": 0}}', "point.batch_size=0"),
        (b'{"point": {"kind": "prefill", "batch_size": 1}}', "prompt_tokens=0: a prefill point"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "points.jsonl"
    with collect(path, HEADER):
        pass
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(CalibrationError) as caught:
        read_points(path)
    assert message in str(caught.value)


def test_points_become_a_step_log(tmp_path: Path) -> None:
    path, log = tmp_path / "points.jsonl", tmp_path / "processed" / "steps.jsonl.gz"
    with collect(path, HEADER) as collector:
        for point in PLAN[:2]:
            collector.append(measured(point))
    assert write_step_log(read_points(path), log) == 100
    first = log.read_bytes()
    write_step_log(read_points(path), log)
    assert log.read_bytes() == first
    data = read_step_logs([log])
    assert len(data.steps) == 100
    assert data.dropped_warm_up == 0
    assert data.engine.async_scheduling is False
    assert json.loads(gzip.decompress(first).splitlines()[1])["exec_s"] == 0.01


def failed(point: PlannedPoint) -> BenchmarkPoint:
    return BenchmarkPoint(point=point, failures={"connect": 2})


def test_a_point_without_data_is_measured_again_and_the_later_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "points.jsonl"
    with collect(path, HEADER) as collector:
        collector.append(failed(PLAN[0]))
        collector.append(measured(PLAN[1]))
        assert collector.missing(PLAN[:2]) == PLAN[:1]
    with collect(path, HEADER) as collector:
        assert collector.missing(PLAN[:2]) == PLAN[:1]
        collector.append(measured(PLAN[0]))
    with collect(path, HEADER) as collector:
        assert collector.missing(PLAN[:2]) == []
    points = read_points(path).points
    assert [(each.point, each.failures) for each in points] == [(PLAN[0], {}), (PLAN[1], {})]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "data"
    with pytest.raises(ConfigError, match=r"points file .*another --data-dir"):
        collect(below / "points.jsonl", HEADER).__enter__()
    path = tmp_path / "points.jsonl"
    with collect(path, HEADER):
        pass
    with pytest.raises(ConfigError, match=r"step log .*another --data-dir"):
        write_step_log(read_points(path), below / "steps.jsonl.gz")
