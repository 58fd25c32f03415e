"""The naive Python loop on the common workload, with nothing but the standard library."""

from __future__ import annotations

import json
import random
import sys
import time
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.naive import run_naive


def main(requests: int, prompt: int, output: int, rate_per_s: float) -> None:
    """Run and print what was measured as JSON."""
    generator = random.Random(0)
    gaps = (generator.expovariate(rate_per_s) for _ in range(requests))
    arrivals = [int(at * 1e9) for at in accumulate(gaps)]
    costs = (8_000_000, 20_000, 100_000)
    started = time.perf_counter()
    _, finished = run_naive(arrivals, prompt, output, max_num_seqs=256, budget=8192, costs_ns=costs)
    elapsed = time.perf_counter() - started
    measured = {
        "loop_s": elapsed,
        "completed": requests,
        "mean_latency_s": (finished - sum(arrivals)) / requests / 1e9,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
