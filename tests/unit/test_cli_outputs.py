"""What a run leaves behind when it is interrupted or cannot write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.cli import run as run_module
from llm_inference_simulator.results import SimulationResult

SMALL = ["--model", "llama-7b", "--xpu", "gb10", "--num-prompts", "20", "--random-output-len", "4"]
PROGRAM = [sys.executable, "-m", "llm_inference_simulator"]


def interrupt(*_args: object, **_options: object) -> None:
    raise KeyboardInterrupt


def disk_full(*_args: object, **_options: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    return [
        *SMALL,
        "--quiet",
        "--output",
        str(tmp_path / "r.json"),
        "--requests-output",
        str(tmp_path / "q.csv"),
        "--steps-output",
        str(tmp_path / "s.csv"),
        "--decisions-output",
        str(tmp_path / "d.jsonl"),
    ]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- Ctrl-C -----------------------------------------------------------------------------------


@pytest.mark.parametrize("detailed", [True, False])
def test_ctrl_c_while_tables_are_written_keeps_what_is_written(
    words: list[str],
    tmp_path: Path,
    detailed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(SimulationResult, "write_steps", interrupt)
    assert main([*words, *(["--save-detailed"] if detailed else [])]) == 130
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["complete"] is True
    assert ("ttfts" in data) == detailed
    assert names(tmp_path) == ["q.csv", "r.json"]
    assert capsys.readouterr().err == (
        f"interrupted while writing a finished run; wrote {tmp_path}/r.json, {tmp_path}/q.csv; "
        f"left out: --steps-output {tmp_path}/s.csv, --decisions-output {tmp_path}/d.jsonl\n"
    )


def test_ctrl_c_while_arrays_are_written_leaves_the_summary(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(SimulationResult, "detailed", interrupt)
    assert main([*words, "--save-detailed"]) == 130
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["complete"] is True
    assert data["completed"] == 20
    assert "ttfts" not in data
    assert names(tmp_path) == ["r.json"]
    assert "left out: the arrays of --save-detailed, --requests-output" in capsys.readouterr().err


def test_ctrl_c_in_the_loop_writes_nothing_that_takes_long(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("llm_inference_simulator.simulation.run_to_end", interrupt)
    assert main([*words, "--save-detailed"]) == 130
    data = json.loads((tmp_path / "r.json").read_text())
    assert data["complete"] is False
    assert "ttfts" not in data
    assert names(tmp_path) == ["r.json"]
    err = capsys.readouterr().err
    assert f"interrupted after 0 of 20 requests; wrote {tmp_path}/r.json, marked incomplete" in err
    for flag in ("--save-detailed", "--requests-output", "--steps-output", "--decisions-output"):
        assert flag in err.partition("left out: ")[2]


# --- Writing fails ----------------------------------------------------------------------------


def test_a_full_disk_is_one_message(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SimulationResult, "write_requests", disk_full)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --requests-output ")
    assert err.endswith("q.csv cannot be written: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command", [SMALL, ["models"], ["xpus", "gb10"], ["--help"], ["--version"]]
)
def test_a_full_standard_output_is_one_message(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "error: standard output cannot be written: No space left on device\n"
    assert done.returncode == 2


@pytest.mark.parametrize("command", [SMALL, ["models"], ["xpus"], ["--help"], ["--version"]])
def test_a_closed_standard_output_is_silence(command: list[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, *command],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0


# --- Several engines --------------------------------------------------------------------------


def test_each_engines_decisions_are_checked_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, first, second = (tmp_path / f"x{part}.jsonl" for part in ("", ".engine0", ".engine1"))
    words = [*SMALL, "--dp", "2", "--decisions-output", str(asked)]
    second.mkdir()
    assert main(words) == 2
    assert f"--decisions-output {second} is a folder" in capsys.readouterr().err
    second.rmdir()
    assert main([*words, "--output", str(first)]) == 2
    assert f"name the same file {first}" in capsys.readouterr().err
    assert main(words) == 0
    assert f"decisions: {first}, {second}" in capsys.readouterr().out
    assert names(tmp_path) == [first.name, second.name]


def test_several_engines_share_no_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main([*SMALL, "--dp", "2", "--decisions-output", str(pipe)]) == 2
    assert "not a regular file" in capsys.readouterr().err


def test_written_names_are_the_real_ones(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    original = run_module.write_outputs

    def spy(*args: object) -> list[str]:
        seen.append(original(*args))  # type: ignore[arg-type]
        return seen[-1]

    words = ["--dp", "2", "--quiet", "--decisions-output", str(tmp_path / "x.jsonl")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "write_outputs", spy)
        assert main([*SMALL, *words]) == 0
    assert seen == [[str(tmp_path / f"x.engine{engine}.jsonl") for engine in range(2)]]


@pytest.mark.parametrize("into_file", [True, False])
def test_an_output_on_standard_output_is_not_mixed_with_the_summary(
    tmp_path: Path, into_file: bool
) -> None:
    copy = tmp_path / "copy.json"
    pipe = ">" if into_file else "| cat >"
    script = f'"$@" --output /dev/stdout {pipe} "$COPY"'
    subprocess.run(
        ["sh", "-c", script, "sh", *PROGRAM, *SMALL],
        env={**os.environ, "COPY": str(copy)},
        check=True,
    )
    assert json.loads(copy.read_text())["completed"] == 20
    assert names(tmp_path) == ["copy.json"]
