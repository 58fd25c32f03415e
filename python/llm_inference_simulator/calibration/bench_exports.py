"""Results of AIPerf and GuideLLM, which tell each request apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_inference_simulator.calibration.bench_results import (
    BenchResult,
    Requests,
    assemble,
    number,
)
from llm_inference_simulator.calibration.parameters import DataSource
from llm_inference_simulator.errors import CalibrationError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0}


def aiperf(path: Path, rows: Sequence[dict[str, Any]], source: DataSource) -> BenchResult:
    """Read ``profile_export.jsonl``: one request a line, each metric with its unit.

    AIPerf's inter-token latency is a mean per request; weighted by the gaps of each request it is
    the mean of the pooled gaps.
    """
    good = [
        row
        for row in rows
        if row.get("error") is None
        and (row.get("metadata") or {}).get("benchmark_phase", "profiling") == "profiling"
    ]
    starts, prompts, outputs, ttfts, e2es = [], [], [], [], []
    gap_sum, gaps = 0.0, 0
    for row in good:
        metrics = row.get("metrics")
        metadata = row.get("metadata")
        if not isinstance(metrics, dict) or not isinstance(metadata, dict):
            raise CalibrationError(f"benchmark result {path}: a line lacks metadata or metrics")
        starts.append(number(path, metadata, "request_start_ns") * 1e-9)
        prompts.append(int(_metric(path, metrics, "input_sequence_length")))
        outputs.append(int(_metric(path, metrics, "output_sequence_length")))
        ttfts.append(_metric(path, metrics, "time_to_first_token"))
        e2es.append(_metric(path, metrics, "request_latency"))
        if outputs[-1] > 1 and "inter_token_latency" in metrics:
            gap_sum += _metric(path, metrics, "inter_token_latency") * (outputs[-1] - 1)
            gaps += outputs[-1] - 1
    return assemble(
        path,
        Requests(
            start_s=np.array(starts),
            prompt_tokens=prompts,
            output_tokens=outputs,
            ttft_s=np.array(ttfts),
            e2e_s=np.array(e2es),
        ),
        source,
        kind="AIPerf",
        failed=sum(row.get("error") is not None for row in rows),
        extra_means={"itl": 1e3 * gap_sum / gaps} if gaps else {},
    )


def _metric(path: Path, metrics: Mapping[str, Any], name: str) -> float:
    """A metric in seconds, or in its own unit where that is no time."""
    metric = metrics.get(name)
    if not isinstance(metric, dict):
        raise CalibrationError(f"benchmark result {path}: metric {name} is missing on a line")
    return number(path, metric, "value") * _SECONDS.get(str(metric.get("unit")), 1.0)


def guidellm(path: Path, data: Mapping[str, Any], source: DataSource) -> BenchResult:
    """Read ``benchmarks.json`` with its list of requests; it must hold one benchmark."""
    benchmarks = data["benchmarks"]
    if not isinstance(benchmarks, list) or len(benchmarks) != 1:
        found = len(benchmarks) if isinstance(benchmarks, list) else 0
        raise CalibrationError(
            f"benchmark result {path} holds {found} benchmarks: give a file of exactly one (one "
            "rate or concurrency)"
        )
    requests = benchmarks[0].get("requests") if isinstance(benchmarks[0], dict) else None
    good = requests.get("successful") if isinstance(requests, dict) else None
    if not isinstance(good, list) or not all(isinstance(row, dict) for row in good):
        raise CalibrationError(
            f"benchmark result {path} lists no requests (benchmarks.requests.successful): let "
            "GuideLLM write them all"
        )
    starts = [_first_of(path, row, ("request_start_time", "start_time")) for row in good]
    outputs = [int(number(path, row, "output_tokens", least=1)) for row in good]
    ttfts = [1e-3 * number(path, row, "time_to_first_token_ms") for row in good]
    e2es = [number(path, row, "request_latency") for row in good]
    gaps = sum(count - 1 for count in outputs)
    waits = sum(e2e - ttft for e2e, ttft in zip(e2es, ttfts, strict=True))
    return assemble(
        path,
        Requests(
            start_s=np.array(starts),
            prompt_tokens=[int(number(path, row, "prompt_tokens", least=1)) for row in good],
            output_tokens=outputs,
            ttft_s=np.array(ttfts),
            e2e_s=np.array(e2es),
        ),
        source,
        kind="GuideLLM",
        failed=len(requests.get("errored") or ()) if isinstance(requests, dict) else 0,
        extra_means={"itl": 1e3 * waits / gaps} if gaps else {},
    )


def _first_of(path: Path, row: Mapping[str, Any], keys: Sequence[str]) -> float:
    """GuideLLM renamed its start time between versions."""
    for key in keys:
        if key in row:
            return number(path, row, key)
    raise CalibrationError(f"benchmark result {path}: a request lacks {keys[0]}")
