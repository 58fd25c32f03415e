"""The same sweep on a local Ray cluster; runs where Ray is installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")

from llm_inference_simulator.cli import main
from llm_inference_simulator.sweep import SweepSpec, run_sweep
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


def test_an_address_without_a_cluster_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(SECTIONS))
    words = ["sweep", str(file), "--output", str(tmp_path / "out"), "--executor", "ray"]
    assert main([*words, "--ray-address", "auto"]) == 2
    assert "--ray-address auto: no Ray cluster answers" in capsys.readouterr().err
