"""AISimulate's engine replay (Rust) on the common workload; runs in its own environment.

``fixed``: constant step times, its fastest model. ``op_level``: its default, times by operation.
Prefix caching is off and no request rows are asked for. The loop time is the ``wall_time_ms`` that
it reports itself.
"""

from __future__ import annotations

import json
import sys

from aisimulate import CorePredictionConfig, EngineReplayRunnerFactory
from aisimulate.predict import run_prediction

TIMING = {
    "fixed": {"type": "fixed", "prefill_ms": 8.0, "decode_ms": 8.0},
    "op_level": {"type": "default"},
}


def main(requests: int, prompt: int, output: int, rate_per_s: float, timing: str) -> None:
    """Run and print what was measured as JSON."""
    engine = {
        "timing": TIMING[timing],
        "kv_cache": {
            "prefix_caching": False,
            "block_size": 64,
            "capacity": {"type": "fixed", "blocks": 20_000},
        },
        "scheduler": {"max_batched_tokens": 8192, "max_sequences": 256},
    }
    config = CorePredictionConfig.model_validate(
        {
            "traffic": {
                "source": {"type": "synthetic", "input_tokens": prompt, "output_tokens": output},
                "load": {"type": "poisson", "requests_per_second": rate_per_s},
                "stop": {"requests": requests},
            },
            "engine": {
                "mode": "aggregated",
                "model": "meta-llama/Meta-Llama-3.1-8B",
                "hardware": "h100_sxm",
                "backend": "vllm",
                "workers": {"aggregated": engine},
            },
        }
    )
    result = run_prediction(config, stack="engine", runner_factory=EngineReplayRunnerFactory())
    summary = result.summary
    measured = {
        "loop_s": summary["wall_time_ms"] / 1e3,
        "completed": summary["completed_requests"],
        "mean_latency_s": summary["mean_e2e_latency_ms"] / 1e3,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), float(sys.argv[4]), sys.argv[5])
