"""A small queue model in SimPy on the common workload; runs in an environment of its own.

What one writes with a general-purpose kernel: one process for the arrivals and one for the engine,
one timeout a step, no KV cache and no limits. Its step times are those of the core's fixed model.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Generator

import simpy

STEP_S, PREFILL_TOKEN_S, DECODE_SEQ_S = 8e-3, 20e-6, 100e-6


class Engine:
    """Continuous batching: everybody who waits joins the next step."""

    def __init__(self, env: simpy.Environment, prompt: int, output: int) -> None:
        self.env, self.prompt, self.output = env, prompt, output
        self.waiting: list[float] = []
        self.arrival = env.event()
        self.latencies: list[float] = []

    def arrivals(self, requests: int, rate_per_s: float) -> Generator[simpy.Event, None, None]:
        """Poisson arrivals."""
        generator = random.Random(0)
        for _ in range(requests):
            yield self.env.timeout(generator.expovariate(rate_per_s))
            self.waiting.append(self.env.now)
            if not self.arrival.triggered:
                self.arrival.succeed()

    def steps(self) -> Generator[simpy.Event, None, None]:
        """Step after step, as long as anybody runs or waits."""
        running: list[list[float]] = []  # [arrival, tokens left]
        while True:
            if not running and not self.waiting:
                self.arrival = self.env.event()
                yield self.arrival
            joining = [[arrival, self.output] for arrival in self.waiting]
            self.waiting.clear()
            prefill = self.prompt * len(joining)
            yield self.env.timeout(STEP_S + PREFILL_TOKEN_S * prefill + DECODE_SEQ_S * len(running))
            running += joining
            for request in running:
                request[1] -= 1
                if request[1] == 0:
                    self.latencies.append(self.env.now - request[0])
            running = [request for request in running if request[1] > 0]


def main(requests: int, prompt: int, output: int, rate_per_s: float) -> None:
    """Run and print what was measured as JSON."""
    env = simpy.Environment()
    engine = Engine(env, prompt, output)
    env.process(engine.arrivals(requests, rate_per_s))
    env.process(engine.steps())
    started = time.perf_counter()
    env.run()
    elapsed = time.perf_counter() - started
    measured = {
        "loop_s": elapsed,
        "completed": len(engine.latencies),
        "mean_latency_s": sum(engine.latencies) / len(engine.latencies),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
