"""The flags of run_calibration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_inference_simulator.cli.arguments import Parser, at_least, real, some_tokens

DESCRIPTION = """\
Measure a real engine and write a calibration file for the simulator.

runners
  offline  vLLM in this process: exact step times (needs vLLM)
  server   any OpenAI-compatible endpoint, seen from its clients (--base-url)

example
  python vllm_benchmarks/scripts/run_calibration.py --model llama-7b --xpu gb10 \\
    --sparse --output calibration.json"""


def build_parser() -> Parser:
    """The command's flags; engine settings have vLLM's names."""
    parser = Parser(prog="run_calibration", description=DESCRIPTION)
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="catalogue name, config.json or its folder")
    add("--xpu", required=True, metavar="NAME", help="accelerator; cpu for the processor")
    add("--output", required=True, type=Path, metavar="FILE", help="calibration file to write")
    add("--runner", choices=("offline", "server"), default="offline", help="default: offline")
    text = "folder for raw and processed measurements (default: OUTPUT with _data for .json)"
    add("--data-dir", type=Path, metavar="DIR", help=text)
    add("--dry-run", action="store_true", help="print the plan and the expected time, and stop")
    _add_plan(parser.add_argument_group("plan"))
    _add_engine(parser.add_argument_group("engine, in vLLM's names"))
    _add_server(parser.add_argument_group("server"))
    return parser


def _add_plan(group: Any) -> None:
    add = group.add_argument
    add("--sparse", action="store_true", help="a few well-chosen points instead of the full grid")
    text = "points of a sparse plan besides the corners (default: 24)"
    add("--sparse-points", type=at_least(8), metavar="N", help=text)
    text = "longest context to measure (default: half of --max-model-len)"
    add("--max-context", type=some_tokens, metavar="N", help=text)
    add("--sampling", choices=("sobol", "latin_hypercube"), help="default: sobol")
    add("--repeats", type=at_least(1), metavar="N", help="default: 3")
    add("--decode-steps", type=at_least(2), metavar="N", help="tokens a request decodes (12)")
    add("--seed", type=at_least(0), metavar="N", help="default: 0")
    text = "resamplings behind the confidence intervals (default: 200)"
    add("--bootstrap-samples", type=at_least(20), default=200, metavar="N", help=text)


def _add_engine(group: Any) -> None:
    add = group.add_argument
    add(
        "--tensor-parallel-size", "-tp", type=at_least(1), default=1, metavar="N", help="default: 1"
    )
    add("--dtype", choices=("auto", "bfloat16", "float16"), default="auto", help="default: auto")
    add("--quantization", "-q", choices=("fp8", "int8", "int4"), help="weights")
    add("--kv-cache-dtype", choices=("auto", "bfloat16", "float16", "fp8"), default="auto",
        help="default: auto")  # fmt: skip
    for name, text in (
        ("max-num-seqs", "most requests that run (default: 256)"),
        ("max-num-batched-tokens", "most tokens of a step (default: 8192)"),
        ("max-model-len", "most tokens of a request (default: the model's, at most 32768)"),
        ("block-size", "tokens of a KV-cache block"),
    ):
        add(f"--{name}", type=some_tokens, metavar="N", help=text)
    add("--async-scheduling", action=argparse.BooleanOptionalAction, help="default: vLLM's")
    add("--enforce-eager", action="store_true", help="no CUDA graphs")
    text = "the model as vLLM finds it, where that is not --model"
    add("--vllm-model", metavar="NAME", help=text)


def _add_server(group: Any) -> None:
    add = group.add_argument
    add("--base-url", metavar="URL", help="as http://localhost:8000")
    add("--served-model-name", metavar="NAME", help="default: what the server offers")
    text = "environment variable that holds the API key (default: OPENAI_API_KEY)"
    add("--api-key-variable", default="OPENAI_API_KEY", metavar="NAME", help=text)
    add("--timeout", type=_seconds, default=600.0, metavar="S", help="of a request (default: 600)")
    text = "longest silence in an answer (default: 120)"
    add("--idle-timeout", type=_seconds, default=120.0, metavar="S", help=text)


def _seconds(text: str) -> float:
    value = real(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be seconds above 0")
    return value
