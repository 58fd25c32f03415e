"""Speed of the core beside plain Python, on the same workload, in one run.

    make bench        # or: python benchmarks/bench.py --picture docs/images/cost_curves.png

512 prompt tokens, 128 output tokens, Poisson arrivals at a batch of about 11, one engine, no prefix
caching. Loop against loop: building the columns is not timed. Beside the core: a naive loop without
any check, whose steps and finish times must equal the core's, and the reference of the tests; both
run fewer requests. Then how the core's cost per request moves with one quantity at a time, how long
the command line takes to start, and instruction counts, which a busy machine does not move.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.instruction_counts import print_counts
from benchmarks.naive import run_naive
from benchmarks.startup import print_seconds
from llm_inference_simulator import _core
from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.config import PerformanceModelConfig
from llm_inference_simulator.performance_models import (
    RooflinePerformanceModel,
    create_performance_model,
)
from tests.reference.cluster import Cluster, Job
from tests.reference.engines import Sums
from tests.reference.scheduler import Settings

STEP_NS, PREFILL_TOKEN_NS, DECODE_SEQ_NS = 8_000_000, 20_000, 100_000
SETTINGS = EngineSettings(
    max_num_seqs=256,
    max_num_batched_tokens=8192,
    max_model_len=131_072,
    block_size=16,
    num_gpu_blocks=20_000,
)


@dataclass(frozen=True)
class Case:
    """One measured configuration."""

    requests: int = 300_000
    prompt: int = 512
    output: int = 128
    rate_per_s: float = 8.0
    engines: int = 1
    settings: EngineSettings = SETTINGS
    shared: bool = False
    """Whether all requests have the same prompt; otherwise nobody shares anything."""
    step_by_step: bool = False
    """Whether steps that nothing interrupts are still taken one at a time."""
    cost: _core.CostModel | None = None
    """None: :func:`cost_model`."""

    def arrivals(self) -> np.ndarray:
        """Arrival times in ns."""
        gaps = np.random.default_rng(0).exponential(1 / self.rate_per_s, self.requests)
        return (np.cumsum(gaps) * 1e9).astype(np.int64)

    def simulation(self) -> _core.Simulation:
        """The case in the core."""
        blocks = self.prompt // self.settings.block_size
        named = {
            "block_offsets": np.arange(self.requests + 1, dtype=np.int64) * blocks,
            "block_ids": np.tile(np.arange(blocks, dtype=np.int64), self.requests),
        }
        return _core.Simulation(
            **(named if self.shared else {}),
            pools=[(self.settings, self.cost or cost_model(), self.engines)],
            router="least_outstanding",
            arrival_ns=self.arrivals(),
            prompt_tokens=np.full(self.requests, self.prompt, dtype=np.int64),
            output_tokens=np.full(self.requests, self.output, dtype=np.int64),
            step_by_step=self.step_by_step,
        )

    def run_core(self) -> Measurement:
        """Simulate with the core."""
        simulation = self.simulation()
        started = time.perf_counter()
        progress = simulation.run_slice(2**62)
        return Measurement(time.perf_counter() - started, self.requests, progress.steps)


@dataclass(frozen=True)
class Measurement:
    """Wall time of an event loop."""

    seconds: float
    requests: int
    steps: int

    @property
    def per_request_us(self) -> float:
        """Microseconds a request."""
        return self.seconds / self.requests * 1e6


def cost_model() -> _core.CostModel:
    """The core's cost model; the reference's is the same formula."""
    return _core.CostModel.fixed(STEP_NS, PREFILL_TOKEN_NS, DECODE_SEQ_NS)


def run_naive_loop(case: Case) -> Measurement:
    """Simulate with a plain Python loop, and see that it agrees with the core."""
    arrivals = case.arrivals()
    started = time.perf_counter()
    steps, finished = run_naive(
        arrivals.tolist(),
        case.prompt,
        case.output,
        max_num_seqs=case.settings.max_num_seqs,
        budget=case.settings.max_num_batched_tokens,
        costs_ns=(STEP_NS, PREFILL_TOKEN_NS, DECODE_SEQ_NS),
    )
    elapsed = time.perf_counter() - started
    core = case.simulation()
    assert core.run_slice(2**62).steps == steps, "the naive loop and the core differ"
    assert int(core.request_columns()["finished_ns"].sum()) == finished
    return Measurement(elapsed, case.requests, steps)


def run_reference(case: Case) -> Measurement:
    """Simulate with tests/reference, which checks its invariants at every step."""
    jobs = [Job(int(arrival), case.prompt, case.output) for arrival in case.arrivals()]
    # Windows matter to costs alone, and the reference has one cost formula.
    named = {k: v for k, v in asdict(case.settings).items() if k != "attention_window"}
    cluster = Cluster([(Settings(**named), [reference_cost_ns])], jobs)
    started = time.perf_counter()
    run = cluster.simulate()
    return Measurement(time.perf_counter() - started, case.requests, len(run.steps))


def reference_cost_ns(sums: Sums) -> int:
    """The formula of :func:`cost_model`."""
    tokens, seqs = sums["prefill_tokens"], sums["decode_seqs"]
    return STEP_NS + PREFILL_TOKEN_NS * tokens + DECODE_SEQ_NS * seqs


def best_of(case: Case, times: int = 3) -> Measurement:
    """The fastest of several runs: what the machine's other work disturbs least."""
    return min((case.run_core() for _ in range(times)), key=lambda run: run.seconds)


