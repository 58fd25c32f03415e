"""The package's public names."""

from __future__ import annotations

import importlib

import pytest

import llm_inference_simulator
from llm_inference_simulator.cli import main


def test_every_public_name_can_be_had() -> None:
    for name in llm_inference_simulator.__all__:
        assert getattr(llm_inference_simulator, name) is not None
    assert set(llm_inference_simulator.__all__) <= set(dir(llm_inference_simulator))


def test_names_are_those_of_their_modules() -> None:
    errors = importlib.import_module("llm_inference_simulator.errors")
    assert llm_inference_simulator.ConfigError is errors.ConfigError


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = llm_inference_simulator.simulat


def test_a_missing_core_is_said_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_words: list[str]) -> int:
        raise ModuleNotFoundError(name="llm_inference_simulator._core")

    monkeypatch.setattr("llm_inference_simulator.cli._dispatch", fail)
    assert main([]) == 1
    assert capsys.readouterr().err == (
        "error: the compiled core is missing: build and install it with 'pip install .'\n"
    )
