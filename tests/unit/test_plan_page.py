"""The page of a plan: what it says, and that names stay text."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_inference_simulator.cli import main

QUESTION = [
    "plan", "--model", "llama-3.1-8b", "--xpus", "h100,l40s", "--request-rate", "4",
    "--num-prompts", "200", "--goodput", "ttft:1000", "tpot:50", "--attainment", "0.9",
    "--max-xpus", "2", "--modes", "aggregated", "--quiet",
]  # fmt: skip


def test_the_page_has_the_answer_and_its_reasons(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    assert main([*QUESTION, "--report", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    for words in (
        "Plan for llama-3.1-8b", "4 requests/s, 0.9 of the requests with ttft ≤ 1000 ms",
        "What binds the best candidate", "What each knob would change", "Pareto front",
        "vllm serve", "candidates were simulated", "max_num_batched_tokens: 2048",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize(
    ("limit", "reason"),
    [("1", "ttft 1 ms is out of reach"), ("23", "The nearest is "), ("23", " instead of 23 ms")],
)
def test_a_plan_without_an_answer_is_a_page_too(limit: str, reason: str, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    words = [word if word != "ttft:1000" else f"ttft:{limit}" for word in QUESTION]
    assert main([*words, "--report", str(page)]) == 3
    text = page.read_text(encoding="utf-8")
    assert "Nothing that was tried holds 4 requests/s" in text
    assert reason in text
    assert "vllm serve" not in text


def test_one_file_cannot_hold_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "plan")
    assert main([*QUESTION, "--report", path, "--output", path]) == 2
    assert "give two files" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUESTION, "--report", str(tmp_path / "nowhere" / "plan.html")]) == 2
    assert "--report" in capsys.readouterr().err
