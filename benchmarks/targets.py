"""What the core promises on one processor core, and whether it holds here.

    python -m benchmarks.targets

512 prompt tokens, 128 output tokens and Poisson arrivals at a batch of about 11, as in
``benchmarks/bench.py``, unless the row says otherwise. Times are the fastest of several runs; a
busy machine moves them all the same. Bytes are what the heap holds after a run and did not before,
the output columns aside.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.bench import SETTINGS, Case, Measurement, best_of
from llm_inference_simulator.config import PerformanceModelConfig
from llm_inference_simulator.performance_models import create_performance_model

CACHED = replace(SETTINGS, enable_prefix_caching=True)
OUTPUT_BYTES = 4 * 8 + 4 * 4 + 1
"""Of a request's row: four times; three counts and the engine; the status."""
REQUESTS_PER_ENGINE = 64
"""Enough that a cluster's first and last second, in which batches are small, weigh little."""


@dataclass(frozen=True)
class Row:
    """A measured quantity and its bound."""

    name: str
    value: float
    bound: float
    unit: str

    def line(self) -> str:
        """The row as text."""
        verdict = "" if self.value <= self.bound else "  MISSED"
        return f"{self.name:52}{self.value:10.3f}{self.bound:10.1f}  {self.unit}{verdict}"


class HeapCount(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def heap_bytes() -> int | None:
    """Bytes that are allocated now; None where the C library does not tell."""
    count = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if count is None:
        return None
    count.restype = HeapCount
    now = count()
    return int(now.uordblks + now.hblkhd)


def bytes_per_request(case: Case) -> float | None:
    """Bytes of a request in the core after a run, besides its output columns."""
    case.simulation()  # whatever the first one leaves behind is not the request's
    before = heap_bytes()
    simulation = case.simulation()
    simulation.run_slice(2**62)
    after = heap_bytes()
    if before is None or after is None:
        return None
    del simulation
    return (after - before) / case.requests - OUTPUT_BYTES


def table_case() -> Case:
    """Llama-3.1-8B on an H100 by measured kernels, at a load that keeps about 11 running."""
    table = create_performance_model(
        PerformanceModelConfig(), "llama-3.1-8b", "h100-sxm", max_model_len=8192
    )
    return Case(requests=100_000, rate_per_s=11.0, cost=table.cost_model())


def engines(count: int) -> Case:
    """That many engines behind a least-outstanding router, each with the common load."""
    requests = max(50_000, REQUESTS_PER_ENGINE * count)
    return Case(requests=requests, engines=count, rate_per_s=8.0 * count, settings=CACHED)


def rows() -> Iterator[Row]:
    """Measure."""
    plain = best_of(Case(), 5)
    yield Row("a step", plain.seconds / plain.steps * 1e9, 50, "ns")
    yield Row("a request", plain.per_request_us, 0.6, "us")
    cached = best_of(Case(settings=CACHED), 5)
    yield Row("a request, prefix caching, unique prompts", cached.per_request_us, 2, "us")
    table = best_of(table_case(), 5)
    batch = table.requests * table_case().output / table.steps
    yield Row(f"a request, op_table (batch {batch:.1f})", table.per_request_us, 0.8, "us")
    large = best_of(Case(rate_per_s=25.6), 5)
    tokens = large.requests * Case().output
    batch = tokens / large.steps
    yield Row(f"an output token (batch {batch:.0f})", large.seconds / tokens * 1e9, 5, "ns")
    memory = bytes_per_request(Case())
    if memory is not None:
        yield Row("a request in the core", memory, 100, "bytes")
    runs: dict[int, list[Measurement]] = {count: [] for count in (1, 16, 256, 4096)}
    # Interleaved, so that the machine's other work disturbs all alike.
    for _ in range(5):
        for count, measured in runs.items():
            measured.append(engines(count).run_core())
    costs = {n: min(run.per_request_us for run in measured) for n, measured in runs.items()}
    for count, cost in costs.items():
        bound = 2 * costs[1]
        yield Row(f"a request, {count:,} engines of the same load each", cost, bound, "us")


def print_targets() -> None:
    """Print the table."""
    print(f"{'one core':52}{'measured':>10}{'at most':>10}")
    for row in rows():
        print(row.line(), flush=True)


if __name__ == "__main__":
    print_targets()
