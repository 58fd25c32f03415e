"""The page about a calibration: one file with its parameters and pictures."""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path

import pytest

from llm_inference_simulator.calibrators import StepCalibration, calibrate_from_steps
from llm_inference_simulator.errors import ConfigError
from vllm_benchmarks.html_summary import write_summary

DATA = Path(__file__).parents[2] / "benchmark_data" / "raw" / "vllm_cpu"


@pytest.fixture(scope="module")
def made() -> StepCalibration:
    return calibrate_from_steps(
        [DATA / "steps_offline_a.jsonl.gz"],
        model=str(DATA / "model_config.json"),
        xpu="cpu",
        bootstrap_samples=20,
    )


def test_the_page_holds_parameters_and_three_pictures(
    made: StepCalibration, tmp_path: Path
) -> None:
    page = tmp_path / "summary.html"
    assert write_summary(page, made) == ()
    text = page.read_text()
    for name, value in made.calibration.roofline_params.model_dump(exclude_none=True).items():
        assert name in text
        assert f"{value:,.4g}" in text
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([A-Za-z0-9+/=]+)", text)]
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 5000 for picture in pictures)
    assert "http" not in text, "the page needs nothing from elsewhere"
    first = page.read_bytes()
    write_summary(page, made)
    assert page.read_bytes() == first


def test_without_matplotlib_the_page_says_so(
    made: StepCalibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    (warning,) = write_summary(tmp_path / "summary.html", made)
    assert "install matplotlib" in warning
    assert "base64" not in (tmp_path / "summary.html").read_text()


def test_a_page_that_cannot_be_written_is_told(made: StepCalibration, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"summary .*give another --data-dir"):
        write_summary(tmp_path / "file" / "summary.html", made)
