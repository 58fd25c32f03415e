"""What a reader of the numbers must know: saturation, preemption, rejections, cut outputs.

Each function returns a warning or None; a healthy run gives none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.metrics import COMPLETED, NS_PER_S, REJECTED, Columns

PREEMPTION_SHARE = 0.05
"""Share of preempted requests from which a warning is due: each preemption repeats a prefill."""

SIGNIFICANCE = 3.0
"""Standard deviations of the arrival count that the queue's growth must exceed."""

FEWEST_REQUESTS = 40
"""Below this many arrivals no trend can be told from noise."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """The queue grew while the load was on: rates per second, depths in requests."""

    offered_rate: float
    sustained_rate: float
    depth_middle: float
    depth_end: float


def find_saturation(columns: Columns, now_ns: int) -> Saturation | None:
    """Tell whether waiting requests pile up for as long as requests arrive.

    The depth of the queue (arrived, not yet scheduled for the first time) is sampled at every
    arrival. In a stable system its mean over the last quarter of the arrivals equals that over the
    second quarter within the noise of arrivals; with an excess of arrivals it is larger by the
    excess of half the load. Noise: n / 2 arrivals and their work vary by sqrt(cv² n / 2), where cv²
    is the squared coefficient of variation of the gaps (at least 1) plus that of output lengths.
    """
    arrival = columns["arrival_ns"]
    arrived = (arrival >= 0) & (arrival <= now_ns)
    times = np.sort(arrival[arrived])
    if len(times) < FEWEST_REQUESTS or times[-1] == times[0]:
        return None
    depth = _depth_at_arrivals(columns, arrived, times)
    quarter = len(times) // 4
    middle = float(depth[quarter : 2 * quarter].mean())
    end = float(depth[-quarter:].mean())
    variation = max(1.0, _variation(np.diff(times)))
    variation += _variation(columns["output_tokens"][columns["status"] == COMPLETED])
    if not queue_grows(middle, end, variation, len(times)):
        return None
    half = times[len(times) // 2]
    seconds = (times[-1] - half) / NS_PER_S
    if seconds <= 0:
        return None
    offered = len(times) - len(times) // 2
    started = columns["admitted_ns"][arrived]
    sustained = int(((started > half) & (started <= times[-1])).sum())
    return Saturation(offered / seconds, sustained / seconds, middle, end)


def queue_grows(middle: float, end: float, variation: float, arrivals: int) -> bool:
    """Whether the mean depth rose from ``middle`` to ``end`` by more than noise explains."""
    noise = math.sqrt(variation * arrivals / 2)
    return end - middle > SIGNIFICANCE * noise and end > 1.5 * middle


def _variation(values: NDArray[np.int64]) -> float:
    """Squared coefficient of variation; 0 for no values."""
    mean = float(values.mean()) if len(values) else 0.0
    return float(values.var()) / mean**2 if mean else 0.0


def _depth_at_arrivals(
    columns: Columns, arrived: NDArray[np.bool_], times: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Requests that wait just before each of the sorted arrival ``times``."""
    left = left_queue(columns, arrived)
    gone: NDArray[np.int64] = np.searchsorted(np.sort(left), times, side="right")
    depth: NDArray[np.int64] = np.maximum(np.arange(len(times)) - gone, 0)
    return depth


def left_queue(columns: Columns, arrived: NDArray[np.bool_]) -> NDArray[np.int64]:
    """When each of the requests that ``arrived`` left the queue; 2^63 - 1: not yet."""
    admitted = columns["admitted_ns"][arrived]
    finished = columns["finished_ns"][arrived]
    # A rejected request leaves on arrival; one that was never scheduled leaves when it is given up,
    # or (in an interrupted run) not at all.
    given_up = np.where(finished >= 0, finished, np.iinfo(np.int64).max)
    left: NDArray[np.int64] = np.where(
        columns["status"][arrived] == REJECTED,
        columns["arrival_ns"][arrived],
        np.where(admitted >= 0, admitted, given_up),
    )
    return left


def saturation_warning(columns: Columns, now_ns: int, max_concurrency: int | None) -> str | None:
    """Word :func:`find_saturation`; a closed loop limits itself and is never saturated."""
    if max_concurrency is not None:
        return None
    return word_saturation(find_saturation(columns, now_ns))


