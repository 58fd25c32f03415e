"""Other simulators beside this one on one workload, in one go.

    make bench-peers        # or: python -m benchmarks.peers --requests 20000 --only simpy

512 prompt tokens, 128 output tokens, Poisson arrivals, one engine, prefix caching off, each at the
load at which its own step times keep a batch of about 11. Loop: the event loop alone, as the peer
itself reports it where it does. Process: a whole process from start to end; for peers a script that
only simulates, for us the command line with its result file. Each is run a few times in turn, and
its fastest run counts; how each is set up is told at the top of its script in this folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.environments import UnavailableError, python_with
from benchmarks.startup import environment

HERE = Path(__file__).parent
PROMPT, OUTPUT = 512, 128
SLOW_S = 15.0
"""What takes longer is run once: another run would not change the picture."""


@dataclass(frozen=True)
class Entry:
    """Something that runs the common workload."""

    name: str
    label: str
    script: str
    rate_per_s: float
    """Gives a batch of about 11 with the step times that the entry has."""
    requirements: tuple[str, ...] = ()
    """Installed into an environment ``name``; nothing: the entry runs in ours."""
    words: tuple[str, ...] = ()
    most_requests: int | None = None


AISIMULATE = ("aisimulate==0.13.0.dev202610270000000085",)
ENTRIES = (
    Entry("fixed", "our loop, fixed step times", "run_ours.py", 8.2, words=("fixed",)),
    Entry("roofline", "our loop, roofline", "run_ours.py", 11.0, words=("roofline",)),
    Entry("op_table", "our loop, op_table", "run_ours.py", 11.0, words=("op_table",)),
    Entry("command", "our command line, op_table", "", 11.0),
    Entry("naive", "naive Python loop", "run_naive.py", 8.2),
    Entry(
        "reference",
        "tests/reference (Python)",
        "run_ours.py",
        8.2,
        words=("reference",),
        most_requests=30,
    ),
    Entry("dynamo", "Dynamo 1.4.2 replay", "run_dynamo.py", 9.6, ("ai-dynamo==1.4.2",)),
    Entry("aisimulate", "AISimulate, fixed", "run_aisimulate.py", 9.8, AISIMULATE, ("fixed",)),
    Entry(
        "aisimulate", "AISimulate, op level", "run_aisimulate.py", 11.0, AISIMULATE, ("op_level",)
    ),
    Entry("sched-sim", "sched-sim 0.2.1", "run_sched_sim.py", 14.0, ("sched-sim==0.2.1",)),
    Entry("simpy", "SimPy 4.1.2 queue model", "run_simpy.py", 8.2, ("simpy==4.1.2",)),
)


@dataclass(frozen=True)
class Run:
    """What one run of an entry took."""

    requests: int
    process_s: float
    loop_s: float | None = None
    """None: the entry is a whole program."""
    batch: float | None = None

    def loop_us(self) -> float | None:
        """Microseconds a request in the event loop."""
        return None if self.loop_s is None else self.loop_s / self.requests * 1e6


def run(entry: Entry, requests: int) -> Run:
    """Run an entry once in a process of its own.

    Raises :class:`UnavailableError` if it fails or leaves requests unanswered.
    """
    requests = min(requests, entry.most_requests or requests)
    if entry.name == "command":
        return _run_command_line(entry, requests)
    python = python_with(entry.name, entry.requirements) if entry.requirements else sys.executable
    numbers = [str(number) for number in (requests, PROMPT, OUTPUT, entry.rate_per_s)]
    # Isolated for peers: neither our PYTHONPATH nor the folder of the scripts is theirs.
    isolated = ["-I"] if entry.requirements else []
    command = [str(python), *isolated, str(HERE / entry.script), *numbers, *entry.words]
    stdout, process_s = _timed(command)
    measured = json.loads(stdout.splitlines()[-1])
    if measured["completed"] != requests:
        raise UnavailableError(f"it completed {measured['completed']} of {requests} requests")
    latency = measured["mean_latency_s"]
    batch = None if latency is None else latency * entry.rate_per_s
    return Run(requests, process_s, measured["loop_s"], batch)


def _run_command_line(entry: Entry, requests: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            *("--model", "llama-3.1-8b", "--xpu", "h100-sxm", "--no-enable-prefix-caching"),
            *("--request-rate", str(entry.rate_per_s), "--num-prompts", str(requests)),
            *("--random-input-len", str(PROMPT), "--random-output-len", str(OUTPUT)),
            *("--quiet", "--output", str(Path(folder, "results.json"))),
        ]
        _, process_s = _timed([sys.executable, "-m", "llm_inference_simulator", *flags])
    return Run(requests, process_s)


def _timed(command: Sequence[str]) -> tuple[str, float]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    elapsed = time.perf_counter() - started
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise UnavailableError(f"exit code {done.returncode}: {words[-1]}")
    return done.stdout, elapsed


def run_all(entries: Sequence[Entry], requests: int, rounds: int) -> dict[str, Run]:
    """The fastest loop and the fastest process of each entry, by label."""
    best: dict[str, Run] = {}
    failed: set[str] = set()
    for number in range(rounds):
        for entry in entries:
            before = best.get(entry.label)
            slow = before is not None and before.process_s > SLOW_S
            if entry.label in failed or slow:
                continue
            try:
                now = run(entry, requests)
            except UnavailableError as error:
                print(f"{entry.label}: left out: {error}")
                failed.add(entry.label)
                continue
            best[entry.label] = now if before is None else faster(before, now)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return best


def faster(one: Run, other: Run) -> Run:
    """The faster loop and the faster process of two runs."""
    loops = [run.loop_s for run in (one, other) if run.loop_s is not None]
    return Run(
        one.requests,
        min(one.process_s, other.process_s),
        min(loops) if loops else None,
        one.batch,
    )


def print_table(runs: dict[str, Run]) -> None:
    """All runs, with how many times as long they take as ours."""
    labels = {entry.name: entry.label for entry in ENTRIES}
    fixed_us, table_us = (_loop_us(runs.get(labels[name])) for name in ("fixed", "op_table"))
    command = runs.get(labels["command"])
    print(
        f"\n{'':28}{'requests':>9}{'batch':>7}{'loop us/req':>13}{'/ fixed':>11}{'/ op_table':>12}"
        f"{'process s':>11}{'/ ours':>8}"
    )
    for label, run in runs.items():
        like = command is not None and run.requests == command.requests
        print(
            f"{label:28}{run.requests:9,}{_cell(run.batch, 7, 1)}{_cell(run.loop_us(), 13, 2)}"
            f"{_ratio(run.loop_us(), fixed_us, 11)}"
            f"{_ratio(run.loop_us(), table_us, 12)}{run.process_s:11.2f}"
            f"{_ratio(run.process_s, command.process_s if command and like else None, 8)}"
        )


def _loop_us(run: Run | None) -> float | None:
    return None if run is None else run.loop_us()


def _cell(value: float | None, width: int, digits: int) -> str:
    return " " * width if value is None else f"{value:{width},.{digits}f}"


def _ratio(value: float | None, unit: float | None, width: int) -> str:
    return _cell(value / unit if value is not None and unit else None, width, 1)


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for and print the table; exit code 1 if nothing ran."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = tuple(dict.fromkeys(entry.name for entry in ENTRIES))
    parser.add_argument(
        "--requests", type=int, default=100_000, metavar="N", help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"any of: {', '.join(names)}",
    )
    arguments = parser.parse_args(words)
    if min(arguments.requests, arguments.rounds) < 1:
        parser.error("--requests and --rounds are at least 1")
    chosen = [entry for entry in ENTRIES if entry.name in arguments.only]
    runs = run_all(chosen, arguments.requests, arguments.rounds)
    print_table(runs)
    return 0 if runs else 1


if __name__ == "__main__":
    sys.exit(main())
