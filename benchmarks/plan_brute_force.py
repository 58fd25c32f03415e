"""Whether a plan names the winner of simulating everything.

Llama 3.1 70B with the lengths of the Azure conversation trace at 20 requests/s, TTFT <= 1 s and
TPOT <= 50 ms for 99 % of the requests, over H100, H200, MI300X and L40S, aggregated and
disaggregated. The plan is made, then every candidate of up to ``--max-xpus`` accelerators gets the
plan's verdict, with none of its bounds and in no order of price; both times and both winners are
printed, and whether any candidate that the bounds rule out meets the objectives:
``python benchmarks/plan_brute_force.py``.

The whole space takes about an hour of two cores. ``--output FOLDER`` keeps what was simulated, so
that the same command goes on after a Ctrl-C or a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator._core import __version__
from llm_inference_simulator.plan.candidates import Candidate, families, members
from llm_inference_simulator.plan.judge import Judge, Trial
from llm_inference_simulator.plan.prices import prices_of
from llm_inference_simulator.plan.pruning import Pruner
from llm_inference_simulator.plan.request import DEFAULT_MAX_XPUS, DEFAULT_REQUESTS, PlanRequest
from llm_inference_simulator.plan.search import cheapest, rank
from llm_inference_simulator.progress_bar import configurations_bar
from llm_inference_simulator.shared_inputs import SharedInputs
from llm_inference_simulator.sweep.journal import open_journal
from llm_inference_simulator.sweep.rows import Row
from llm_inference_simulator.sweep.run import prepare_folder

XPUS = ("h100", "h200", "mi300x", "l40s")
AT_ONCE = 200
"""Candidates that are simulated before their rows are kept."""


def request_of(rate: float, max_xpus: int) -> PlanRequest:
    """The question; ``--max-xpus`` is the only part of the space that is not the default."""
    return PlanRequest(
        base={
            "model": "llama-3.1-70b",
            "workload": {"lengths_from": "azure-conv-2023"},
            "measurement": {"goodput": {"ttft": 1000.0, "tpot": 50.0}},
        },
        xpus=XPUS,
        request_rate=rate,
        max_xpus=max_xpus,
    )


def everything(request: PlanRequest, inputs: SharedInputs) -> list[Candidate]:
    """Every candidate of the space, in a fixed order."""
    return [
        candidate
        for family in families(request, inputs.model(request.base["model"]))
        for candidate in members(family, [1] * len(family.layouts), request.max_xpus)
    ]


def row_of(index: int, trial: Trial, judge: Judge, seconds: float) -> Row:
    """What is kept of a verdict."""
    judgement = trial.judgement
    if judgement is None:
        own = {"seconds": seconds, "simulations": 0}
        return Row(index=index, status="refused", reason=trial.refusal, metrics=own)
    metrics = {
        "seconds": seconds,
        # A candidate that met the objectives was simulated again with more requests.
        "simulations": 1 + (judgement.metrics["completed"] > DEFAULT_REQUESTS),
        "rank": list(rank(trial, judge)) if trial.meets else None,
    }
    return Row(index=index, status="ok", reason=judgement.reason, metrics=metrics)


def verdicts(
    request: PlanRequest,
    candidates: Sequence[Candidate],
    folder: Path,
    jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, Row]:
    """The verdict of each candidate by its place; goes on where ``folder`` has some."""
    prices, inputs, rate = prices_of(XPUS, {}), SharedInputs(), request.request_rate
    assert rate is not None
    asked = repr((__version__, request, [each.parameters() for each in candidates]))
    prepare_folder(folder)
    with open_journal(folder, hashlib.sha256(asked.encode()).hexdigest()) as journal:
        left = [place for place in range(len(candidates)) if place not in journal.rows]
        for start in range(0, len(left), AT_ONCE):
            places = left[start : start + AT_ONCE]
            began = time.perf_counter()
            # A judge keeps all metrics of what it has seen, so each batch has its own.
            judge = Judge(request, prices, inputs, jobs=jobs)
            trials = judge.trials([(candidates[place], rate) for place in places])
            seconds = (time.perf_counter() - began) / len(places)
            for place, trial in zip(places, trials, strict=True):
                journal.append(row_of(place, trial, judge, seconds))
            if progress is not None:
                progress(len(journal.rows), len(candidates))
        return journal.rows


def possible(judge: Judge, rate: float) -> Callable[[Candidate], bool]:
    """Whether the planner's bounds leave a candidate."""
    survivors, _ = Pruner(judge, rate).survey()
    least = {survivor.family: survivor.least for survivor in survivors}

    def check(candidate: Candidate) -> bool:
        lows = least.get(candidate.family)
        return lows is not None and all(
            count >= low for count, low in zip(candidate.engines, lows, strict=True)
        )

    return check


def words(candidate: Candidate | None) -> str:
    """How a winner is printed."""
    return "none" if candidate is None else f"{candidate.count_words}, {candidate.family.words}"


@contextlib.contextmanager
def folder_of(output: Path | None) -> Iterator[Path]:
    """The folder of the verdicts; without one they go when the program ends."""
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Compare a plan with brute force."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max-xpus", type=int, default=DEFAULT_MAX_XPUS)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--jobs", type=int, help="threads (default: all cores)")
    parser.add_argument("--output", type=Path, help="folder that keeps the verdicts")
    arguments = parser.parse_args()
    request = request_of(arguments.rate, arguments.max_xpus)
    started = time.perf_counter()
    judge = Judge(request, prices_of(XPUS, {}), SharedInputs(), jobs=arguments.jobs)
    found = cheapest(judge).best
    planned = None if found is None else found.candidate
    print(
        f"plan:        {judge.simulations:,} simulations, {time.perf_counter() - started:,.0f} s: "
        f"{words(planned)}",
        flush=True,
    )
    candidates = everything(request, SharedInputs())
    try:
        with (
            folder_of(arguments.output) as folder,
            configurations_bar(len(candidates)) as progress,
        ):
            rows = verdicts(request, candidates, folder, arguments.jobs, progress)
    except KeyboardInterrupt:
        print("interrupted; with --output the same command goes on", file=sys.stderr)
        return 130
    return compare(planned, candidates, rows, possible(judge, arguments.rate))


def compare(
    planned: Candidate | None,
    candidates: Sequence[Candidate],
    rows: dict[int, Row],
    is_possible: Callable[[Candidate], bool],
) -> int:
    """Print brute force's winner and what it shows of the plan; 1 where they differ."""
    meeting = [row for row in rows.values() if row.metrics.get("rank") is not None]
    best = min(meeting, key=lambda row: (row.metrics["rank"], row.index), default=None)
    winner = None if best is None else candidates[best.index]
    simulated = [row for row in rows.values() if row.status == "ok"]
    ruled_out = {place for place, each in enumerate(candidates) if not is_possible(each)}
    wrong = [row for row in meeting if row.index in ruled_out]

    def total(name: str) -> Any:
        return sum(row.metrics[name] for row in rows.values())

    print(
        f"brute force: {total('simulations'):,} simulations, {total('seconds'):,.0f} s: "
        f"{words(winner)}\n"
        f"{len(candidates):,} candidates: {len(candidates) - len(simulated):,} do not fit, "
        f"{len(simulated) - len(meeting):,} miss the objectives, {len(meeting):,} meet them\n"
        f"{len(ruled_out):,} ruled out by bounds, of which {len(wrong):,} meet them"
    )
    same = planned == winner and not wrong
    print("the same winner" if planned == winner else "NOT the same winner")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