def compare() -> None:
    """Core against naive loop."""
    core, naive = best_of(Case()), run_naive_loop(Case(requests=10_000))
    stepping = best_of(Case(step_by_step=True))
    reference = run_reference(Case(requests=30))
    print(f"{'':14}{'requests/s':>14}{'steps/s':>14}{'us/request':>14}{'ns/step':>12}")
    rows = {
        "core": core,
        "step by step": stepping,
        "naive loop": naive,
        "reference": reference,
    }
    for name, run in rows.items():
        print(
            f"{name:14}{run.requests / run.seconds:14,.0f}{run.steps / run.seconds:14,.0f}"
            f"{run.per_request_us:14,.3f}{run.seconds / run.steps * 1e9:12,.1f}"
        )
    for name, other in (("naive loop", naive), ("reference", reference)):
        print(f"core is {other.per_request_us / core.per_request_us:,.0f} x the {name}")


def pricing() -> None:
    """What a cost model adds to a step: Llama-3.1-8B on an H100, beside a fixed cost."""
    roofline = RooflinePerformanceModel("llama-3.1-8b", "h100-sxm", max_model_len=8192)
    table = create_performance_model(
        PerformanceModelConfig(), "llama-3.1-8b", "h100-sxm", max_model_len=8192
    )
    cases = {
        "fixed": Case(requests=60_000),
        "roofline": Case(requests=60_000, cost=roofline.cost_model()),
        "op_table": Case(requests=60_000, cost=table.cost_model()),
    }
    # Interleaved, so that the machine's other work disturbs all alike.
    runs: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(9):
        for name, case in cases.items():
            run = case.run_core()
            runs[name].append(run.seconds / run.steps * 1e9)
    fixed = min(runs["fixed"])
    print("\nns a step by cost model (the fastest of nine runs; in brackets what pricing adds)")
    print(
        "  ".join(
            f"{name} {min(all_):.1f} ({min(all_) - fixed:+.1f})" for name, all_ in runs.items()
        )
    )


def main(words: Sequence[str] | None = None) -> None:
    """Print all tables, and draw the cost curves if asked."""
    # Which import this module.
    from benchmarks.cost_curves import draw, print_curves
    from benchmarks.targets import print_targets

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw the cost curves")
    arguments = parser.parse_args(words)
    compare()
    pricing()
    print()
    curves = print_curves()
    if arguments.picture:
        draw(curves, arguments.picture)
    print()
    print_targets()
    print()
    print_seconds()
    print()
    print_counts()


if __name__ == "__main__":
    main()
