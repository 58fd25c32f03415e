"""The flags of ``run``. A flag's destination is the place of its value in the configuration.

Nothing here imports the configuration: ``--help`` stays fast. A test holds the defaults named in
the texts equal to the configuration's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from llm_inference_simulator.cli.arguments import (
    Parser,
    StoreOnce,
    percentiles,
    real,
    token_count,
    whole_number,
)

DESCRIPTION = """\
Simulate a cluster of LLM serving engines with vLLM V1's scheduling rules.

commands (without one: run)
  run     one simulation
  models  list the models of the catalogue, or show one
  xpus    list the accelerators of the catalogue, or show one

example
  llm-inference-simulator --model llama-7b --xpu gb10 --arrival-rate 5"""

EPILOG = """\
Token counts take vLLM's suffixes: 32K = 32,768, 25.6k = 25,600.
Flags override --config.

exit codes
  0 done, 1 internal error, 2 bad input, 3 --fail-on holds, 130 interrupted"""


class Group:
    """One titled group of flags; values that are not given leave no trace."""

    def __init__(self, parser: Parser, title: str, section: str | None = None) -> None:
        self._group = parser.add_argument_group(title)
        self._section = section

    def add(
        self,
        *names: str,
        kind: Callable[[str], Any] = str,
        value: str,
        text: str,
        field: str | None = None,
        section: str | None = None,
        **options: Any,
    ) -> None:
        """Add a flag with a value for ``section.field`` (by default: of the group, of its name)."""
        field = field or names[0].removeprefix("--").replace("-", "_")
        place = self._section if section is None else section
        options.setdefault("action", StoreOnce)
        self._group.add_argument(
            *names,
            dest=f"{place}.{field}" if place else field,
            type=kind,
            metavar=value,
            help=text.replace("%", "%%"),
            default=argparse.SUPPRESS,
            **options,
        )

    def add_switch(self, name: str, text: str, *, negatable: bool = False) -> None:
        """Add a flag without a value; ``negatable`` ones also come as ``--no-…``."""
        field = name.removeprefix("--").replace("-", "_")
        action: Any = argparse.BooleanOptionalAction if negatable else "store_true"
        self._group.add_argument(
            name,
            dest=f"{self._section}.{field}" if self._section else field,
            action=action,
            help=text,
            default=argparse.SUPPRESS,
        )

    def add_help(self) -> None:
        """Add ``-h`` and ``--help``, which print the parser's help and exit."""
        self._group.add_argument("-h", "--help", action="help", help="print this help and exit")


def build_run_parser(prog: str) -> Parser:
    """Return the parser of ``run``, which is also the one of the bare program."""
    parser = Parser(
        prog=prog,
        usage="%(prog)s [run] --model NAME --xpu NAME [flags]",
        description=DESCRIPTION,
        epilog=EPILOG,
        add_help=False,
    )
    _add_what_runs(parser)
    _add_engine(parser)
    _add_front_end(parser)
    _add_performance(parser)
    _add_load(parser)
    _add_lengths(parser)
    _add_results(parser)
    _add_general(parser)
    return parser


def _add_what_runs(parser: Parser) -> None:
    group = Group(parser, "what runs", "cluster")
    group.add(
        "--config",
        value="FILE",
        text="the whole configuration, YAML or JSON",
        field="config_file",
        section="command",
    )
    group.add("--model", value="NAME", text="catalogue name, config.json or its folder", section="")
    group.add("--xpu", value="NAME", text="accelerator: catalogue name or YAML file", section="")
    group.add(
        "--n-xpus-per-node",
        kind=whole_number,
        value="N",
        text="accelerators in a node (default: what the engines need)",
    )
    group.add("--n-nodes", kind=whole_number, value="N", text="nodes (default: 1)")
    group.add(
        "--tensor-parallel-size",
        "-tp",
        "--tp",
        kind=whole_number,
        value="N",
        text="accelerators per engine (default: 1)",
    )
    group.add(
        "--data-parallel-size",
        "-dp",
        "--dp",
        kind=whole_number,
        value="N",
        text="engines (default: as many as the accelerators allow)",
    )
    group.add(
        "--router",
        value="POLICY",
        text="round_robin or least_outstanding (default: round_robin)",
    )
    group.add(
        "--dtype",
        value="TYPE",
        text="auto, bfloat16 or float16 (default: auto, the model's own)",
        section="engine",
    )
    group.add(
        "--quantization",
        "-q",
        value="FORMAT",
        text="weights as fp8, int8 or int4 (default: the model's own)",
        section="engine",
    )
    group.add(
        "--kv-cache-dtype",
        value="TYPE",
        text="auto, bfloat16, float16 or fp8 (default: auto)",
        section="engine",
    )


