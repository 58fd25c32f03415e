"""How long a sweep of many configurations takes: ``python benchmarks/sweep_speed.py``.

Llama 3.1 70B with the lengths of the Azure conversation trace: rates, tensor-parallel sizes,
numbers of engines, batch limits. Prints the time of the whole command: building configurations,
simulating, metrics, journal, results table.

``--executor ray`` runs it on a Ray cluster of this machine. ``--kill`` runs it in a process of its
own first, which gets a SIGKILL when half of the rows are in the journal; what is timed then is the
rest. ``--compare`` runs it undisturbed on threads, too, and exits with 1 unless both tables are
equal, byte for byte.
"""

from __future__ import annotations

import argparse
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llm_inference_simulator.many import check_jobs
from llm_inference_simulator.progress_bar import configurations_bar
from llm_inference_simulator.sweep import SweepSpec, run_sweep
from llm_inference_simulator.sweep.executors import Executor, local_executor
from llm_inference_simulator.sweep.journal import NAME as JOURNAL
from llm_inference_simulator.sweep.ray_executor import ray_executor


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


def timed(made: SweepSpec, folder: Path, executor: Executor, name: str) -> Path:
    """Run what ``folder`` does not hold yet, print how long it took; the file of the table."""
    left = len(made) - rows_in(folder)
    began, cpu = time.perf_counter(), time.process_time()
    with configurations_bar(len(made)) as progress:
        result, path = run_sweep(made, folder, executor=executor, progress=progress)
    seconds = time.perf_counter() - began
    bad = sum(row.status != "ok" for row in result.rows)
    print(
        f"{left:,} configurations x {made.base['workload']['num_prompts']:,} requests on {name}: "
        f"{seconds:.1f} s, {1e3 * seconds / max(1, left):.2f} ms each "
        f"({time.process_time() - cpu:.1f} s of CPU in this process); {bad} without metrics, "
        f"table of {path.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )
    return path


def rows_in(folder: Path) -> int:
    """Rows of a journal; its first line says whose they are."""
    journal = folder / JOURNAL
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def kill_in_the_middle(words: list[str], folder: Path, rows: int) -> None:
    """Run this program with ``words`` and send it a SIGKILL when ``folder`` has so many rows."""
    command = [sys.executable, __file__, *words, "--output", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and rows_in(folder) < rows:
            time.sleep(0.1)
        process.kill()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    print(f"killed with {rows_in(folder):,} rows in the journal", flush=True)


def executor_of(name: str, jobs: int | None) -> tuple[Executor, str]:
    """The executor, and how it is called in a sentence."""
    if name == "ray":
        return ray_executor(jobs=jobs), f"Ray with {check_jobs(jobs)} CPUs"
    return local_executor(jobs), f"{check_jobs(jobs)} threads"


def main() -> int:
    """Run the sweep and print its speed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--kill", action="store_true", help="kill it in the middle, then go on")
    parser.add_argument("--compare", action="store_true", help="with an undisturbed run on threads")
    parser.add_argument("--output", type=Path, help="folder for the sweep (default: none is kept)")
    arguments = parser.parse_args()
    made = spec(arguments.configurations, arguments.requests)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.output or Path(scratch) / "sweep"
        if arguments.kill:
            words = [word for word in sys.argv[1:] if word not in ("--kill", "--compare")]
            kill_in_the_middle(words, folder, len(made) // 2)
        path = timed(made, folder, *executor_of(arguments.executor, arguments.jobs))
        if not arguments.compare:
            return 0
        other = timed(made, Path(scratch) / "compared", *executor_of("local", arguments.jobs))
        equal = path.read_bytes() == other.read_bytes()
        print("equal tables" if equal else "UNEQUAL tables")
        return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
