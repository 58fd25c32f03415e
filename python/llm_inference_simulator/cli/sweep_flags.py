"""The flags of ``sweep``."""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import Parser, at_least
from llm_inference_simulator.cli.flags import Flag, Group, Switch

DESCRIPTION = """\
Run many configurations: one row each, in a table and in a folder.

The file has a base configuration and the values that change, by dotted path:

  base: {model: llama-3.1-8b, xpu: h100-sxm, workload: {num_prompts: 2000}}
  grid: {workload.request_rate: [4, 8, 16], engine.max_num_seqs: [64, 256]}
  zip: {cluster.tensor_parallel_size: [1, 2], cluster.data_parallel_size: [4, 2]}
  list: [{xpu: h100-sxm}, {xpu: l40s, engine.kv_cache_dtype: fp8}]

Every combination of the three runs, with the same requests wherever the load is
the same. The same command goes on with a sweep that was stopped or killed."""

_FLAGS = Group(
    "results",
    "command",
    (
        Flag("--output", str, "DIR", "folder of the journal and results.parquet (or .csv)"),
        Flag(
            "--sort",
            str,
            "COLUMN",
            "of the table; -COLUMN: largest first (default: -slo_attainment with objectives, else "
            "-output_throughput)",
        ),
        Flag("--rows", at_least(1), "N", "most rows of the table (default: 20)"),
        Switch("--quiet", "print nothing but errors"),
        Switch("--no-progress", "no progress bar (there is none outside a terminal)"),
        Switch("--traceback", "show where an internal error happened"),
    ),
)
_WHERE = Group(
    "where it runs",
    "command",
    (
        Flag("--jobs", at_least(1), "N", "threads, or CPUs of a local Ray (default: all cores)"),
        Flag("--executor", str, "NAME", "local: threads; ray: a Ray cluster (default: local)"),
        Flag(
            "--ray-address",
            str,
            "ADDRESS",
            "of a running cluster, as in ray://host:10001 or auto (default: one of this machine)",
        ),
    ),
)


def build_sweep_parser(prog: str) -> Parser:
    """Return the parser of ``sweep``."""
    parser = Parser(
        prog=f"{prog} sweep",
        usage="%(prog)s SPEC.yaml --output DIR [flags]",
        description=DESCRIPTION,
        add_help=False,
    )
    files = parser.add_argument_group("what runs")
    files.add_argument("command.spec", nargs="?", metavar="SPEC", help="sweep file, YAML or JSON")
    for group in (_WHERE, _FLAGS):
        titled = parser.add_argument_group(group.title)
        for flag in group.flags:
            flag.add_to(titled, group.section)
    titled.add_argument("-h", "--help", action="help", help="print this help and exit")
    return parser
