"""Instructions of the core's event loop: a measure of speed that a busy machine does not move.

    python -m benchmarks.instruction_counts                     # print them
    python -m benchmarks.instruction_counts check               # compare with the last record
    python -m benchmarks.instruction_counts record REASON       # add a record

Callgrind runs each pinned case of ``rust_core/examples/pinned_cases``, a program of the core
without Python, and counts what is executed inside its event loop. The same source, compiler and C
library give the same count to the instruction. Every record of
``benchmarks/history/instructions.jsonl`` is a line: commit, compiler, processor architecture,
reason and the counts by case.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
HISTORY = ROOT / "benchmarks/history/instructions.jsonl"
PINNED = {
    "one_engine": 3000,
    "step_by_step": 3000,
    "roofline": 3000,
    "op_table": 3000,
    "op_table_16": 3000,
    "prefix_caching": 3000,
    "engines_256": 20_000,
}
"""Requests of each case: few, as callgrind is some fifty times slower than the core."""

MOST_GROWTH = 0.05
MOST_GROWTH_OTHER_COMPILER = 0.25
"""Another rustc inlines otherwise: only what a compiler's moods do not explain is an error then."""


@dataclass(frozen=True)
class Record:
    """Counts of all cases at one commit."""

    commit: str
    rustc: str
    machine: str
    reason: str
    instructions: dict[str, int]

    def line(self) -> str:
        """The record as a line of the history."""
        return json.dumps(asdict(self)) + "\n"


class MeasureError(Exception):
    """Counting is not possible here; the message says what to do."""


def measure() -> dict[str, int]:
    """Instructions of each pinned case.

    Raises :class:`MeasureError` where a tool is missing or a run fails.
    """
    if shutil.which("valgrind") is None:
        raise MeasureError("valgrind is missing: apt-get install valgrind")
    program = _build()
    return {case: _count(program, case, requests) for case, requests in PINNED.items()}


def _build() -> str:
    """Compile the pinned cases as the extension is compiled; the program's path."""
    command = "cargo build --release --locked --quiet --example pinned_cases"
    lines = _output([*command.split(), "--message-format=json"]).splitlines()
    messages = [json.loads(line) for line in lines]
    executable: str = next(
        message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "pinned_cases"
    )
    return executable


def _count(program: str, case: str, requests: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        _output(
            [
                *("valgrind", "--tool=callgrind", "--toggle-collect=*event_loop*"),
                *(f"--callgrind-out-file={out}", program, case, str(requests)),
            ]
        )
        return total_of(out.read_text())


def total_of(callgrind_output: str) -> int:
    """The number of instructions in callgrind's output file."""
    found = re.search(r"^totals: (\d+)$", callgrind_output, re.MULTILINE)
    if found is None or int(found[1]) == 0:
        raise MeasureError("callgrind saw no event loop: is the program built without symbols?")
    return int(found[1])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MeasureError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


def rustc_version() -> str:
    """The compiler, as in ``1.95.0``."""
    return _output(["rustc", "--version"]).split()[1]


def history(path: Path = HISTORY) -> list[Record]:
    """All records, the oldest first."""
    if not path.exists():
        return []
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()]


def complaints(
    counts: Mapping[str, int], last: Record, *, rustc: str, machine: str
) -> tuple[list[str], list[str]]:
    """(errors, remarks) on ``counts`` beside the last record.

    Counts of another architecture say nothing about these; counts of another compiler are held
    against a wider bound.
    """
    if machine != last.machine:
        return [], [f"recorded on {last.machine}, this is {machine}: nothing to compare with"]
    errors, remarks = [], []
    bound = MOST_GROWTH
    if rustc != last.rustc:
        bound = MOST_GROWTH_OTHER_COMPILER
        remarks.append(
            f"recorded with rustc {last.rustc}, this is {rustc}: growth up to {bound:.0%} passes"
        )
    for case, count in counts.items():
        if case not in last.instructions:
            errors.append(f"{case} is not in the last record")
            continue
        known = last.instructions[case]
        growth = count / known - 1
        if count - known > bound * known:
            errors.append(
                f"{case} takes {growth:+.1%} instructions against the record of {last.commit}"
            )
        elif growth < -MOST_GROWTH:
            remarks.append(f"{case} takes {growth:+.1%} instructions: worth a record")
    errors += [f"{case} is no longer measured" for case in last.instructions if case not in counts]
    return errors, remarks


def print_table(counts: Mapping[str, int], last: Record | None) -> None:
    """Counts by request, beside the last record."""
    print(f"{'instructions of the event loop':32}{'a request':>12}{'last record':>14}")
    for case, count in counts.items():
        per_request = count / PINNED[case]
        known = last.instructions.get(case) if last else None
        beside = f"{known / PINNED[case]:14,.0f} {count / known - 1:+7.1%}" if known else ""
        print(f"{case:32}{per_request:12,.0f}{beside}")


def print_counts() -> None:
    """Measure and print, or say why not: for ``make bench``."""
    try:
        counts = measure()
    except MeasureError as error:
        print(f"no instruction counts: {error}")
        return
    print_table(counts, next(reversed(history()), None))


def check() -> int:
    """Exit code: 1 where a case got slower than the bound allows."""
    records = history()
    if not records:
        print(f"{HISTORY.relative_to(ROOT)} is empty: make bench-record REASON='first record'")
        return 1
    counts = measure()
    print_table(counts, records[-1])
    errors, remarks = complaints(
        counts, records[-1], rustc=rustc_version(), machine=platform.machine()
    )
    for text in remarks:
        print(f"note: {text}")
    for text in errors:
        print(f"error: {text}", file=sys.stderr)
    if errors:
        print(
            "Make it faster again, or, where the growth buys something, commit the new counts with "
            "the reason:\n  make bench-record REASON='what the instructions are for'",
            file=sys.stderr,
        )
    return int(bool(errors))


def record(reason: str) -> int:
    """Add a record of this source tree to the history."""
    commit = _output(["git", "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty=+"])
    counts = measure()
    new = Record(commit.strip(), rustc_version(), platform.machine(), reason, counts)
    last = next(reversed(history()), None)
    HISTORY.parent.mkdir(exist_ok=True)
    with HISTORY.open("a") as file:
        file.write(new.line())
    print_table(counts, last)
    return 0


def main(words: Sequence[str]) -> int:
    """Run one of the three commands."""
    try:
        match words:
            case []:
                print_table(measure(), next(reversed(history()), None))
                return 0
            case ["check"]:
                return check()
            case ["record", reason] if reason.strip():
                return record(reason.strip())
    except MeasureError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        "usage: python -m benchmarks.instruction_counts [check | record REASON]; "
        "with make: make bench-record REASON='why the counts changed'",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
