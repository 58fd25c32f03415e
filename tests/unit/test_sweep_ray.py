"""The same sweep on a local Ray cluster; runs where Ray is installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")

from llm_inference_simulator.cli import main
from llm_inference_simulator.sweep import SweepSpec, run_sweep
from llm_inference_simulator.sweep.journal import NAME
from llm_inference_simulator.sweep.ray_executor import ray_executor

# Ray's own warnings are none of ours.
pytestmark = pytest.mark.filterwarnings("ignore")

SECTIONS = {
    "base": {
        "model": "llama-3.1-8b",
        "xpu": "h100-sxm",
        "workload": {"request_rate": 20.0, "num_prompts": 50, "random_output_len": 6},
    },
    "grid": {
        "model": ["llama-3.1-8b", "llama-3.1-70b"],
        "seed": [1, 2, 3],
        "engine.max_num_seqs": [0, 4, 8],
    },
}


def test_a_local_cluster_gives_the_rows_of_threads(tmp_path: Path) -> None:
    spec = SweepSpec.from_dict(SECTIONS)
    here, _ = run_sweep(spec, tmp_path / "threads")
    there, _ = run_sweep(spec, tmp_path / "ray", executor=ray_executor(jobs=2))
    assert {row.status for row in here.rows} == {"ok", "does not fit", "refused"}
    assert there.columns() == here.columns()
    assert (tmp_path / "ray" / "results.parquet").read_bytes() == (
        tmp_path / "threads" / "results.parquet"
    ).read_bytes()


def test_the_command_takes_an_executor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SECTIONS))
    words = ["sweep", str(file), "--output", str(tmp_path / "out"), "--executor", "ray"]
    assert main([*words, "--jobs", "2", "--rows", "3"]) == 0
    assert "18 configurations" in capsys.readouterr().out


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_is_stopped_goes_on(stop: signal.Signals, tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    sections = {"base": SECTIONS["base"], "grid": {"seed": list(range(600))}}
    file.write_text(yaml.safe_dump(sections))
    words = ["sweep", str(file), "--output", str(folder), "--quiet"]
    command = [sys.executable, "-m", "llm_inference_simulator", *words, "--executor", "ray"]
    journal = folder / NAME
    # A group of its own: a terminal sends Ctrl-C to Ray's processes too.
    process = subprocess.Popen(
        [*command, "--jobs", "2"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.poll() is None and (
        not journal.exists() or journal.read_bytes().count(b"\n") < 4
    ):
        time.sleep(0.005)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "of 600 configurations, which are in" in err
        assert "Traceback" not in err
    else:
        process.kill()
        assert process.wait() == -stop
    before = journal.read_bytes()
    assert 4 <= before.count(b"\n") < 600
    # Threads go on with what Ray began.
    assert main(words) == 0
    assert journal.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    _, path = run_sweep(SweepSpec.from_dict(sections), tmp_path / "uninterrupted")
    assert (folder / "results.parquet").read_bytes() == path.read_bytes()


def test_an_address_without_a_cluster_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SECTIONS))
    words = ["sweep", str(file), "--output", str(tmp_path / "out"), "--executor", "ray"]
    assert main([*words, "--ray-address", "auto"]) == 2
    assert "--ray-address auto: no Ray cluster answers" in capsys.readouterr().err
