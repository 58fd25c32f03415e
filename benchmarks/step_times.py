"""Predicted decode steps of well-known pairs of model and accelerator, as a Markdown table.

python benchmarks/step_times.py
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_inference_simulator.config import PerformanceModelConfig
from llm_inference_simulator.performance_models import (
    RooflinePerformanceModel,
    create_performance_model,
)

CONTEXT = 1024


@dataclass(frozen=True)
class Row:
    """One prediction, and what others publish of it."""

    model: str
    xpu: str
    ranks: int
    batch: int
    published: str = ""


ROWS = (
    Row("llama-3.1-8b", "h100-sxm", 1, 1, "7.9 ms between tokens (1)"),
    Row("llama-3.1-8b", "h100-sxm", 1, 64),
    Row("llama-3.1-8b", "a100-80-sxm", 1, 1, "12.8 ms between tokens (1)"),
    Row("llama-3.1-8b", "l40s", 1, 1, "26.5 ms between tokens (1)"),
    Row("deepseek-v3", "h200-sxm", 8, 1),
    Row("deepseek-v3", "h200-sxm", 8, 64),
    Row("gpt-oss-120b", "h100-sxm", 1, 1),
    Row("gpt-oss-120b", "h100-sxm", 1, 64),
    Row("qwen3-235b-a22b", "h100-sxm", 8, 1),
    Row("qwen3-235b-a22b", "h100-sxm", 8, 64),
    Row("llama-3.3-70b-nvfp4", "gb10", 1, 1, "4.0 to 4.2 tokens/s (2)"),
    Row("gpt-oss-120b", "gb10", 1, 1, "33 to 34 tokens/s (3)"),
)


def main() -> None:
    """Print the table."""
    print(
        "| model | accelerators | batch | ms | tokens/s | bound | largest components (ms, bound) "
        "| published |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        model = create_performance_model(
            PerformanceModelConfig(), row.model, row.xpu, row.ranks, max_model_len=16384
        )
        assert isinstance(model, RooflinePerformanceModel)
        seconds = model.estimate_decode_time(row.batch, CONTEXT)
        parts = sorted(
            model.breakdown_decode(row.batch, CONTEXT).values(), key=lambda part: -part.seconds
        )
        bounds: dict[str, float] = {}
        for part in parts:
            bounds[part.bound] = bounds.get(part.bound, 0.0) + part.seconds / seconds
        shares = ", ".join(
            f"{name} {share:.0%}"
            for name, share in sorted(bounds.items(), key=lambda item: -item[1])
            if share >= 0.01
        )
        largest = ", ".join(
            f"{part.name} {part.seconds * 1e3:.2f} {part.bound}" for part in parts[:3]
        )
        print(
            f"| {row.model} ({model.name}) | {row.ranks} x {row.xpu} | {row.batch} "
            f"| {seconds * 1e3:.2f} | {row.batch / seconds:,.0f} | {shares} | {largest} "
            f"| {row.published} |"
        )


if __name__ == "__main__":
    main()
