"""The flags of ``plan``: the question, the space, and the flags of ``run`` for load and engine."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from llm_inference_simulator.cli.arguments import (
    Parser,
    at_least,
    real,
    token_count,
    whole_number,
)
from llm_inference_simulator.cli.flags import Flag, Group, Switch
from llm_inference_simulator.cli.run_flags import ENGINE, FRONT_END, PERFORMANCE, PRICING
from llm_inference_simulator.cli.workload_flags import LENGTHS, LOAD, SESSIONS

DESCRIPTION = """\
Find the cheapest cluster that meets objectives at a rate, or the highest rate
that each cluster holds, by simulation.

examples
  llm-inference-simulator plan --model llama-3.1-70b --xpus h100,h200,mi300x \\
    --request-rate 20 --lengths-from azure-conv-2023 --goodput ttft:1000 tpot:50 \\
    --output plan.json
  llm-inference-simulator plan --model llama-3.1-8b --xpus l40s --max-xpus 4 \\
    --goodput ttft:500 tpot:50"""

EPILOG = """\
exit codes
  0 done, 1 internal error, 2 bad input, 3 nothing meets the objectives, 130 interrupted"""


def names(text: str) -> tuple[str, ...]:
    """Read ``h100,l40s``."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing: give a list as in h100,l40s")
    return found


def list_of(kind: Callable[[str], int]) -> Callable[[str], tuple[int, ...]]:
    """Read ``1,2,4``."""

    def parse(text: str) -> tuple[int, ...]:
        return tuple(kind(part) for part in text.split(","))

    return parse


_QUESTION = Group(
    "question",
    "plan",
    (
        Flag("--model", str, "NAME", "catalogue name, config.json or its folder", section=""),
        Flag("--xpus", names, "NAME,...", "accelerators to choose from: names or YAML files"),
        Flag(
            "--goodput",
            str,
            "NAME:MS",
            "objectives in ms: ttft:1000 tpot:50 e2el:9000",
            section="measurement",
            nargs="+",
        ),
        Flag(
            "--attainment",
            real,
            "SHARE",
            "of the requests that must meet all objectives (default: 0.99)",
        ),
        Flag(
            "--objective",
            str,
            "NAME",
            "cost, xpus or energy: dollars, accelerators or joules (default: cost)",
        ),
        Flag(
            "--tolerance",
            real,
            "SHARE",
            "of the highest rate, without --request-rate (default: 0.02)",
        ),
    ),
)
_SPACE = Group(
    "space",
    "plan",
    (
        Flag(
            "--max-xpus",
            at_least(1),
            "N",
            "most accelerators (default: 64; without --request-rate 8)",
        ),
        Flag("--modes", names, "NAME,...", "aggregated, disaggregated (default: both)"),
        Flag(
            "--tensor-parallel-size -tp --tp",
            list_of(at_least(1)),
            "N,...",
            "sizes to search (default: 1,2,4,8)",
            field="tensor_parallel_sizes",
        ),
        Flag(
            "--pipeline-parallel-size -pp --pp",
            list_of(at_least(1)),
            "N,...",
            "sizes to search, of aggregated engines (default: 1,2)",
            field="pipeline_parallel_sizes",
        ),
        Flag(
            "--search-max-num-seqs",
            list_of(token_count),
            "N,...",
            "values to search (default: --max-num-seqs)",
            section="settings",
            field="max_num_seqs",
        ),
        Flag(
            "--search-max-num-batched-tokens",
            list_of(token_count),
            "N,...",
            "values to search (default: 2048,8192, or --max-num-batched-tokens)",
            section="settings",
            field="max_num_batched_tokens",
        ),
        Flag(
            "--search",
            str,
            "NAME",
            "exhaustive, or optuna: simulate --trials candidates (default: exhaustive)",
        ),
        Flag("--trials", at_least(1), "N", "candidates that optuna chooses (default: 200)"),
        Flag(
            "--router",
            str,
            "POLICY",
            "as of run (default: least_outstanding)",
            section="cluster",
        ),
        Flag(
            "--transfer-bandwidth",
            real,
            "GB_PER_S",
            "of each disaggregated engine's link (default: 50, a 400 Gbit/s card)",
            field="bandwidth_gb_s",
            section="transfer",
        ),
        Flag(
            "--transfer-latency",
            real,
            "MS",
            "from the reservation of blocks until bytes flow (default: 0)",
            field="latency_ms",
            section="transfer",
        ),
    ),
)
_RESULTS = Group(
    "results",
    "command",
    (
        Flag("--output", str, "FILE.json", "best, candidates, Pareto fronts, commands"),
        Flag("--report", str, "FILE.html", "a page of the plan for a browser"),
        Flag("--rows", at_least(1), "N", "most rows of the table (default: 12)"),
        Flag("--jobs", at_least(1), "N", "threads (default: all cores)"),
        Flag("--seed", whole_number, "N", "of the load and --search (default: 0)", section=""),
        Switch("--quiet", "print nothing but errors and warnings"),
        Switch("--no-progress", "no progress bar (there is none outside a terminal)"),
        Switch("--traceback", "show where an internal error happened"),
    ),
)
_NO_PLACE = ("--rate-stages", "--rate-schedule", "--max-concurrency")
"""Flags of the load that say no rate of an open load."""

_LOAD = Group(
    LOAD.title,
    LOAD.section,
    tuple(flag for flag in LOAD.flags if getattr(flag, "names", "") not in _NO_PLACE),
)


def build_plan_parser(prog: str) -> Parser:
    """Return the parser of ``plan``."""
    parser = Parser(
        prog=f"{prog} plan",
        usage="%(prog)s --model NAME --xpus NAME,... --goodput NAME:MS ... [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        add_help=False,
    )
    for group in (
        _QUESTION,
        _SPACE,
        _LOAD,
        SESSIONS,
        LENGTHS,
        ENGINE,
        FRONT_END,
        PERFORMANCE,
        PRICING,
        _RESULTS,
    ):
        titled = parser.add_argument_group(group.title)
        for flag in group.flags:
            flag.add_to(titled, group.section)
    titled.add_argument("-h", "--help", action="help", help="print this help and exit")
    return parser
