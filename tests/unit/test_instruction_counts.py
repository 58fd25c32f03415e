"""What the comparison of instruction counts with their history says (nothing is counted here)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.instruction_counts import (
    HISTORY,
    PINNED,
    ROOT,
    MeasureError,
    Record,
    complaints,
    history,
    main,
    total_of,
)

LAST = Record("abc", "1.90.0", "x86_64", "first", {"one": 1000, "two": 2000})


def verdict(
    counts: dict[str, int], *, rustc: str = "1.90.0", machine: str = "x86_64"
) -> tuple[list[str], list[str]]:
    return complaints(counts, LAST, rustc=rustc, machine=machine)


def test_growth_up_to_five_percent_passes_and_beyond_it_is_an_error() -> None:
    assert verdict({"one": 1050, "two": 2000}) == ([], [])
    errors, remarks = verdict({"one": 1051, "two": 2000})
    assert errors == ["one takes +5.1% instructions against the record of abc"]
    assert remarks == []


def test_a_large_gain_is_worth_a_record() -> None:
    assert verdict({"one": 900, "two": 2000}) == (
        [],
        ["one takes -10.0% instructions: worth a record"],
    )


def test_another_compiler_is_held_against_a_wider_bound_and_told() -> None:
    errors, remarks = verdict({"one": 1200, "two": 2000}, rustc="1.91.0")
    assert errors == []
    assert "1.90.0" in remarks[0]
    assert "1.91.0" in remarks[0]
    errors, _ = verdict({"one": 1300, "two": 2000}, rustc="1.91.0")
    assert errors == ["one takes +30.0% instructions against the record of abc"]


def test_another_architecture_is_not_compared() -> None:
    errors, remarks = verdict({"one": 9999, "two": 2000}, machine="aarch64")
    assert errors == []
    assert "nothing to compare" in remarks[0]


def test_cases_must_be_the_recorded_ones() -> None:
    assert verdict({"one": 1000})[0] == ["two is no longer measured"]
    assert verdict({"one": 1000, "two": 2000, "new": 1})[0] == ["new is not in the last record"]


def test_a_record_survives_its_line(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(LAST.line() + replace(LAST, commit="def").line())
    assert history(path) == [LAST, replace(LAST, commit="def")]
    assert history(tmp_path / "none") == []


def test_the_shipped_history_covers_the_pinned_cases() -> None:
    records = history()
    assert set(records[-1].instructions) == set(PINNED)
    assert all(record.reason for record in records)
    assert HISTORY.read_text() == "".join(
        json.dumps(json.loads(line)) + "\n" for line in HISTORY.read_text().splitlines()
    )


def test_the_program_has_every_pinned_case() -> None:
    source = (ROOT / "rust_core/examples/pinned_cases/main.rs").read_text()
    assert re.findall(r'name: "(\w+)"', source) == list(PINNED)


def test_a_count_of_nothing_is_refused() -> None:
    assert total_of("events: Ir\nsummary: 7\ntotals: 7\n") == 7
    for text in ("totals: 0\n", "no totals"):
        with pytest.raises(MeasureError, match="no event loop"):
            total_of(text)


def test_a_record_needs_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", " "]) == 2
    assert "make bench-record REASON=" in capsys.readouterr().err
