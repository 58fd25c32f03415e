"""Results of load generators: which requests were sent, and the means that came out.

Read are the JSON files of ``vllm bench serve`` (detailed or not), ``latency`` and ``throughput``,
AIPerf's ``profile_export.jsonl`` and GuideLLM's ``benchmarks.json`` (``bench_exports``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration.parameters import DataSource
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.files import read_text

_NS_PER_S = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedLengths:
    """What files without lengths need to be told; None: not told."""

    input_len: int | None = None
    output_len: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One run of a load generator: its successful requests and its means."""

    kind: str
    arrival_ns: NDArray[np.int64]
    """Sorted; the first is 0. ``max_concurrency`` may send requests later."""
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    means_ms: dict[str, float]
    """Of ``ttft``, ``itl`` (pooled gaps), ``tpot``, ``e2el`` and ``duration``: what is known."""
    through_server: bool
    max_concurrency: int | None
    failed: int
    warnings: tuple[str, ...]
    source: DataSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Columns of a run before they are sorted; times in seconds, NaN where not measured."""

    start_s: NDArray[np.float64]
    prompt_tokens: Sequence[int]
    output_tokens: Sequence[int]
    ttft_s: NDArray[np.float64]
    e2e_s: NDArray[np.float64]


def read_bench_result(path: Path, asked: AskedLengths | None = None) -> BenchResult:
    """Read a result; raises :class:`CalibrationError` naming the file, the key and the remedy."""
    from llm_inference_simulator.calibration import bench_exports

    text = read_text(path, "benchmark result", CalibrationError)
    source = DataSource(file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    values = _values(path, text)
    first = values[0]
    asked = asked or AskedLengths()
    last = values[-1]
    _refuse_unused(path, last, asked)
    if "metadata" in first and "metrics" in first:
        return bench_exports.aiperf(path, values, source)
    if "benchmarks" in first:
        return bench_exports.guidellm(path, first, source)
    if "mean_ttft_ms" in last or "ttfts" in last:
        return _serve(path, last, source)
    if "avg_latency" in last:
        return _latency(path, last, asked, source)
    if "elapsed_time" in last and "num_requests" in last:
        return _throughput(path, last, asked, source)
    raise CalibrationError(
        f"benchmark result {path} is of no known kind (its keys: {', '.join(list(last)[:6])}): "
        "give a result of vllm bench serve, latency or throughput, AIPerf's profile_export.jsonl "
        "or GuideLLM's benchmarks.json"
    )


def _refuse_unused(path: Path, last: Mapping[str, Any], asked: AskedLengths) -> None:
    """Lengths that a result holds itself, and a batch that it had none of, cannot be asked for."""
    given: dict[str, int | None] = {"--batch-size": asked.batch_size}
    if "elapsed_time" not in last:
        given = {"--input-len": asked.input_len, "--output-len": asked.output_len, **given}
    unused = [flag for flag, value in given.items() if value is not None]
    if unused and "avg_latency" not in last:
        raise CalibrationError(
            f"benchmark result {path} does not need {' and '.join(unused)}: leave it out"
        )


def assemble(
    path: Path,
    requests: Requests,
    source: DataSource,
    *,
    kind: str,
    failed: int,
    extra_means: Mapping[str, float],
    max_concurrency: int | None = None,
) -> BenchResult:
    """A run from its requests; means that the columns cannot give come as ``extra_means``."""
    if not len(requests.start_s):
        raise CalibrationError(
            f"benchmark result {path} holds no successful request: measure again"
        )
    order = np.argsort(requests.start_s, kind="stable")
    starts = requests.start_s[order] - requests.start_s[order[0]]
    means = {
        name: 1e3 * float(np.mean(column))
        for name, column in (("ttft", requests.ttft_s), ("e2el", requests.e2e_s))
        if len(column) and np.isfinite(column).all()
    }
    warnings = []
    if failed:
        warnings.append(f"{path.name}: {failed} failed requests are left out")
    return BenchResult(
        kind=kind,
        arrival_ns=np.rint(starts * _NS_PER_S).astype(np.int64),
        prompt_tokens=np.asarray(requests.prompt_tokens, dtype=np.int64)[order],
        output_tokens=np.asarray(requests.output_tokens, dtype=np.int64)[order],
        means_ms={**means, **extra_means},
        through_server=True,
        max_concurrency=max_concurrency,
        failed=failed,
        warnings=tuple(warnings),
        source=source,
    )


def number(path: Path, data: Mapping[str, Any], key: str, *, least: float = 0.0) -> float:
    """A finite number of a file, at least ``least``."""
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CalibrationError(
            f"benchmark result {path}: {key}={value!r} must be a number: the file is damaged"
        )
    if value < least:
        raise CalibrationError(
            f"benchmark result {path}: {key}={value!r} must be at least {least:g}"
        )
    return float(value)


def column(path: Path, data: Mapping[str, Any], key: str, rows: int | None = None) -> list[float]:
    """A list of finite numbers, as long as the others."""
    values = data.get(key)
    plain = isinstance(values, list) and all(
        isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) and v >= 0
        for v in values
    )
    if not plain or (rows is not None and len(values or ()) != rows):
        raise CalibrationError(
            f"benchmark result {path}: {key} must be a list of {rows or 'some'} numbers, 0 or "
            "more: the file is damaged, or was not made with --save-detailed"
        )
    return list(values or ())


def _values(path: Path, text: str) -> list[dict[str, Any]]:
    """The one object of a file, or one a line."""
    try:
        values = [json.loads(text)]
    except ValueError:
        try:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as cause:
            raise CalibrationError(f"benchmark result {path} is not valid JSON: {cause}") from None
    if not values or not all(isinstance(value, dict) for value in values):
        raise CalibrationError(f"benchmark result {path} holds no JSON object: check the file")
    return values


def _serve(path: Path, data: dict[str, Any], source: DataSource) -> BenchResult:
    limit = data.get("max_concurrency")
    concurrency = limit if type(limit) is int and limit > 0 else None
    if not isinstance(data.get("input_lens"), list) or "start_times" not in data:
        return _serve_aggregates(path, data, concurrency, source)
    prompts = column(path, data, "input_lens")
    rows = len(prompts)
    outputs = column(path, data, "output_lens", rows)
    sent_s = np.array(column(path, data, "start_times", rows))
    ttfts = np.array(column(path, data, "ttfts", rows))
    gaps = data.get("itls")
    if not isinstance(gaps, list) or len(gaps) != rows:
        raise CalibrationError(f"benchmark result {path}: itls must be a list of {rows} lists")
    gaps_s = [np.array(column(path, {"itls": each}, "itls")) for each in gaps]
    good = np.array(outputs) > 0
    kept = np.flatnonzero(good)
    e2e = np.array([ttfts[row] + gaps_s[row].sum() for row in kept])
    pooled = np.concatenate([gaps_s[row] for row in kept]) if len(kept) else np.zeros(0)
    return assemble(
        path,
        Requests(
            start_s=sent_s[kept] - _waited_s(path, data, concurrency, kept),
            prompt_tokens=[int(prompts[row]) for row in kept],
            output_tokens=[int(outputs[row]) for row in kept],
            ttft_s=ttfts[kept],
            e2e_s=e2e,
        ),
        source,
        kind="vllm bench serve",
        failed=rows - len(kept),
        extra_means={"itl": 1e3 * float(pooled.mean())} if len(pooled) else {},
        max_concurrency=concurrency,
    )


def _waited_s(
    path: Path, data: Mapping[str, Any], concurrency: int | None, kept: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What ``--max-concurrency`` held requests back; 0 where older files do not say.

    Without it, start times would tell a prediction the throughput that it is to predict.
    """
    waited = data.get("queue_times")
    if concurrency is None or waited is None:
        return np.zeros(len(kept))
    if not isinstance(waited, list) or len(waited) <= max(kept, default=0):
        raise CalibrationError(
            f"benchmark result {path}: queue_times must be a list of one number a request: the "
            "file is damaged"
        )
    # Of requests that failed the difference means nothing.
    return np.array(column(path, {"queue_times": [waited[row] for row in kept]}, "queue_times"))