def word_saturation(found: Saturation | None) -> str | None:
    """Say that the load is more than the engines serve."""
    if found is None:
        return None
    started = (
        f"only {found.sustained_rate:.4g} requests/s were started"
        if found.sustained_rate
        else "none was started in the second half of the arrivals"
    )
    return (
        f"saturated: {found.offered_rate:.4g} requests/s arrived but {started}, so the queue "
        f"grew from {found.depth_middle:,.0f} to {found.depth_end:,.0f} requests and latencies "
        "depend on how long the load lasts; lower the request rate, add engines "
        "(--data-parallel-size) or limit the load with --max-concurrency"
    )


def preemption_warning(columns: Columns) -> str | None:
    """Warn when preemption touches a substantial share of the requests."""
    completed = columns["status"] == COMPLETED
    n_completed = int(completed.sum())
    preempted = int((columns["preemptions"][completed] > 0).sum())
    return word_preemptions(n_completed, preempted, int(columns["preemptions"].sum()))


def word_preemptions(n_completed: int, preempted: int, times: int) -> str | None:
    """Warn where many of the completed requests were preempted."""
    if not n_completed or preempted / n_completed < PREEMPTION_SHARE:
        return None
    return (
        f"{preempted} of {n_completed} completed requests ({preempted / n_completed:.0%}) were "
        f"preempted, {times} times in all, because the KV cache was full; lower max_num_seqs or "
        "give more KV cache (more accelerators, kv_cache_dtype=fp8, gpu_memory_utilization)"
    )


def rejection_warning(
    columns: Columns,
    requested_output: NDArray[Any],
    *,
    max_model_len: int,
    queue_tokens: int | None = None,
) -> str | None:
    """Count the rejected requests by reason (docs/spec.md, rules 2.3 and 13.4).

    ``queue_tokens`` is what a cache holds where queues are bounded (None: they are not): requests
    that fit it were rejected by a full queue.
    """
    counts = count_rejections(
        columns, requested_output, max_model_len=max_model_len, queue_tokens=queue_tokens
    )
    return word_rejections(counts, len(columns["status"]), max_model_len=max_model_len)


REASONS = 4
"""Why a request is rejected, as :func:`word_rejections` lists it."""


def count_rejections(
    columns: Columns,
    requested_output: NDArray[Any],
    *,
    max_model_len: int,
    queue_tokens: int | None = None,
) -> tuple[int, ...]:
    """Rejected requests by reason."""
    rejected = columns["status"] == REJECTED
    if not rejected.any():
        return (0,) * REASONS
    prompt, output = columns["prompt_tokens"][rejected], requested_output[rejected]
    empty = (prompt == 0) | (output == 0)
    too_long = ~empty & (prompt >= max_model_len)
    sound = ~empty & ~too_long
    peak = prompt + np.minimum(output, max_model_len - prompt) - 1
    queued_out = sound & (False if queue_tokens is None else peak <= queue_tokens)
    reasons = (empty, too_long, sound & ~queued_out, queued_out)
    return tuple(int(np.count_nonzero(reason)) for reason in reasons)


def word_rejections(counts: Sequence[int], n_requests: int, *, max_model_len: int) -> str | None:
    """List why requests were rejected."""
    if not any(counts):
        return None
    reasons = (
        "without prompt or output tokens",
        f"with a prompt of max_model_len={max_model_len} tokens or more",
        "larger than the whole KV cache of an engine",
        "that found the queue of their engine full (--max-queue)",
    )
    parts = ", ".join(
        f"{count} {reason}" for count, reason in zip(counts, reasons, strict=True) if count
    )
    return f"{sum(counts)} of {n_requests} requests were rejected and count as failed: {parts}"


def truncation_warning(
    columns: Columns, requested_output: NDArray[Any], *, max_model_len: int
) -> str | None:
    """Count outputs that ended at ``max_model_len`` instead of their own length."""
    return word_truncations(count_truncations(columns, requested_output), max_model_len)


def count_truncations(columns: Columns, requested_output: NDArray[Any]) -> int:
    """Outputs that are shorter than asked for."""
    cut = (columns["status"] == COMPLETED) & (columns["output_tokens"] < requested_output)
    return int(cut.sum())


def word_truncations(cut: int, max_model_len: int) -> str | None:
    """Say that outputs ended early."""
    if not cut:
        return None
    requests = "request" if cut == 1 else "requests"
    return (
        f"{cut} {requests} stopped at max_model_len={max_model_len} before the full output, as in "
        "vLLM; raise max_model_len to generate it whole"
    )
