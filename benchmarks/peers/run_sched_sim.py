"""sched-sim (Python) on the common workload; runs in its own environment.

Its own roofline for an H100, with an 8B model so that the KV cache does not preempt; first come,
first served, which is its simplest policy; no Gantt chart, no export. The loop time is that of
``Simulator.run``.
"""

from __future__ import annotations

import json
import random
import sys
import time

from sched_sim.core.event_engine import Simulator
from sched_sim.core.request import Request
from sched_sim.hardware.presets import get_hardware_profile
from sched_sim.schedulers.factory import create_scheduler

LLAMA_8B = {
    "model_name": "Llama-3.1-8B",
    "parameter_count_billions": 8.03,
    "num_layers": 32,
    "hidden_size": 4096,
    "num_heads": 32,
    "num_kv_heads": 8,
}


def main(requests: int, prompt: int, output: int, rate_per_s: float) -> None:
    """Run and print what was measured as JSON."""
    generator = random.Random(0)
    now = 0.0
    load = []
    for number in range(requests):
        now += generator.expovariate(rate_per_s)
        load.append(
            Request(
                request_id=str(number), arrived_at=now, prompt_tokens=prompt, output_tokens=output
            )
        )
    hardware = get_hardware_profile("h100").model_copy(update=LLAMA_8B)
    simulator = Simulator(hardware, create_scheduler("fcfs", hardware, max_batch_size=256))
    simulator.submit_workload(load)
    started = time.perf_counter()
    simulator.run()
    elapsed = time.perf_counter() - started
    latencies = [r.e2e_latency for r in load if r.e2e_latency is not None]
    measured = {
        "loop_s": elapsed,
        "completed": len(latencies),
        "mean_latency_s": sum(latencies) / len(latencies),
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