def _serve_aggregates(
    path: Path, data: dict[str, Any], concurrency: int | None, source: DataSource
) -> BenchResult:
    """Without the arrays: equal requests at the mean lengths and mean rate."""
    completed = int(number(path, data, "completed", least=1))
    rate = data.get("request_rate")
    if rate in ("inf", math.inf, None):
        gap = 0.0
    else:
        gap = 1 / number(path, data, "request_rate", least=1e-9)
    prompt = round(number(path, data, "total_input_tokens") / completed)
    output = round(number(path, data, "total_output_tokens") / completed)
    if prompt < 1 or output < 1:
        raise CalibrationError(
            f"benchmark result {path}: total_input_tokens and total_output_tokens must be at least "
            "one a request"
        )
    # Exponential gaps in their most regular order: quantiles, shuffled by a fixed seed.
    quantiles = -np.log1p(-(np.arange(completed) + 0.5) / completed)
    gaps = gap * np.random.default_rng(0).permutation(quantiles)
    nothing = np.full(completed, np.nan)
    result = assemble(
        path,
        Requests(
            start_s=np.cumsum(gaps),
            prompt_tokens=[prompt] * completed,
            output_tokens=[output] * completed,
            ttft_s=nothing,
            e2e_s=nothing,
        ),
        source,
        kind="vllm bench serve",
        failed=int(data.get("failed") or 0),
        extra_means={
            name: number(path, data, f"mean_{name}_ms")
            for name in ("ttft", "itl", "e2el")
            if data.get(f"mean_{name}_ms") is not None
        },
        max_concurrency=concurrency,
    )
    warning = (
        f"{path.name} was made without --save-detailed: arrivals and lengths are made up from its "
        "means"
    )
    return replace(result, warnings=(*result.warnings, warning))