def _add_engine(parser: Parser) -> None:
    group = Group(parser, "engine", "engine")
    group.add(
        "--max-num-seqs",
        kind=token_count,
        value="N",
        text="most requests that run together in an engine (default: 256)",
    )
    group.add(
        "--max-num-batched-tokens",
        kind=token_count,
        value="TOKENS",
        text="most tokens in a step (default: 8192)",
    )
    group.add(
        "--max-model-len",
        kind=token_count,
        value="TOKENS",
        text="longest prompt + output (default: the model's context, if it fits)",
    )
    group.add(
        "--gpu-memory-utilization",
        kind=real,
        value="SHARE",
        text="share of accelerator memory that the engine may use (default: 0.9)",
    )
    group.add(
        "--block-size",
        kind=whole_number,
        value="TOKENS",
        text="tokens in a KV block (default: 16)",
    )
    group.add(
        "--num-gpu-blocks-override",
        kind=token_count,
        value="BLOCKS",
        text="KV blocks of an engine (default: what memory holds)",
    )
    group.add_switch(
        "--enable-prefix-caching", "find blocks of earlier prompts (default: on)", negatable=True
    )
    group.add_switch(
        "--enable-chunked-prefill", "split long prompts over steps (default: on)", negatable=True
    )
    group.add(
        "--long-prefill-token-threshold",
        kind=token_count,
        value="TOKENS",
        text="most tokens of one request in a step; 0: no limit (default: 0)",
    )
    group.add_switch(
        "--long-prefill-token-threshold-adaptive",
        "raise that to max-num-batched-tokens / requests (default: off)",
        negatable=True,
    )
    group.add(
        "--scheduling-policy",
        value="NAME",
        text="fcfs or priority, lower first (default: fcfs)",
    )
    group.add_switch(
        "--scheduler-reserve-full-isl",
        "admit only what fits with its whole prompt (default: on)",
        negatable=True,
    )
    group.add(
        "--watermark",
        kind=real,
        value="SHARE",
        text="share of KV blocks that admission leaves free (default: 0)",
    )
    group.add_switch(
        "--async-scheduling",
        "decide a step while the one before runs (default: on)",
        negatable=True,
    )
    group.add(
        "--scheduling-overhead-ms",
        kind=real,
        value="MS",
        text="host time before a step, hidden by async scheduling (default: 0)",
    )
    group.add(
        "--batching-strategy",
        kind=_batching_strategy,
        value="NAME",
        text="continuous, static (alias greedy) or windowed (default: continuous)",
    )
    group.add(
        "--max-batch-size",
        kind=token_count,
        value="N",
        text="further bound on requests that run together (default: none)",
    )
    group.add(
        "--batch-window-ms",
        kind=real,
        value="MS",
        text="windowed batching: longest wait for a full batch (default: 100)",
    )


def _add_front_end(parser: Parser) -> None:
    group = Group(parser, "front end", "front_end")
    group.add(
        "--request-latency-ms",
        kind=real,
        value="MS",
        text="from client to engine: HTTP, tokenising (default: 0)",
    )
    group.add(
        "--response-latency-ms",
        kind=real,
        value="MS",
        text="from the end of a step to the client (default: 0)",
    )


def _batching_strategy(text: str) -> str:
    return "static" if text == "greedy" else text


def _add_performance(parser: Parser) -> None:
    group = Group(parser, "performance", "performance")
    group.add(
        "--performance-model",
        value="NAME",
        text="roofline or vllm_roofline (default: vllm_roofline with calibration data, else "
        "roofline)",
    )
    group.add("--calibration-data", value="FILE", text="calibration file (default: none)")
    group.add(
        "--all-reduce",
        value="NAME",
        text="ring, tree or auto, the faster for each payload (default: auto)",
    )


