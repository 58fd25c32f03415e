"""This simulator's event loop on the common workload: ``fixed``, ``roofline`` or ``op_table``.

``reference`` is the plain Python implementation of the tests, which checks itself at every step.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.bench import Case, run_reference
from llm_inference_simulator._core import CostModel
from llm_inference_simulator.config import PerformanceModelConfig
from llm_inference_simulator.performance_models import create_performance_model


def main(requests: int, prompt: int, output: int, rate_per_s: float, timing: str) -> None:
    """Run and print what was measured as JSON."""
    case = Case(
        requests=requests,
        prompt=prompt,
        output=output,
        rate_per_s=rate_per_s,
        cost=None if timing in ("fixed", "reference") else _model(timing),
    )
    if timing == "reference":
        run = run_reference(case)
        print(json.dumps({"loop_s": run.seconds, "completed": requests, "mean_latency_s": None}))
        return
    simulation = case.simulation()
    started = time.perf_counter()
    progress = simulation.run_slice(2**62)
    elapsed = time.perf_counter() - started
    columns = simulation.request_columns()
    latency_ns = (columns["finished_ns"] - columns["arrival_ns"]).mean()
    measured = {
        "loop_s": elapsed,
        "completed": progress.answered,
        "mean_latency_s": float(latency_ns) / 1e9,
    }
    print(json.dumps(measured))


def _model(timing: str) -> CostModel:
    """Llama-3.1-8B on an H100, as the command line prices it by default or analytically."""
    config = PerformanceModelConfig.parse({"performance_model": timing})
    model = create_performance_model(config, "llama-3.1-8b", "h100-sxm", max_model_len=8192)
    return model.cost_model()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]), sys.argv[5])
