"""Dynamo's offline replay (Rust) on the common workload; runs in Dynamo's own environment.

Its fastest settings: offline mode, the built-in polynomial step times (its other model asks a
Python estimator), prefix caching off, no report file, no logging. The loop time is the
``wall_time_ms`` that it reports itself: construction and execution of its Rust runtime.
"""

from __future__ import annotations

import json
import sys

from dynamo.mocker import MockEngineArgs
from dynamo.replay import run_synthetic_trace_replay


def main(requests: int, prompt: int, output: int, rate_per_s: float) -> None:
    """Run and print what was measured as JSON."""
    engine = MockEngineArgs(
        num_gpu_blocks=20_000,
        block_size=64,
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        enable_prefix_caching=False,
    )
    report = run_synthetic_trace_replay(
        prompt, output, requests, extra_engine_args=engine, request_rate=rate_per_s
    )
    measured = {
        "loop_s": report["wall_time_ms"] / 1e3,
        "completed": report["completed_requests"],
        "mean_latency_s": report["mean_e2e_latency_ms"] / 1e3,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]))
