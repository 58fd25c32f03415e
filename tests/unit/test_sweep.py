"""Sweeps: what runs, what becomes of it, and what a killed sweep leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import yaml

from llm_inference_simulator import ConfigError, simulate
from llm_inference_simulator.cli import main
from llm_inference_simulator.sweep import SweepSpec, run_sweep
from llm_inference_simulator.sweep.executors import Executor
from llm_inference_simulator.sweep.journal import NAME, open_journal
from llm_inference_simulator.workload import build_workload

BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "xpu": "h100-sxm",
    "workload": {"request_rate": 20.0, "num_prompts": 40, "random_output_len": 6},
}


def spec(**sections: Any) -> SweepSpec:
    return SweepSpec.from_dict({"base": BASE, **sections})


def test_grid_zip_and_list_are_multiplied() -> None:
    made = spec(
        grid={"seed": [1, 2], "engine.max_num_seqs": [8, 16]},
        zip={"cluster.tensor_parallel_size": [1, 2], "cluster.data_parallel_size": [2, 1]},
        list=[{"xpu": "h100-sxm"}, {"xpu": "h200-sxm", "engine.block_size": 32}],
    )
    assert len(made) == 2 * 2 * 4
    config = made.config(len(made) - 1)
    assert (config.xpu, config.engine.block_size) == ("h200-sxm", 32)
    assert (config.cluster.tensor_parallel_size, config.cluster.data_parallel_size) == (2, 1)
    assert (config.seed, config.engine.max_num_seqs) == (2, 16)
    assert made.points[1]["engine.max_num_seqs"] == 16
    assert made.points[1]["seed"] == 1


def test_a_pool_is_reached_by_its_place() -> None:
    pools = [{"n_engines": 1}, {"n_engines": 1}]
    made = SweepSpec.from_dict(
        {
            "base": {**BASE, "cluster": {"pools": pools}},
            "grid": {"cluster.pools.1.n_engines": [1, 3]},
        }
    )
    assert [pool.n_engines for pool in made.config(1).cluster.pools] == [1, 3]
    assert [pool.n_engines for pool in made.config(0).cluster.pools] == [1, 1]


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gird": {}}, "unknown key 'gird'; did you mean 'grid'"),
        ({"grid": {"engine.max_num_seq": [1]}}, "did you mean 'max_num_seqs'"),
        ({"grid": {"workload.rate_schedule.amplitud": [1.0]}}, "did you mean 'amplitude'"),
        ({"grid": {"seed": 3}}, "seed=3 must be a list of values"),
        ({"grid": {"seed": []}}, "must be a list of values"),
        ({"grid": [1]}, "grid must map paths"),
        ({"zip": {"seed": [1, 2], "xpu": ["h100-sxm"]}}, "seed has 2, xpu has 1"),
        ({"list": {"seed": 1}}, "must be a list of mappings"),
        ({"grid": {"seed": [1]}, "zip": {"seed": [1]}}, "seed stands in two of"),
        ({"base": 3}, "base=3 must be a configuration"),
        (
            {"grid": {"seed": list(range(1001)), "engine.block_size": list(range(1000))}},
            "1,001,000",
        ),
    ],
)
def test_a_wrong_spec_is_refused_with_the_remedy(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec(**sections)


def test_all_configurations_get_the_same_requests_at_their_own_rates() -> None:
    made = spec(grid={"workload.request_rate": [5.0, 20.0], "engine.max_num_seqs": [4, 8]})
    slow, fast = (build_workload(made.config(i).workload, 0) for i in (0, 2))
    np.testing.assert_array_equal(slow.prompt_tokens, fast.prompt_tokens)
    np.testing.assert_array_equal(slow.output_tokens, fast.output_tokens)
    np.testing.assert_allclose(slow.arrival_ns / 4, fast.arrival_ns, atol=1)


def test_rows_hold_what_simulate_gives_or_the_reason(tmp_path: Path) -> None:
    made = spec(list=[{"seed": 3}, {"model": "llama-3.1-70b"}, {"engine.max_num_seqs": 0}])
    result, path = run_sweep(made, tmp_path / "sweep")
    table = pyarrow.parquet.read_table(path).to_pylist()
    assert [row["status"] for row in table] == ["ok", "does not fit", "refused"]
    alone = simulate(made.config(0)).summary()
    for name in ("p99_ttft_ms", "mean_tpot_ms", "output_throughput", "cost_usd", "energy_joules"):
        assert table[0][name] == alone[name]
    assert table[0]["capacity.num_gpu_blocks"] == alone["capacity"]["num_gpu_blocks"]
    assert table[0]["trace_hash"] == alone["provenance"]["trace_hash"]
    assert table[0]["reason"] is None
    assert "does not fit" in table[1]["reason"]
    assert "max_num_seqs=0" in table[2]["reason"]
    assert [row["seed"] for row in table] == [3, None, None]
    assert len(result.rows) == 3


def test_without_pyarrow_the_table_is_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_inference_simulator.sweep.run.is_installed", lambda _: False)
    _, path = run_sweep(spec(grid={"seed": [1, 2]}), tmp_path / "sweep")
    header, *rows = path.read_text().splitlines()
    assert path.name == "results.csv"
    assert header.startswith("configuration,status,reason,seed,")
    assert len(rows) == 2


def counting(executor: Executor, ran: list[int]) -> Executor:
    def run(made: SweepSpec, indices: Any, on_row: Any) -> None:
        ran.extend(indices)
        executor(made, indices, on_row)

    return run


def test_a_sweep_goes_on_where_a_cut_journal_ends(tmp_path: Path) -> None:
    from llm_inference_simulator.sweep.executors import local_executor

    made = spec(grid={"seed": [1, 2, 3], "engine.max_num_seqs": [4, 8]})
    whole, _ = run_sweep(made, tmp_path / "whole")
    journal = (tmp_path / "whole" / NAME).read_bytes()
    lines = journal.splitlines(keepends=True)
    for cut in (0, 10, len(lines[0]), len(lines[0]) + 5, len(journal) - 1, len(journal)):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / NAME).write_bytes(journal[:cut])
        ran: list[int] = []
        again, _ = run_sweep(made, folder, executor=counting(local_executor(1), ran))
        assert again.columns() == whole.columns()
        kept = max(0, journal[:cut].count(b"\n") - 1)
        assert len(ran) == len(made) - kept


def test_a_folder_of_another_sweep_is_refused(tmp_path: Path) -> None:
    run_sweep(spec(grid={"seed": [1]}), tmp_path / "sweep")
    with pytest.raises(ConfigError, match="belongs to another sweep"):
        run_sweep(spec(grid={"seed": [2]}), tmp_path / "sweep")


def test_a_changed_file_makes_another_sweep(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"timestamp": 0, "input_length": 5, "output_length": 2}\n')
    base = {**BASE, "workload": {"trace": str(trace)}}
    made = SweepSpec.from_dict({"base": base})
    before = made.fingerprint()
    assert made.fingerprint() == before
    trace.write_text('{"timestamp": 0, "input_length": 6, "output_length": 2}\n')
    assert made.fingerprint() != before


def test_two_sweeps_do_not_share_a_folder(tmp_path: Path) -> None:
    made = spec()
    with (
        open_journal(tmp_path, made.fingerprint()),
        pytest.raises(ConfigError, match="another sweep writes there"),
    ):
        run_sweep(made, tmp_path)


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("not json\n")
    with pytest.raises(ConfigError, match="is damaged"):
        run_sweep(spec(), tmp_path)


def test_sigkill_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    workload = {**BASE["workload"], "num_prompts": 2000}
    sections = {"base": {**BASE, "workload": workload}, "grid": {"seed": list(range(100))}}
    file.write_text(yaml.safe_dump(sections))
    command = [sys.executable, "-m", "llm_inference_simulator", "sweep", str(file)]
    process = subprocess.Popen([*command, "--output", str(folder)], stdout=subprocess.DEVNULL)
    journal = folder / NAME
    while process.poll() is None and (
        not journal.exists() or journal.read_bytes().count(b"\n") < 4
    ):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    finished = journal.read_bytes().count(b"\n") - 1
    assert 3 <= finished < 100
    assert not (folder / "results.parquet").exists()
    assert main(["sweep", str(file), "--output", str(folder), "--quiet"]) == 0
    resumed = pyarrow.parquet.read_table(folder / "results.parquet")
    _, path = run_sweep(SweepSpec.from_dict(sections), tmp_path / "uninterrupted")
    assert resumed.equals(pyarrow.parquet.read_table(path))
    indices = [json.loads(line)["index"] for line in journal.read_bytes().splitlines()[1:]]
    assert sorted(indices) == list(range(100))


def test_ctrl_c_ends_a_sweep_that_goes_on_later(tmp_path: Path) -> None:
    file, folder = tmp_path / "sweep.yaml", tmp_path / "sweep"
    workload = {**BASE["workload"], "num_prompts": 2000}
    sections = {"base": {**BASE, "workload": workload}, "grid": {"seed": list(range(100))}}
    file.write_text(yaml.safe_dump(sections))
    words = ["sweep", str(file), "--output", str(folder), "--quiet"]
    command = [sys.executable, "-m", "llm_inference_simulator", *words]
    journal = folder / NAME
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and (
            not journal.exists() or journal.read_bytes().count(b"\n") < 4
        ):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    rows = journal.read_bytes().count(b"\n") - 1
    assert err.strip() == (
        f"interrupted after {rows} of 100 configurations, which are in {folder}: the same command "
        "goes on"
    )
    assert [path.name for path in folder.iterdir()] == [NAME]
    before = journal.read_bytes()
    assert before.endswith(b"\n")
    assert main(words) == 0
    assert journal.read_bytes().startswith(before)
    assert pyarrow.parquet.read_table(folder / "results.parquet").num_rows == 100


def written(tmp_path: Path, **sections: Any) -> str:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({"base": BASE, **sections}))
    return str(file)


def test_the_command_prints_a_sorted_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, grid={"workload.request_rate": [1.0, 100.0, 10.0]})
    words = ["sweep", file, "--output", str(tmp_path / "out")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["#", "request_rate", "req/s", "tokens/s"]
    assert [line.split()[1] for line in lines[1:4]] == ["100.0", "10.0", "1.0"]
    assert lines[-1] == f"3 configurations: {tmp_path / 'out' / 'results.parquet'}"
    assert main([*words, "--sort", "p99_ttft_ms", "--rows", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[1] == "1.0"
    assert lines[2] == "2 more rows"


def test_the_command_refuses_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, grid={"seed": [1]})
    out = str(tmp_path / "out")
    for words, message in (
        (["sweep"], "needs a file"),
        (["sweep", file], "--output missing"),
        (["sweep", file, "--output", file], "is a file: give a folder"),
        (["sweep", file, "--output", f"{out}/a/b"], "does not exist: create it first"),
        (["sweep", file, "--output", out, "--executor", "rays"], "did you mean 'ray'"),
        (["sweep", file, "--output", out, "--ray-address", "auto"], "needs --executor ray"),
        (["sweep", file, "--output", out, "--job", "2"], "did you mean '--jobs'"),
        (["sweep", file, "--output", out, "--sort", "p99_tft_ms"], "did you mean 'p99_ttft_ms'"),
        (["sweep", str(tmp_path / "none.yaml"), "--output", out], "does not exist"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_without_ray_its_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["sweep", written(tmp_path, grid={"seed": [1]}), "--output", str(tmp_path / "out")]
    assert main([*words, "--executor", "ray"]) == 2
    assert "llm-inference-simulator[ray]" in capsys.readouterr().err


def test_a_sweep_of_which_nothing_runs_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, grid={"model": ["llama-3.1-70b"]})
    assert main(["sweep", file, "--output", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert "1 does not fit: model 'llama-3.1-70b'" in out
    assert "no configuration could run" in err
