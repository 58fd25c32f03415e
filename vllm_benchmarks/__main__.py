"""``python -m vllm_benchmarks COMMAND``: the commands of this package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "calibrate": ("vllm_benchmarks.calibrate", "measure an engine and write a calibration file"),
    "breakdown": ("vllm_benchmarks.breakdown", "time the operations of a model with PyTorch"),
    "record": ("vllm_benchmarks.record_decisions", "record what vLLM's scheduler decides"),
    "replay": ("vllm_benchmarks.replay_decisions", "compare recorded decisions with ours"),
}


def main(argv: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: python -m vllm_benchmarks COMMAND [--help]\n\ncommands")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10} {text}")
        return 0
    if argv[0] not in COMMANDS:
        from llm_inference_simulator.errors import unknown_name

        told = unknown_name("command", argv[0], COMMANDS, remedy=f"(known: {', '.join(COMMANDS)})")
        print(f"error: {told}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[argv[0]][0])
    code: int = module.main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
