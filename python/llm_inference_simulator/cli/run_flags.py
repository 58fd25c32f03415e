"""The flags of ``run``. A flag's destination is the place of its value in the configuration.

Nothing here imports the configuration: ``--help`` stays fast. A test holds the defaults named in
the texts equal to the configuration's.
"""

from __future__ import annotations

from llm_inference_simulator.cli.arguments import (
    Parser,
    percentiles,
    real,
    token_count,
    whole_number,
)
from llm_inference_simulator.cli.cluster_flags import DISAGGREGATION, FLEET, WHAT_RUNS
from llm_inference_simulator.cli.flags import Flag, Group, Switch
from llm_inference_simulator.cli.workload_flags import LENGTHS, LOAD, SESSIONS

DESCRIPTION = """\
Simulate a cluster of LLM serving engines with vLLM V1's scheduling rules.

commands (without one: run)
  run        one simulation
  sweep      many configurations, one table
  plan       the cheapest cluster that meets objectives, or the highest rate
  models     list the models of the catalogue, or show one
  xpus       list the accelerators of the catalogue, or show one
  calibrate  make a calibration file from measurements
  validate   predict measured runs and print how far off that is
  report     make a page of saved results

example
  llm-inference-simulator --model llama-7b --xpu gb10 --arrival-rate 5"""

EPILOG = """\
Token counts take vLLM's suffixes: 32K = 32,768, 25.6k = 25,600.
Flags override --config.

exit codes
  0 done, 1 internal error, 2 bad input, 3 --fail-on holds, 130 interrupted"""


def _batching_strategy(text: str) -> str:
    return "static" if text == "greedy" else text


ENGINE = Group(
    "engine",
    "engine",
    (
        Flag(
            "--max-num-seqs",
            token_count,
            "N",
            "most requests that run together in an engine (default: 256)",
        ),
        Flag(
            "--max-num-batched-tokens",
            token_count,
            "TOKENS",
            "most tokens in a step (default: 8192)",
        ),
        Flag(
            "--max-model-len",
            token_count,
            "TOKENS",
            "longest prompt + output (default: the model's context, if it fits)",
        ),
        Flag(
            "--gpu-memory-utilization",
            real,
            "SHARE",
            "share of accelerator memory that the engine may use (default: 0.9)",
        ),
        Flag("--block-size", whole_number, "TOKENS", "tokens in a KV block (default: 16)"),
        Flag(
            "--num-gpu-blocks-override",
            token_count,
            "BLOCKS",
            "KV blocks of an engine (default: what memory holds)",
        ),
        Switch(
            "--enable-prefix-caching",
            "find blocks of earlier prompts (default: on)",
            negatable=True,
        ),
        Switch(
            "--enable-chunked-prefill",
            "split long prompts over steps (default: on)",
            negatable=True,
        ),
        Flag(
            "--long-prefill-token-threshold",
            token_count,
            "TOKENS",
            "most tokens of one request in a step; 0: no limit (default: 0)",
        ),
        Switch(
            "--long-prefill-token-threshold-adaptive",
            "raise that to max-num-batched-tokens / requests (default: off)",
            negatable=True,
        ),
        Flag("--scheduling-policy", str, "NAME", "fcfs or priority, lower first (default: fcfs)"),
        Switch(
            "--scheduler-reserve-full-isl",
            "admit only what fits with its whole prompt (default: on)",
            negatable=True,
        ),
        Flag(
            "--watermark",
            real,
            "SHARE",
            "share of KV blocks that admission leaves free (default: 0)",
        ),
        Switch(
            "--async-scheduling",
            "decide a step while the one before runs (default: on)",
            negatable=True,
        ),
        Switch(
            "--enable-expert-parallel",
            "spread whole experts over the accelerators (default: off, sliced)",
            negatable=True,
        ),
        Flag(
            "--generation-config",
            str,
            "NAME",
            "sampling defaults of requests: auto, the model's, or vllm, neutral (default: auto)",
        ),
        Flag(
            "--scheduling-overhead-ms",
            real,
            "MS",
            "host time before a step, hidden by async scheduling (default: 0)",
        ),
        Flag(
            "--batching-strategy",
            _batching_strategy,
            "NAME",
            "continuous, static (alias greedy) or windowed (default: continuous)",
        ),
        Flag(
            "--max-batch-size",
            token_count,
            "N",
            "further bound on requests that run together (default: none)",
        ),
        Flag(
            "--batch-window-ms",
            real,
            "MS",
            "windowed batching: longest wait for a full batch (default: 100)",
        ),
    ),
)
FRONT_END = Group(
    "front end",
    "front_end",
    (
        Flag(
            "--request-latency-ms",
            real,
            "MS",
            "from client to engine: HTTP, tokenising (default: the calibration's, else 0)",
        ),
        Flag(
            "--response-latency-ms",
            real,
            "MS",
            "from the end of a step to the client (default: the calibration's, else 0)",
        ),
    ),
)

