"""`models` and `xpus`: complete in a pipe, light to build, JSON on demand."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import pytest

from llm_inference_simulator.catalog.models import list_models
from llm_inference_simulator.catalog.xpus import list_xpus
from llm_inference_simulator.cli.catalog import add_models_parser, add_xpus_parser


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers()
    add_models_parser(subparsers)
    add_xpus_parser(subparsers)
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(*words) == 0
    return capsys.readouterr().out


def test_models_are_listed_on_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output(capsys, "models").splitlines()
    assert len(lines) == 1 + len(list_models())
    row = next(line for line in lines if line.startswith("llama-3.1-405b "))
    assert "405.85B" in row
    assert "504.0" in row
    assert row.endswith("meta-llama/Llama-3.1-405B")  # the last of its names: nothing is cut


def test_one_model_shows_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, "models", "llama-7b")
    assert "6,738,415,616" in text
    assert "512.0 KiB" in text


def test_xpus_are_listed_and_shown_with_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(output(capsys, "xpus").splitlines()) == 1 + len(list_xpus())
    text = output(capsys, "xpus", "gb10")
    for source in next(spec for spec in list_xpus() if spec.name == "gb10").sources.values():
        assert source in text


@pytest.mark.parametrize("words", [["models"], ["xpus"]])
def test_json_lists(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    data: Any = json.loads(output(capsys, *words, "--json"))
    assert len(data) == len(list_models() if words == ["models"] else list_xpus())


def test_json_entries(capsys: pytest.CaptureFixture[str]) -> None:
    model = json.loads(output(capsys, "models", "deepseek-v3", "--json"))
    assert model["mla"]["kv_lora_rank"] == 512
    assert sum(model["parameters"].values()) == model["parameter_count"]
    xpu = json.loads(output(capsys, "xpus", "h100", "--json"))
    assert xpu["memory_bytes_per_s"] == 3.35e12
    assert xpu["sources"]["bf16_tflops"]


def test_building_the_parsers_imports_nothing_heavy() -> None:
    code = (
        "import sys, argparse\n"
        "from llm_inference_simulator.cli.catalog import add_models_parser, add_xpus_parser\n"
        "subparsers = argparse.ArgumentParser().add_subparsers()\n"
        "add_models_parser(subparsers); add_xpus_parser(subparsers)\n"
        "heavy = {'yaml', 'rich', 'numpy', 'pydantic', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
