"""How long a sweep of many configurations takes: ``python benchmarks/sweep_speed.py``.

Llama 3.1 70B with the lengths of the Azure conversation trace: rates, tensor-parallel sizes,
numbers of engines, batch limits. Prints the time of the whole command: building configurations,
simulating, metrics, journal, results table.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

from llm_inference_simulator.many import check_jobs
from llm_inference_simulator.progress_bar import configurations_bar
from llm_inference_simulator.sweep import SweepSpec, run_sweep
from llm_inference_simulator.sweep.executors import local_executor


def spec(configurations: int, requests: int) -> SweepSpec:
    """A grid of at least ``configurations`` points, cut to that number."""
    rates = math.ceil(configurations / 400)
    made = SweepSpec.from_dict(
        {
            "base": {
                "model": "llama-3.1-70b",
                "xpu": "h100-sxm",
                "cluster": {"router": "least_outstanding"},
                "workload": {"num_prompts": requests, "lengths_from": "azure-conv-2023"},
                "measurement": {"goodput": {"ttft": 1000.0, "tpot": 50.0}},
            },
            "grid": {
                "workload.request_rate": [1.0 + index for index in range(rates)],
                "cluster.tensor_parallel_size": [2, 4],
                "cluster.data_parallel_size": [2, 4, 6, 8, 10],
                "engine.max_num_seqs": [32, 64, 128, 192, 256],
                "engine.max_num_batched_tokens": [1024, 2048, 4096, 8192],
                "xpu": ["h100-sxm", "h200-sxm"],
            },
        },
        source="benchmark",
    )
    return SweepSpec(source=made.source, base=made.base, points=made.points[:configurations])


def main() -> None:
    """Run the sweep and print its speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--jobs", type=int)
    arguments = parser.parse_args()
    started, cpu = time.perf_counter(), time.process_time()
    made = spec(arguments.configurations, arguments.requests)
    with tempfile.TemporaryDirectory() as folder, configurations_bar(len(made)) as progress:
        result, path = run_sweep(
            made,
            Path(folder) / "sweep",
            executor=local_executor(arguments.jobs),
            progress=progress,
        )
        size = path.stat().st_size
    seconds = time.perf_counter() - started
    bad = sum(row.status != "ok" for row in result.rows)
    print(
        f"{len(made):,} configurations x {arguments.requests:,} requests on "
        f"{check_jobs(arguments.jobs)} threads: {seconds:.1f} s, "
        f"{1e3 * seconds / len(made):.2f} ms each ({time.process_time() - cpu:.1f} s of CPU); "
        f"{bad} without metrics, table of {size / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
