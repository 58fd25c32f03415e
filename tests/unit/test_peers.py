"""The comparison with other simulators, without installing any."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers import environments
from benchmarks.peers.environments import UnavailableError

NAMES = [entry.name for entry in peers.ENTRIES]


def entry(name: str) -> peers.Entry:
    return peers.ENTRIES[NAMES.index(name)]


@pytest.mark.parametrize("name", ["naive", "fixed", "command"])
def test_our_entries_run_in_processes_of_their_own(name: str) -> None:
    run = peers.run(entry(name), 200)
    assert run.requests == 200
    assert run.process_s > (run.loop_s or 0)
    if name != "command":
        assert run.batch is not None
        assert 5 < run.batch < 20


def test_what_is_unavailable_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def run(one: peers.Entry, requests: int) -> peers.Run:
        tried.append(one.name)
        if one.name == "dynamo":
            raise UnavailableError("pip could not install it: no such wheel")
        return peers.Run(requests, process_s=1.0, loop_s=0.5)

    monkeypatch.setattr(peers, "run", run)
    runs = peers.run_all([entry("dynamo"), entry("naive")], 10, rounds=2)
    assert tried == ["dynamo", "naive", "naive"]
    assert list(runs) == [entry("naive").label]
    assert "Dynamo 1.4.2 replay: left out: pip could not install it" in capsys.readouterr().out


def test_slow_entries_run_once_and_the_fastest_of_the_others_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {"naive": iter([3.0, 2.0]), "sched-sim": iter([peers.SLOW_S + 1])}
    monkeypatch.setattr(
        peers, "run", lambda one, n: peers.Run(n, (took := next(seconds[one.name])), took / 2)
    )
    runs = peers.run_all([entry("naive"), entry("sched-sim")], 10, rounds=2)
    assert runs[entry("naive").label] == peers.Run(10, 2.0, 1.0)
    assert runs[entry("sched-sim").label].process_s > peers.SLOW_S


def test_the_table_has_ratios_of_like_runs_only(capsys: pytest.CaptureFixture[str]) -> None:
    peers.print_table(
        {
            entry("fixed").label: peers.Run(1000, 9.0, 0.001, 11.0),
            entry("command").label: peers.Run(1000, 2.0),
            entry("dynamo").label: peers.Run(1000, 8.0, 0.050, 10.0),
            entry("reference").label: peers.Run(10, 8.0, 1.0),
        }
    )
    lines = {line[:28].strip(): line[28:].split() for line in capsys.readouterr().out.splitlines()}
    assert lines["Dynamo 1.4.2 replay"] == ["1,000", "10.0", "50.00", "50.0", "8.00", "4.0"]
    assert lines["tests/reference (Python)"] == ["10", "100,000.00", "100,000.0", "8.00"]


def test_a_failed_installation_gives_pips_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "looking\nERROR: no wheel\n")

    monkeypatch.setattr(environments, "FOLDER", tmp_path / ".venv-peers")
    monkeypatch.setattr("benchmarks.peers.environments.venv.EnvBuilder.create", lambda *_: None)
    monkeypatch.setattr("benchmarks.peers.environments.subprocess.run", refuse)
    with pytest.raises(UnavailableError, match="could not install it: ERROR: no wheel"):
        environments.python_with("x", ("x==1",))
    assert not (tmp_path / ".venv-peers/x/requirements.txt").exists()


def test_a_failing_script_gives_its_last_words() -> None:
    broken = peers.Entry("broken", "broken", "run_ours.py", 8.0, words=("nonsense",))
    with pytest.raises(UnavailableError, match="exit code 1: "):
        peers.run(broken, 10)
