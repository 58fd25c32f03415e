"""Machines with known parameters, and the steps that a sweep on them would measure."""

from __future__ import annotations

import dataclasses

import numpy as np

from llm_inference_simulator.calibration import RooflineParameters
from llm_inference_simulator.calibration.step_data import MeasuredStep
from llm_inference_simulator.performance_models import VLLMRooflineModel

MODEL, XPU = "llama-3.2-1b", "h100-sxm"


def machine(model: str = MODEL, /, **changes: float) -> VLLMRooflineModel:
    """A plausible GPU behind the rates that matter to a small model."""
    parameters = {
        "prefill_effective_tflops": 400.0,
        "prefill_effective_bandwidth_gbps": 1800.0,
        "decode_effective_tflops": 250.0,
        "decode_effective_bandwidth_gbps": 2200.0,
        "prefill_step_overhead_us": 1100.0,
        "decode_step_overhead_us": 900.0,
        "sequence_overhead_us": 10.0,
    }
    return VLLMRooflineModel(
        model, XPU, calibration=RooflineParameters.parse({**parameters, **changes})
    )


def prefill(batch: int, tokens: int, cached: int = 0) -> MeasuredStep:
    """A step of equal prompt chunks."""
    return MeasuredStep(chunks=((cached, tokens),) * batch, sampled_seqs=batch, seconds=1.0)


def decode(batch: int, context: int) -> MeasuredStep:
    """A step of equal decoding requests."""
    return MeasuredStep(contexts=(context,) * batch, sampled_seqs=batch, seconds=1.0)


PREFILLS = [prefill(1, 2**k) for k in range(4, 14)]
PREFILLS += [prefill(b, 512) for b in (2, 4, 8, 16)] + [prefill(1, 2048, c) for c in (8192, 32768)]
DECODES = [
    decode(2**k, context)
    for k in range(0, 10)
    for context in (64, 512, 4096, 16384)
    if 2**k * context <= 2**20
]


def measure(
    model: VLLMRooflineModel,
    design: list[MeasuredStep],
    *,
    noise: float,
    repeats: int,
    seed: int,
) -> list[MeasuredStep]:
    """Times of the design's steps on a machine, each with log-normal noise."""
    random = np.random.default_rng(seed)

    def seconds(step: MeasuredStep) -> float:
        exact = model.estimate_step_time(step.shape(model.attention_window))
        return float(exact * np.exp(random.normal(0, noise)))

    return [
        dataclasses.replace(step, seconds=seconds(step)) for step in design for _ in range(repeats)
    ]
