"""Every command of the README and of the guides runs, in the order of the page, in one folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.documents import ROOT, Block, blocks, console_commands, documents, matches

FOLDERS = ("benchmark_data", "benchmarks", "docs", "python", "tests", "vllm_benchmarks")
RUN = {
    "id": "measured",
    "model": "llama-3.1-8b",
    "hardware": "H100",
    "precision": "BF16",
    "tensor_parallel_size": 1,
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 128,
    "max_model_len": 4096,
    "block_size": 16,
    "gpu_memory_utilization": 0.9,
    "workload": "chat",
    "stages": [[2, 30]],
    "sys": 100,
    "question": 180,
    "output": 32,
    "input_mean": 300,
    "prefix_groups": 3,
    "prompts_per_group": 4,
    "measured_ms": {"e2e_mean": 260.0, "ttft_mean": 20.0, "itl_mean": 7.0},
}


def prepare(folder: Path) -> dict[str, str]:
    """A folder like a checkout with the files that documents speak of, and its environment."""
    for name in FOLDERS:
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".programs"
    programs.mkdir()
    for name, words in (
        ("llm-inference-simulator", '-m llm_inference_simulator "$@" $SIMULATOR_FLAGS'),
        ("python", '"$@"'),
    ):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}\n')
        program.chmod(0o755)
    (folder / "runs.json").write_text(json.dumps([RUN]))
    (folder / "cluster.yaml").write_text(
        "model: llama-3.1-8b\nxpu: h100-sxm\ncluster: {data_parallel_size: 4}\n"
        "workload: {request_rate: 20.0, num_prompts: 100}\n"
    )
    paths = [str(programs), os.environ["PATH"]]
    return {
        **os.environ,
        "PATH": os.pathsep.join(paths),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), str(ROOT)]),
        "COLUMNS": "80",
    }


def run(
    script: list[str], folder: Path, environment: dict[str, str], *, must_succeed: bool = True
) -> str:
    done = subprocess.run(
        script, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert not must_succeed or done.returncode == 0, f"exit code {done.returncode}\n{output}"
    return output


def run_block(block: Block, folder: Path, environment: dict[str, str], variables: str = "") -> None:
    environment = {**environment, "SIMULATOR_FLAGS": block.flags}
    if block.language == "python":
        run([sys.executable, "-c", block.text], folder, environment)
    elif block.language == "sh":
        run(["bash", "-euo", "pipefail", "-c", variables + block.text], folder, environment)
    for command, expected in console_commands(block.text) if block.language == "console" else ():
        # A page may show how a refusal looks, so it is the text that is compared.
        printed = run(["bash", "-c", command], folder, environment, must_succeed=False)
        says = f"{command}\nprinted\n{printed}\nthe page says\n{expected}"
        assert matches(expected, printed), says


def run_document(document: Path, folder: Path, *, slow: bool) -> int:
    environment = prepare(folder)
    ran, variables = 0, ""
    for block in blocks(document):
        if block.what == "skip" or (block.what == "slow" and not slow):
            continue
        failure = None
        try:
            run_block(block, folder, environment, variables)
        except AssertionError as error:
            failure = f"{block.name}\n{textwrap.indent(block.text, '    ')}{error}"
        if failure is not None:
            pytest.fail(failure, pytrace=False)
        # Variables of one block are there in the next, as in a reader's shell.
        variables += "".join(re.findall(r"^[A-Z]+=\S+.*\n", block.text, re.MULTILINE))
        ran += 1
    return ran


def name_of(document: Path) -> str:
    return document.name


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_commands_of_a_document_run(document: Path, tmp_path: Path) -> None:
    run_document(document, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_slow_commands_of_a_document_run_too(document: Path, tmp_path: Path) -> None:
    wanted = [block for block in blocks(document) if block.what != "skip"]
    assert run_document(document, tmp_path, slow=True) == len(wanted)


def test_the_documents_are_found_and_have_commands() -> None:
    assert {"README.md", "calibrate.md", "from_vllm.md"} <= {page.name for page in documents()}
    assert sum(len(blocks(page)) for page in documents()) > 20


def test_every_page_has_its_place_in_the_site() -> None:
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    listed = re.findall(r'= "([\w/]+\.md)"', text)
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_no_command_hides_in_a_block_without_a_language() -> None:
    for document in documents():
        text = document.read_text(encoding="utf-8")
        for block in text.split("```")[1::2]:
            first, _, rest = block.partition("\n")
            assert first.strip() or "llm-inference-simulator " not in rest, f"{document}: {rest}"
        for line in text.splitlines():
            assert not line.startswith("    llm-inference-simulator"), f"{document}: {line}"


def test_a_failing_command_fails(tmp_path: Path) -> None:
    page = Block(ROOT / "README.md", 1, "sh", "llm-inference-simulator --model nope\ntrue\n", "run")
    with pytest.raises(AssertionError, match="--xpu missing"):
        run_block(page, tmp_path, prepare(tmp_path))


def test_flags_of_a_marker_reach_the_program(tmp_path: Path) -> None:
    page = Block(ROOT / "README.md", 1, "sh", "llm-inference-simulator\n", "with", "--version")
    run_block(page, tmp_path, prepare(tmp_path))


@pytest.mark.parametrize(
    "marker", ["run: skip", "run: skip because", "run: never because it is long enough", "run"]
)
def test_a_marker_needs_a_reason(marker: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"<!-- {marker} -->\n```sh\ntrue\n```\n")
    with pytest.raises(ValueError, match="not a marker"):
        blocks(page)
    page.write_text("<!-- run: slow because it takes a while -->\n```sh\ntrue\n```\n")
    assert [block.what for block in blocks(page)] == ["slow"]


def test_outputs_are_compared_with_gaps() -> None:
    assert matches("a\n…\nb\n", "a\nx\ny\nb\n")
    assert matches("a\n…\n", "a\n")
    assert not matches("a\n…\nb\n", "a\nx\n")
    assert console_commands("$ a \\\n> b\nout\n$ c\n") == [("a \\\nb", "out\n"), ("c", "")]