def _at_once(path: Path, data: Mapping[str, Any], asked: AskedLengths, batch: int) -> Requests:
    lengths = {"--input-len": asked.input_len, "--output-len": asked.output_len}
    missing = [flag for flag, value in lengths.items() if value is None]
    if missing or asked.input_len is None or asked.output_len is None:
        raise CalibrationError(
            f"benchmark result {path} ({', '.join(list(data)[:3])}) does not say how long its "
            f"requests were: give {' and '.join(missing)}"
        )
    nothing = np.full(batch, np.nan)
    return Requests(
        start_s=np.zeros(batch),
        prompt_tokens=[asked.input_len] * batch,
        output_tokens=[asked.output_len] * batch,
        ttft_s=nothing,
        e2e_s=nothing,
    )


def _latency(
    path: Path, data: dict[str, Any], asked: AskedLengths, source: DataSource
) -> BenchResult:
    if asked.batch_size is None:
        raise CalibrationError(
            f"benchmark result {path} of vllm bench latency does not say its batch: give "
            "--batch-size, --input-len and --output-len"
        )
    seconds = number(path, data, "avg_latency", least=1e-9)
    requests = _at_once(path, data, asked, asked.batch_size)
    return _offline(path, requests, source, seconds=seconds, kind="vllm bench latency")


def _throughput(
    path: Path, data: dict[str, Any], asked: AskedLengths, source: DataSource
) -> BenchResult:
    requests = int(number(path, data, "num_requests", least=1))
    seconds = number(path, data, "elapsed_time", least=1e-9)
    told = (asked.input_len or 0) + (asked.output_len or 0)
    total = number(path, data, "total_num_tokens")
    if told and abs(told * requests - total) > 0.01 * total:
        raise CalibrationError(
            f"benchmark result {path}: --input-len and --output-len make {told * requests} tokens, "
            f"the run had total_num_tokens={total:.0f}: correct the lengths"
        )
    sent = _at_once(path, data, asked, requests)
    return _offline(path, sent, source, seconds=seconds, kind="vllm bench throughput")


def _offline(
    path: Path, requests: Requests, source: DataSource, *, seconds: float, kind: str
) -> BenchResult:
    """A run without a server, of which only the whole time is known."""
    result = assemble(
        path,
        requests,
        source,
        kind=kind,
        failed=0,
        extra_means={"duration": 1e3 * seconds},
    )
    return replace(result, through_server=False)