def _add_load(parser: Parser) -> None:
    group = Group(parser, "load: when requests arrive", "workload")
    group.add(
        "--arrival-rate",
        "--request-rate",
        kind=real,
        value="PER_S",
        text="requests per second, or inf (default: a trace's own times, else inf: all at once)",
        field="request_rate",
    )
    group.add(
        "--burstiness",
        kind=real,
        value="SHAPE",
        text="1: Poisson; below: burstier; inf: constant gaps (default: 1)",
    )
    group.add(
        "--num-prompts",
        kind=token_count,
        value="N",
        text="requests (default: 1000, or what --duration or the trace gives)",
    )
    group.add(
        "--duration",
        kind=real,
        value="S",
        text="seconds in which requests arrive (default: until --num-prompts have)",
    )
    group.add(
        "--max-concurrency",
        kind=token_count,
        value="N",
        text="closed loop: most requests unanswered at once (default: no limit)",
    )
    group.add(
        "--warm-up",
        kind=real,
        value="S",
        text="seconds at the start whose arrivals are not counted (default: 0)",
        section="measurement",
    )


def _add_lengths(parser: Parser) -> None:
    group = Group(parser, "load: how long they are (one source)", "workload")
    group.add(
        "--random-input-len",
        kind=token_count,
        value="TOKENS",
        text="prompt length (default: 1024)",
    )
    group.add(
        "--random-output-len",
        kind=token_count,
        value="TOKENS",
        text="output length (default: 128)",
    )
    group.add(
        "--random-range-ratio",
        kind=real,
        value="R",
        text="lengths uniform within a share R of these, 0 <= R < 1 (default: 0)",
    )
    group.add(
        "--random-prefix-len",
        kind=token_count,
        value="TOKENS",
        text="shared prefix before each prompt (default: 0)",
    )
    group.add(
        "--random-num-prefixes",
        kind=token_count,
        value="N",
        text="different prefixes, one of them before each prompt (default: 1)",
    )
    group.add(
        "--random-prompts-per-prefix",
        kind=token_count,
        value="N",
        text="different prompts per prefix, asked again and again (default: all new)",
    )
    for side, name in (("input", "prompt"), ("output", "output")):
        group.add(
            f"--avg-{side}-length",
            kind=real,
            value="TOKENS",
            text=f"mean of log-normal {name} lengths (default: not log-normal)",
        )
        group.add(
            f"--max-{side}-length",
            kind=token_count,
            value="TOKENS",
            text=f"longest {name} drawn (log-normal) or kept from --trace (default: no limit)",
        )
    group.add(
        "--trace",
        value="FILE",
        text="arrival times and lengths: a file or the name of a shipped trace",
    )
    group.add(
        "--trace-format",
        value="NAME",
        text="auto, azure, mooncake, burstgpt, sharegpt, servegen, vidur or vllm-bench "
        "(default: auto)",
    )
    group.add(
        "--trace-block-size",
        kind=token_count,
        value="TOKENS",
        text="tokens that a hash id of the trace stands for (default: 512)",
    )
    group.add(
        "--trace-speedup",
        kind=real,
        value="FACTOR",
        text="divide the trace's times by this (default: 1)",
    )
    group.add(
        "--lengths-from",
        value="FILE",
        text="trace whose lengths are drawn at random; times come from --arrival-rate",
    )


def _add_results(parser: Parser) -> None:
    group = Group(parser, "results", "command")
    group.add("--output", value="FILE.json", text="result, with the keys of vllm bench serve")
    group.add_switch("--save-detailed", "with per-request arrays in --output")
    group.add("--requests-output", value="FILE", text="one row per request: .parquet or .csv")
    group.add("--steps-output", value="FILE", text="one row per engine step: .parquet or .csv")
    group.add(
        "--decisions-output",
        value="FILE.jsonl",
        text="every scheduling decision; slow; several engines: FILE.engine0.jsonl, ...",
    )
    group.add(
        "--metric-percentiles",
        kind=percentiles,
        value="P,...",
        text="percentiles of latencies (default: 50,90,99)",
        section="measurement",
    )
    group.add(
        "--goodput",
        value="NAME:MS",
        text="objectives in ms: ttft:500 tpot:50 e2el:9000 (default: none)",
        section="measurement",
        nargs="+",
    )
    group.add(
        "--fail-on",
        value="CONDITION",
        text="exit with code 3 if it holds: 'p99_ttft_ms>500'; repeatable; > >= < <=",
        action="append",
    )
    group.add_switch("--quiet", "print nothing but errors and warnings")
    group.add_switch("--no-progress", "no progress bar (there is none outside a terminal)")


def _add_general(parser: Parser) -> None:
    group = Group(parser, "general", "command")
    group.add(
        "--seed",
        kind=whole_number,
        value="N",
        text="seed of everything random (default: 0)",
        section="",
    )
    group.add_switch("--traceback", "show where an internal error happened")
    group.add_switch("--version", "print the version and exit")
    group.add_help()
