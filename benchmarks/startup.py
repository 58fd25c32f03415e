"""Seconds that the command line takes before and beside simulating: ``make bench`` prints them.

python -m benchmarks.startup
python -X importtime -m llm_inference_simulator --help     # what they are spent on
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

PROGRAM = ("-m", "llm_inference_simulator")
SMALL_RUN = (
    *("--model", "llama-3.1-8b", "--xpu", "h100-sxm", "--request-rate", "14"),
    *("--num-prompts", "100", "--random-input-len", "512", "--random-output-len", "128"),
)
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import numpy, pydantic": ("-c", "import numpy; from pydantic import BaseModel, Field"),
    "--help": (*PROGRAM, "--help"),
    "100 requests, --quiet": (*PROGRAM, *SMALL_RUN, "--quiet"),
    "100 requests, with the summary": (*PROGRAM, *SMALL_RUN),
    "100 requests, roofline, --quiet": (
        *(*PROGRAM, *SMALL_RUN, "--quiet"),
        *("--performance-model", "roofline"),
    ),
}
ROUNDS = 7


def environment() -> dict[str, str]:
    """This environment with byte code kept, as an installed package has it."""
    kept = dict(os.environ)
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


def seconds() -> dict[str, float]:
    """The fastest of a few runs of each command, in turn."""
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(ROUNDS):
        for name, words in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, *words],
                stdout=subprocess.DEVNULL,
                env=environment(),
                check=True,
            )
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def print_seconds() -> None:
    """Print what each takes, and what it takes beyond the interpreter's own start."""
    best = seconds()
    interpreter = best["python -c pass"]
    print(f"{'start-up':34}{'s':>7}{'beyond the interpreter':>25}")
    for name, took in best.items():
        print(f"{name:34}{took:7.3f}{took - interpreter:25.3f}")


if __name__ == "__main__":
    print_seconds()
