"""Small runs with recorded steps, for tests of reports and timelines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.report.digest import make_digest
from llm_inference_simulator.report.saved import DIGEST_KEY, SavedResult
from llm_inference_simulator.results import SimulationResult, strict_json

DISAGGREGATED: dict[str, Any] = {
    "cluster": {"pools": [{"role": "prefill"}, {"role": "decode", "n_engines": 2}]},
    "transfer": {"bandwidth_gb_s": 5.0, "latency_ms": 1.0},
}


def run(changes: Mapping[str, Any] | None = None) -> SimulationResult:
    """Simulate llama-3.1-8b on an H100 for 200 requests, or what ``changes`` make of it."""
    base: dict[str, Any] = {
        "model": "llama-3.1-8b",
        "xpu": "h100-sxm",
        "workload": {"num_prompts": 200, "request_rate": 20.0, "random_range_ratio": 0.5},
    }
    return simulate(SimulatorConfig.from_dict(base | dict(changes or {})), record_steps=True)


def saved(result: SimulationResult, *, digest: bool = True, **changes: Any) -> SavedResult:
    """The result as a page reads it; ``changes`` replace keys of its summary."""
    extra = {DIGEST_KEY: make_digest(result)} if digest else {}
    summary = strict_json({**result.summary(), **extra, **changes})
    return SavedResult.from_summary(summary, source="test")