PERFORMANCE = Group(
    "performance",
    "performance",
    (
        Flag(
            "--performance-model",
            str,
            "NAME",
            "roofline, vllm_roofline or op_table (default: what the calibration data is for; "
            "without it op_table where kernel tables of the accelerator come along, else roofline)",
        ),
        Flag(
            "--calibration-data",
            str,
            "FILE",
            "calibration file or the name of a shipped one, as h100-sxm (default: the "
            "accelerator's shipped one, if there is one)",
        ),
        Flag(
            "--all-reduce",
            str,
            "NAME",
            "ring, tree or auto, the faster for each payload (default: auto); measured "
            "all-reduces stand for themselves",
        ),
        Flag(
            "--expert-distribution",
            str,
            "NAME",
            "how tokens spread over experts in kernel tables: balanced, power_law_1.01 or "
            "power_law_1.2 (default: power_law_1.2)",
        ),
        Flag(
            "--expert-load-imbalance",
            real,
            "FACTOR",
            "tokens of the busiest accelerator's experts over the mean (default: 1)",
        ),
    ),
)
PRICING = Group(
    "prices",
    "pricing",
    (
        Flag(
            "--price-tier",
            str,
            "NAME",
            "price of the accelerator's entry: on_demand, reserved, spot, rental, neocloud_owned, "
            "hyperscaler_owned or amortised (default: the first of these that it has)",
        ),
        Flag(
            "--price-per-hour",
            real,
            "USD",
            "US dollars per accelerator and hour (default: the entry's)",
            field="price_per_hour_usd",
        ),
    ),
)

_RESULTS = Group(
    "results",
    "command",
    (
        Flag("--output", str, "FILE.json", "result, with the keys of vllm bench serve"),
        Switch("--save-detailed", "with per-request arrays in --output"),
        Switch("--save-digest", "with what a page's charts need in --output; --report adds it too"),
        Flag("--report", str, "FILE.html", "the run as one page for a browser, without network"),
        Flag(
            "--timeline",
            str,
            "FILE",
            "trace for Perfetto and chrome://tracing: .json or .json.gz",
        ),
        Flag(
            "--timeline-window",
            real,
            "SECONDS",
            "first and last second of the timeline (default: the whole run)",
            nargs=2,
        ),
        Flag(
            "--timeline-requests",
            str,
            "ROWS",
            "its requests: 3,10-20 by number, or slowest:50 (default: all)",
        ),
        Flag("--requests-output", str, "FILE", "one row per request: .parquet or .csv"),
        Flag("--steps-output", str, "FILE", "one row per engine step: .parquet or .csv"),
        Flag(
            "--decisions-output",
            str,
            "FILE.jsonl",
            "every scheduling decision; slow; several engines: FILE.engine0.jsonl, ...",
        ),
        Flag(
            "--metric-percentiles",
            percentiles,
            "P,...",
            "percentiles of latencies (default: 50,90,99)",
            section="measurement",
        ),
        Flag(
            "--goodput",
            str,
            "NAME:MS",
            "objectives in ms: ttft:500 tpot:50 e2el:9000 (default: none)",
            section="measurement",
            nargs="+",
        ),
        Flag(
            "--fail-on",
            str,
            "CONDITION",
            "exit with code 3 if it holds: 'p99_ttft_ms>500'; repeatable; > >= < <=",
            action="append",
        ),
        Switch(
            "--streaming",
            "bounded memory for runs of any length: percentiles from histograms, no arrays "
            "(default: off)",
            negatable=True,
            section="measurement",
        ),
        Switch("--quiet", "print nothing but errors and warnings"),
        Switch("--no-progress", "no progress bar (there is none outside a terminal)"),
    ),
)

_VLLM = Group(
    "vLLM's words (docs/guides/from_vllm.md); other flags override them",
    "command",
    (
        Flag("--from-vllm", str, "'LINE'", "a command line of vllm serve"),
        Flag("--from-vllm-bench", str, "'LINE'", "a command line of vllm bench serve"),
    ),
)

_GENERAL = Group(
    "general",
    "command",
    (
        Flag(
            "--threads",
            whole_number,
            "N",
            "most threads for engines behind a router that does not look at them; results do not "
            "depend on it (default: one a processor)",
        ),
        Flag("--seed", whole_number, "N", "seed of everything random (default: 0)", section=""),
        Switch("--traceback", "show where an internal error happened"),
        Switch("--version", "print the version and exit"),
    ),
)

GROUPS = (
    WHAT_RUNS,
    _VLLM,
    DISAGGREGATION,
    ENGINE,
    FLEET,
    FRONT_END,
    PERFORMANCE,
    LOAD,
    SESSIONS,
    LENGTHS,
    PRICING,
    _RESULTS,
    _GENERAL,
)


def build_run_parser(prog: str) -> Parser:
    """Return the parser of ``run``, which is also the one of the bare program."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [run] --model NAME --xpu NAME [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        add_help=False,
    )
    for group in GROUPS:
        titled = parser.add_argument_group(group.title)
        for flag in group.flags:
            flag.add_to(titled, group.section)
    titled.add_argument("-h", "--help", action="help", help="print this help and exit")
    return parser
