"""From points to a calibration: the steps of the offline runner, or what a server's clients saw."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_inference_simulator.calibration import FrontEndLatency
from llm_inference_simulator.calibration.parameters import DataSource, MeasuredEngine
from llm_inference_simulator.calibration.roof_solver import Observations, mean_loss, solve
from llm_inference_simulator.calibration.step_data import MeasuredStep, StepData, read_step_logs
from llm_inference_simulator.calibration.step_fit import shape_weights, tied
from llm_inference_simulator.calibration.step_work import step_work
from llm_inference_simulator.calibrators import StepCalibration, calibrate_from_step_data
from llm_inference_simulator.calibrators.from_steps import pricing_model
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CalibrationError
from vllm_benchmarks.schema import BenchmarkData, BenchmarkPoint, RequestTiming

INDISTINCT = ("prefill_step_overhead_us",)
"""Before the first token of an answer lie the front end and the step: clients see their sum."""

_FRONT_END_SHARES = np.linspace(0.0, 0.96, 25)
"""Tried front ends, as shares of the shortest TTFT."""


def estimate_from_steps(
    log: Path,
    data: BenchmarkData,
    *,
    engine: EngineConfig,
    bootstrap_samples: int,
    progress: Callable[[str], None],
) -> StepCalibration:
    """Calibrate from the step log that the points of an offline run became."""
    header = data.header
    return calibrate_from_step_data(
        read_step_logs([log]),
        model=header.model,
        xpu=header.xpu,
        tensor_parallel_size=header.tensor_parallel_size,
        engine=engine,
        bootstrap_samples=bootstrap_samples,
        progress=progress,
    )


def estimate_from_server(
    points: Path,
    data: BenchmarkData,
    *,
    engine: EngineConfig,
    bootstrap_samples: int,
    progress: Callable[[str], None],
) -> StepCalibration:
    """Calibrate from what clients saw: gaps are steps, and a TTFT is the front end and a step.

    The front end is what makes the TTFT of lone prompts fit the roofline that the gaps share.
    """
    header = data.header
    shortest = min(
        (request.ttft_ms for point in data.points for request in _lone(point)), default=None
    )
    if shortest is None:
        raise CalibrationError(
            f"points file {points} has no answered prefill point: prompts alone tell what a server "
            "adds; measure again"
        )
    source = DataSource(file=points.name, sha256=hashlib.sha256(points.read_bytes()).hexdigest())

    def seen(front_end_ms: float) -> StepData:
        return StepData(
            steps=tuple(server_steps(data, front_end_ms)),
            dropped_warm_up=0,
            engine=MeasuredEngine(),
            environment=header.environment,
            sources=(source,),
        )

    progress("front end")
    pricing = pricing_model(
        seen(0.0), header.model, header.xpu, header.tensor_parallel_size, engine=engine
    )
    losses = []
    for share in _FRONT_END_SHARES:
        steps = seen(share * shortest).steps
        observed = Observations(
            work=step_work(steps, pricing.breakdown_step, pricing.attention_window),
            seconds=np.array([step.seconds for step in steps]),
            weights=shape_weights(steps),
        )
        losses.append(mean_loss(observed, solve(observed, tied(INDISTINCT))))
    front_end_ms = float(_FRONT_END_SHARES[int(np.argmin(losses))] * shortest)
    made = calibrate_from_step_data(
        seen(front_end_ms),
        model=header.model,
        xpu=header.xpu,
        tensor_parallel_size=header.tensor_parallel_size,
        engine=engine,
        indistinct=INDISTINCT,
        bootstrap_samples=bootstrap_samples,
        progress=progress,
    )
    told = {
        "front_end": FrontEndLatency(request_latency_ms=front_end_ms),
        "provenance": {**made.calibration.provenance, "source": "server"},
    }
    return StepCalibration(calibration=made.calibration.model_copy(update=told), fit=made.fit)


def server_steps(data: BenchmarkData, front_end_ms: float) -> list[MeasuredStep]:
    """Engine steps behind the answers of a server: lone prompts, and pure decode."""
    steps = []
    for point in data.points:
        for request in _lone(point):
            seconds = max(request.ttft_ms - front_end_ms, 1e-3) / 1e3
            steps.append(
                MeasuredStep(chunks=((0, request.prompt_tokens),), sampled_seqs=1, seconds=seconds)
            )
        if point.point.kind == "decode":
            for repeat in point.requests:
                if len(repeat) == point.point.batch_size:
                    steps += _decode_steps(repeat)
    return steps


def _lone(point: BenchmarkPoint) -> list[RequestTiming]:
    """Requests that had the engine for themselves from their start to their first token."""
    if point.point.batch_size > 1 or point.point.kind == "mixed":
        return []
    return [request for repeat in point.requests for request in repeat]


def _decode_steps(repeat: tuple[RequestTiming, ...]) -> list[MeasuredStep]:
    """Steps in which all requests of a repeat decode; every request sees the same ones."""
    whole = [request for request in repeat if len(request.gaps_ms) == request.output_tokens - 1]
    if len(whole) < len(repeat):
        return []
    first = [request.start_s * 1e3 + request.ttft_ms for request in repeat]
    last = [begin + sum(each.gaps_ms) for begin, each in zip(first, repeat, strict=True)]
    begin, end = max(first), min(last)
    # Requests that began earlier are some tokens ahead: each reads a context of its own.
    received = [
        begun + np.cumsum([0.0, *each.gaps_ms]) for begun, each in zip(first, repeat, strict=True)
    ]
    witness = repeat[int(np.argmax(first))]
    now, steps = max(first), []
    for gap in witness.gaps_ms:
        now += gap
        if begin < now <= end + 1e-6:
            # A step's own tokens reach the clients around its end: those before came a step ago.
            before = now - gap / 2
            contexts = [
                request.prompt_tokens + int(np.count_nonzero(times <= before))
                for request, times in zip(repeat, received, strict=True)
            ]
            steps.append(
                MeasuredStep(
                    contexts=tuple(contexts), sampled_seqs=len(contexts), seconds=gap / 1e3
                )
            )
    return steps
