"""The reference decides as the recorded scheduler of vLLM did, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.replay import replay

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden" / "vllm_decisions").glob("*.jsonl.gz"))
ALL = sorted((ROOT.parent / "shared" / "data" / "vllm_decisions").glob("*.jsonl.gz"))
"""Every recorded trace, where the folder exists beside the repository."""


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_committed_traces(path: Path) -> None:
    assert replay(path)["steps"] > 0


def test_committed_traces_exercise_the_rules() -> None:
    assert len(GOLDEN) >= 12
    seen = [replay(path) for path in GOLDEN]
    assert sum(counts["preemptions"] for counts in seen) > 50
    assert sum(counts["hits"] for counts in seen) > 50


@pytest.mark.skipif(not ALL, reason="only a dozen of the recorded traces are committed")
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_all_recorded_traces(path: Path) -> None:
    assert replay(path)["steps"] > 0
