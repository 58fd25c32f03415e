"""The comparison of docs/disaggregation.md is fair: same accelerators, same requests, same rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import disaggregation as study


def test_both_sides_have_the_same_accelerators_and_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "REQUESTS", 60)
    monkeypatch.setattr(study, "RATES_PER_ENGINE", {"azure-conv-2023": (1.0,)})
    points = study.points_of("azure-conv-2023", "azure-conv-2023")
    summaries = [study.run(point) for point in points]
    xpus = [sum(pool["n_xpus"] for pool in summary["pools"]) for summary in summaries]
    assert xpus == [8, 8, 12, 12]
    for summary, engines in zip(summaries, (2, 2, 3, 3), strict=True):
        assert summary["num_prompts"] == 60
        assert summary["failed"] == 0
        # The last of 60 requests arrives when the rate says.
        assert summary["measurement"]["arrivals_end_s"] == pytest.approx(60 / engines)
        assert summary["measurement"]["excluded_warm_up"] > 0
    aggregated, split = summaries[:2]
    for key in ("total_input_tokens", "total_output_tokens", "completed"):
        assert aggregated[key] == split[key]
    assert split["kv_transfer"]["transfers"] > 0
    lines = study.table(points, summaries).splitlines()
    assert [line.split(" | ")[2] for line in lines[2:]] == list(study.LAYOUTS)
    pytest.importorskip("matplotlib")
    picture = tmp_path / "study.png"
    study.draw(points, summaries, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_trace_that_is_not_there_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["/nowhere/trace.jsonl"]) == 2
    assert "trace /nowhere/trace.jsonl does not exist" in capsys.readouterr().err
