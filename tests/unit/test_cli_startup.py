"""Help and version: fast, complete, without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llm_inference_simulator.cli import main
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.sections import Section

SECTIONS = [
    field.annotation
    for field in SimulatorConfig.model_fields.values()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
]
HEAVY = ("numpy", "pydantic", "rich", "yaml", "pyarrow", "jinja2")


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


SMALL_RUN = "--model llama-3.1-8b --xpu h100-sxm --num-prompts 10 --request-rate 9 --quiet"
NEEDED = {
    *("numpy", "pydantic", "pydantic_core", "annotated_types", "typing_extensions"),
    *("typing_inspection", "cython_runtime", "llm_inference_simulator"),
}
"""What a quiet run may import beside the standard library."""
UNUSED = (
    "calibrators",
    "cli.summary",
    "decisions",
    "performance_models.vllm_roofline",
    "progress_bar",
    "report",
    "streaming",
    "validation",
    "calibration.parameters",
    "cli.fail_on",
    "workload.pieces",
    "workload.traces",
)
"""Rooms of ours that such a run has no use for."""
UNUSED_OF_OTHERS = ("numpy.ma", "numpy.testing", "asyncio", "statistics", "tomllib")
"""Parts of libraries that it has no use for."""


def test_a_small_run_imports_what_it_needs_and_nothing_else() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from llm_inference_simulator.cli import main\n"
        f"code = main({SMALL_RUN.split()!r})\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    rooms = {module.partition(".")[0] for module in modules if not module.startswith("_")}
    assert rooms - sys.stdlib_module_names - NEEDED == set()
    ours = {module.removeprefix("llm_inference_simulator.") for module in modules}
    assert [room for room in UNUSED if room in ours] == []
    assert [part for part in UNUSED_OF_OTHERS if part in modules] == []


def test_a_small_run_compiles_no_section_twice() -> None:
    """Sections within the configuration are compiled with it; settings once checked stay so."""
    program = (
        "import sys\n"
        "from llm_inference_simulator.cli import main\n"
        f"code = main({SMALL_RUN.split()!r})\n"
        "from llm_inference_simulator.sections import Section\n"
        "print(*sorted(c.__name__ for c in Section.__subclasses__() if c.__pydantic_complete__))\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["FrontEndLatency", "HostOverheads", "SimulatorConfig"]


def test_importing_the_configuration_compiles_no_section() -> None:
    """Sections are parts of one another; each is compiled when it is first read, not at import."""
    program = (
        "from llm_inference_simulator import config\n"
        "from llm_inference_simulator.sections import Section\n"
        "print([c.__name__ for c in Section.__subclasses__() if c.__pydantic_complete__])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_defaults_that_nothing_checks_are_those_that_are_checked(section: type[Section]) -> None:
    assert section.default() == section()
    assert section.default().model_dump() == section().model_dump()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["run", "--help"]])
def test_help_fits_eighty_columns_and_lists_the_commands(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "82")  # argparse leaves two columns free
    assert main(words) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for command in ("run", "sweep", "plan", "models", "xpus", "calibrate", "validate", "report"):
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
        "(known: run, sweep, plan, models, xpus, calibrate, validate, report)\n"
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
