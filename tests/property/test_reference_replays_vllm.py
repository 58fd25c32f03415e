"""The reference decides as the recorded scheduler of vLLM did, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference.replay import replay

ROOT = Path(__file__).parents[2]
ALL = sorted((ROOT / "tests" / "golden" / "vllm_decisions").glob("*.jsonl.gz"))
REPRESENTATIVE = (
    *(f"random_{n}" for n in (1011, 1025, 1035, 1048, 1053, 1057, 1060, 1061, 1063, 1068, 1069)),
    *("random_1072", "realistic_0101", "realistic_0104"),
)
"""Both policies, both kinds of scheduling, caching on and off, thresholds, watermarks."""
GOLDEN = [path for path in ALL if path.name.partition(".")[0] in REPRESENTATIVE]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.name)
def test_committed_traces(path: Path) -> None:
    assert replay(path)["steps"] > 0


def test_committed_traces_exercise_the_rules() -> None:
    assert len(GOLDEN) == len(REPRESENTATIVE)
    assert len(ALL) == 88
    seen = [replay(path) for path in GOLDEN]
    assert sum(counts["preemptions"] for counts in seen) > 50
    assert sum(counts["hits"] for counts in seen) > 50


@pytest.mark.conformance
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_all_recorded_traces(path: Path) -> None:
    assert replay(path)["steps"] > 0
