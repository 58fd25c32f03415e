"""The flags of the recorder."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_inference_simulator.cli.arguments import real, whole_number
from vllm_benchmarks.recording.installed_vllm import TESTED_VERSION
from vllm_benchmarks.recording.workload import LARGEST_LENGTH


def build_parser() -> argparse.ArgumentParser:
    """The command's flags; engine settings have vLLM's names."""
    parser = argparse.ArgumentParser(
        prog="python -m vllm_benchmarks.record_decisions",
        description="Record what the real vLLM V1 scheduler decides for a workload. "
        f"Needs vLLM (written for {TESTED_VERSION}).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("workload", metavar="WORKLOAD.jsonl", type=Path, help="requests, in Mooncake's format")
    add("--output", metavar="FILE", type=Path, required=True, help="trace; .gz compresses it")
    add(
        "--engine",
        choices=("scheduler", "offline"),
        default="scheduler",
        help="the scheduler alone, or a whole engine that runs a tiny model",
    )
    add("--model", metavar="FOLDER", type=Path, help="model for --engine offline (random weights)")
    add("--step-ms", type=_duration, default=20.0, metavar="MS", help="length of every step")
    add(
        "--trace-block-size",
        type=_whole(1),
        default=512,
        metavar="N",
        help="tokens that one hash id stands for",
    )
    _add_settings(parser.add_argument_group("engine settings, in vLLM's names"))
    return parser


def _add_settings(group: Any) -> None:
    defaults = {
        "max-num-seqs": (1, 256, "most requests that run"),
        "max-num-batched-tokens": (1, 2048, "most tokens of a step"),
        "max-model-len": (2, 8192, "most tokens of a request"),
        "block-size": (1, 16, "tokens of a KV-cache block"),
        "num-gpu-blocks": (2, 4096, "blocks of the KV cache, vLLM's null block included"),
        "long-prefill-token-threshold": (0, 0, "most prompt tokens a request gets in a step"),
    }
    for name, (least, default, text) in defaults.items():
        group.add_argument(f"--{name}", type=_whole(least), default=default, metavar="N", help=text)
    switches = {
        "long-prefill-token-threshold-adaptive": (False, "raise the threshold while few wait"),
        "enable-prefix-caching": (True, "reuse blocks of equal prefixes"),
        "scheduler-reserve-full-isl": (True, "admit a request only if its whole prompt fits"),
        "async-scheduling": (False, "schedule a step ahead (vLLM's default on GPUs)"),
    }
    for name, (on, text) in switches.items():
        group.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, default=on, help=text
        )
    group.add_argument(
        "--scheduling-policy", choices=("fcfs", "priority"), default="fcfs", help="order"
    )
    group.add_argument(
        "--watermark", type=_fraction, default=0.0, metavar="F", help="share of blocks kept free"
    )


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = whole_number(text)
        if not least <= value <= LARGEST_LENGTH:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return value

    return parse


def _fraction(text: str) -> float:
    value = real(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to below 1")
    return value


def _duration(text: str) -> float:
    value = real(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be milliseconds above 0")
    return value
