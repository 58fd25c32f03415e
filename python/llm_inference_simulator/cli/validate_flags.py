"""The flags of ``validate``: those of ``run`` that describe a server, and a few of its own."""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import Parser, whole_number
from llm_inference_simulator.cli.cluster_flags import WHAT_RUNS
from llm_inference_simulator.cli.flags import Flag, Group, Switch
from llm_inference_simulator.cli.run_flags import ENGINE, FRONT_END, PERFORMANCE

_SERVER = Group(
    WHAT_RUNS.title,
    WHAT_RUNS.section,
    tuple(flag for flag in WHAT_RUNS.flags if getattr(flag, "names", "") != "--config"),
)
_VALIDATION = Group(
    "validation",
    "command",
    (
        Flag("--output", str, "FILE.json", "all runs, errors and summaries"),
        Switch(
            "--leave-one-out",
            "predict each run with overheads fitted anew to all others (kernel tables)",
        ),
        Flag("--seed", whole_number, "N", "seed of the generated load (default: 0)", section=""),
        Switch("--no-progress", "no progress bar (there is none outside a terminal)"),
        Switch("--traceback", "show where an internal error happened"),
    ),
)

DESCRIPTION = """\
Predict measured runs and print how far off the predictions are.

A file holds a list of run records (server, load in stages, latencies), or what
vllm bench serve --save-result --save-detailed writes. A run record says which
server ran; flags replace what it says. A bench result doesn't: its engine is
the one that --calibration-data was measured on, and flags replace what differs."""


def build_validate_parser(prog: str) -> Parser:
    """Return the parser of ``validate``: files, and the flags of ``run`` that describe a server."""
    parser = Parser(
        prog=f"{prog} validate",
        usage="%(prog)s FILE ... [flags]",
        description=DESCRIPTION,
        add_help=False,
    )
    files = parser.add_argument_group("what was measured")
    files.add_argument("command.files", nargs="*", metavar="FILE", help="measured runs, JSON")
    for group in (_SERVER, ENGINE, FRONT_END, PERFORMANCE, _VALIDATION):
        titled = parser.add_argument_group(group.title)
        for flag in group.flags:
            flag.add_to(titled, group.section)
    titled.add_argument("-h", "--help", action="help", help="print this help and exit")
    return parser
