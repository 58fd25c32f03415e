"""Help and version: fast, complete, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llm_inference_simulator.cli import main

HEAVY = ("numpy", "pydantic", "rich", "yaml", "pyarrow")


def test_help_imports_none_of_the_heavy_libraries() -> None:
    program = (
        "import sys\n"
        "from llm_inference_simulator.cli import main\n"
        "code = main(['--help'])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"
    assert "--tensor-parallel-size, -tp, --tp N" in done.stdout


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"]])
def test_help_fits_eighty_columns_and_lists_the_commands(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "82")  # argparse leaves two columns free
    assert main(words) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for command in ("run", "sweep", "plan", "models", "xpus", "calibrate", "validate"):
        assert f"\n  {command} " in out


def test_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    name, version = capsys.readouterr().out.split()
    assert name == "llm-inference-simulator"
    assert version[0].isdigit()


def test_unknown_commands_get_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model"]) == 2
    assert capsys.readouterr().err == (
        "error: unknown command 'model'; did you mean 'models'? "
        "(known: run, sweep, plan, models, xpus, calibrate, validate)\n"
    )


@pytest.mark.parametrize("extra", [[], ["--traceback"]])
def test_internal_errors_are_short_unless_asked(
    extra: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_words: list[str]) -> int:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("llm_inference_simulator.cli._dispatch", fail)
    assert main(extra) == 1
    err = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: by zero" in err
    assert "report" in err
    assert ("Traceback" in err) == bool(extra)


def test_ctrl_c_before_the_run_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("llm_inference_simulator.cli._dispatch", interrupt)
    assert main([]) == 130
