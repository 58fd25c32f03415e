"""What a second thread gains: ``python -m benchmarks.threads``.

One thread against two, turn by turn, the fastest of each. Three jobs: engines behind a router that
does not look at them (``--threads``), and many configurations (``simulate_many``),
long ones and short ones. Numbers a job, because other work on the machine takes the second
processor away:

- gain: wall time of one thread over that of two. Beside it stands what two plain threads gained
  that only compute hashes, in the same seconds: more than the machine gives nobody gets.
- CPU: processor time of two threads over that of one. Above 1 is what the threads cost; a gain is
  possible up to 2 divided by it.

The GIL is what the interpreter says; a free-threaded Python prints that it is off.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.bench import SETTINGS, cost_model
from llm_inference_simulator import SimulatorConfig, _core, simulate_many
from llm_inference_simulator.shared_inputs import SharedInputs

TURNS = 9
ENGINES, REQUESTS = 16, 500_000
SLICE_EVENTS = 1_000_000
HASHED = bytes(40 << 20)


@dataclass(slots=True)
class Times:
    """Wall and processor seconds of the turns of a job."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, job: Callable[[int], Callable[[], object]], threads: int) -> None:
        """Prepare the job and time it."""
        run = job(threads)
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)


def hashes(threads: int) -> Callable[[], object]:
    """Two hashes without the interpreter's lock: what this machine's processors give."""

    def work() -> None:
        hashlib.sha256(HASHED).digest()

    def run() -> None:
        if threads == 1:
            work()
            work()
            return
        other = threading.Thread(target=work)
        other.start()
        work()
        other.join()

    return run


def engines(threads: int) -> Callable[[], object]:
    """Engines with the common load behind round_robin."""
    gaps = np.random.default_rng(0).exponential(1 / (8.0 * ENGINES), REQUESTS)
    columns = {
        "arrival_ns": (np.cumsum(gaps) * 1e9).astype(np.int64),
        "prompt_tokens": np.full(REQUESTS, 512, dtype=np.int64),
        "output_tokens": np.full(REQUESTS, 128, dtype=np.int64),
    }

    def run() -> None:
        simulation = _core.Simulation(
            pools=[(SETTINGS, cost_model(), ENGINES)],
            router="round_robin",
            threads=threads,
            **columns,
        )
        while not simulation.run_slice(SLICE_EVENTS).done:
            pass
        simulation.request_columns()

    return run


def configurations(requests: int, count: int) -> Callable[[int], Callable[[], object]]:
    """As many configurations of so many requests, which share models and lengths."""
    configs = [
        SimulatorConfig.from_dict(
            {
                "model": "llama-3.1-8b",
                "xpu": "h100-sxm",
                "cluster": {"data_parallel_size": 4, "router": "least_outstanding"},
                "engine": {"max_num_seqs": 16 + index},
                "workload": {"request_rate": 40.0, "num_prompts": requests},
            }
        )
        for index in range(count)
    ]
    inputs = SharedInputs()

    def job(threads: int) -> Callable[[], object]:
        def run() -> None:
            outcomes = simulate_many(configs, jobs=threads, inputs=inputs, keep=summary)
            assert all(outcome.error is None for outcome in outcomes)

        return run

    return job


def summary(result: object) -> dict[str, object]:
    """What is kept of a result."""
    made: dict[str, object] = result.summary()  # type: ignore[attr-defined]
    return made


def compare(job: Callable[[int], Callable[[], object]]) -> str:
    """One thread against two, and against what two threads that only hash gained meanwhile."""
    job(2)()  # what is made once is made before
    measured = {threads: Times() for threads in (1, 2)}
    plain = {threads: Times() for threads in (1, 2)}
    for _ in range(TURNS):
        for threads in (1, 2):
            measured[threads].take(job, threads)
            plain[threads].take(hashes, threads)
    gain = min(measured[1].wall) / min(measured[2].wall)
    given = min(plain[1].wall) / min(plain[2].wall)
    cost = min(measured[2].cpu) / min(measured[1].cpu)
    return (
        f"{min(measured[1].wall):10.3f}{min(measured[2].wall):10.3f}"
        f"{gain:8.2f}{given:10.2f}{cost:10.2f}"
    )


def print_gains() -> None:
    """Print the table."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}, GIL {'on' if gil else 'off'}")
    print(f"{'':44}{'1 thread':>10}{'2':>10}{'gain':>8}{'machine':>10}{'CPU':>10}")
    jobs = {
        f"{ENGINES} engines, round_robin, {REQUESTS:,} requests": engines,
        "simulate_many, 8 x 50,000 requests": configurations(50_000, 8),
        "simulate_many, 200 x 2,000 requests": configurations(2_000, 200),
    }
    for name, job in jobs.items():
        print(f"{name:44}{compare(job)}", flush=True)


if __name__ == "__main__":
    print_gains()
