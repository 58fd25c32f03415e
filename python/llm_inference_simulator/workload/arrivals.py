"""When requests arrive, where no trace says so.

The process is that of ``vllm bench serve`` (``get_request`` in vllm/benchmarks/serve.py): gaps are
independent, Gamma(shape = burstiness, scale = 1 / (rate * burstiness)), so burstiness 1 is Poisson
and infinity is constant gaps; the first request arrives after one gap, not at time 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.rate_schedule import RateSchedule
from llm_inference_simulator.workload.columns import MAX_REQUESTS, MAX_TIME_NS, Int64Array


def arrival_times(
    rng: np.random.Generator,
    *,
    rate: float | None,
    burstiness: float = 1.0,
    num_prompts: int | None = None,
    duration_s: float | None = None,
) -> tuple[Int64Array, int]:
    """Return (arrival_ns, duration_ns): sorted arrivals and the length of the arrival period.

    ``rate`` is in requests per second; infinite or None sends all ``num_prompts`` at time 0.

    - ``num_prompts`` alone: vLLM rescales the gaps so that the last request arrives at exactly
      num_prompts / rate, which takes the noise of the seed out of the offered load; so do we.
    - ``duration_s`` alone: the process is not rescaled, and all arrivals before the end count;
      their number is random unless the gaps are constant.
    - both: as with ``duration_s`` alone, but at most the first ``num_prompts``.

    Raises :class:`WorkloadError` where the result could not be held.
    """
    if rate is None or math.isinf(rate):
        n = _checked_count(num_prompts)
        return np.zeros(n, dtype=np.int64), 0
    if duration_s is None:
        return _counted(rng, rate, burstiness, _checked_count(num_prompts))
    return _timed(rng, rate, burstiness, num_prompts, duration_s)


def staged_arrival_times(
    rng: np.random.Generator,
    stages: Sequence[tuple[float, float]],
    *,
    burstiness: float = 1.0,
    num_prompts: int | None = None,
) -> tuple[Int64Array, int]:
    """:func:`arrival_times` of a load in stages of (requests per second, seconds).

    Each stage is the process of its rate, begun anew at the stage's start and ended with it, so the
    number of requests in a stage is random unless gaps are constant. A rate of 0 is a pause.
    ``num_prompts`` ends the load after so many requests. Raises :class:`WorkloadError`.
    """
    _check_time(sum(seconds for _, seconds in stages), "rate_stages last")
    expected = sum(rate * seconds for rate, seconds in stages)
    if expected > MAX_REQUESTS:
        raise WorkloadError(
            f"rate_stages make {expected:.3g} requests, more than {MAX_REQUESTS:,}: lower a rate "
            "or shorten a stage"
        )
    parts = [np.empty(0, dtype=np.int64)]
    start_s, left = 0.0, None if num_prompts is None else _checked_count(num_prompts)
    for rate, seconds in stages:
        start_ns, end_ns = int(to_ns(start_s)), int(to_ns(start_s + seconds))
        if rate > 0 and left != 0:
            times, _ = _timed(rng, rate, burstiness, left, seconds)
            # The stage's end is rounded on the whole clock, not from the stage's start.
            times = (start_ns + times)[start_ns + times < end_ns]
            parts.append(times)
            left = None if left is None else left - len(times)
        start_s += seconds
    arrivals = np.concatenate(parts)
    return arrivals, int(arrivals[-1]) if left == 0 else int(to_ns(start_s))


def scheduled_arrival_times(
    candidates: np.random.Generator,
    thinning: np.random.Generator,
    schedule: RateSchedule,
    duration_s: float,
    *,
    num_prompts: int | None = None,
) -> tuple[Int64Array, int]:
    """:func:`arrival_times` of a Poisson process whose rate changes with time.

    By thinning (Lewis and Shedler, 1979): arrivals of a Poisson process of the highest rate are
    kept with probability rate(t) / highest. ``num_prompts`` ends the load after so many requests.
    Raises :class:`WorkloadError`.
    """
    highest = schedule.highest
    if highest * duration_s > MAX_REQUESTS:
        raise WorkloadError(
            f"rate_schedule at its highest, {highest:g} requests/s, makes "
            f"{highest * duration_s:.3g} requests in {duration_s:g} s, more than "
            f"{MAX_REQUESTS:,}: lower it or shorten duration"
        )
    arrivals, duration_ns = _timed(candidates, highest, 1.0, None, duration_s)
    kept = thinning.random(len(arrivals)) * highest < schedule.rates(arrivals / 1e9)
    arrivals = arrivals[kept]
    if num_prompts is not None and len(arrivals) >= num_prompts:
        arrivals = arrivals[:num_prompts]
        return arrivals, int(arrivals[-1])
    return arrivals, duration_ns


def _counted(
    rng: np.random.Generator, rate: float, burstiness: float, n: int
) -> tuple[Int64Array, int]:
    total_s = n / rate
    _check_time(total_s, f"num_prompts={n} at request_rate={rate} last")
    if math.isinf(burstiness):
        return to_ns(np.arange(1, n + 1, dtype=np.float64) / rate), int(to_ns(total_s))
    times = np.cumsum(_gaps(rng, rate, burstiness, n))
    if not 0 < times[-1] < math.inf:
        raise _undrawable(burstiness)
    arrivals = to_ns(times * (total_s / times[-1]))
    return arrivals, int(arrivals[-1])


def _timed(
    rng: np.random.Generator,
    rate: float,
    burstiness: float,
    num_prompts: int | None,
    duration_s: float,
) -> tuple[Int64Array, int]:
    _check_time(duration_s, f"duration={duration_s} lasts")
    expected = rate * duration_s
    wanted = MAX_REQUESTS if num_prompts is None else _checked_count(num_prompts)
    if num_prompts is None and expected > MAX_REQUESTS:
        raise WorkloadError(
            f"request_rate={rate} over duration={duration_s} s makes {expected:.3g} requests, more "
            f"than {MAX_REQUESTS:,}: lower one of them, or give num_prompts"
        )
    duration_ns = int(to_ns(duration_s))
    if math.isinf(burstiness):
        n = min(wanted, math.ceil(expected) + 1)
        arrivals = to_ns(np.arange(1, n + 1, dtype=np.float64) / rate)
    else:
        arrivals = _drawn_until(rng, rate, burstiness, wanted, duration_s)
    arrivals = arrivals[arrivals < duration_ns]
    ended_by_count = num_prompts is not None and len(arrivals) == num_prompts
    return arrivals, int(arrivals[-1]) if ended_by_count else duration_ns


def _drawn_until(
    rng: np.random.Generator, rate: float, burstiness: float, wanted: int, duration_s: float
) -> Int64Array:
    """Draw gaps block by block until ``wanted`` requests or the duration are passed.

    The size of a block doesn't depend on ``wanted``, so a cap only cuts the sequence short.
    """
    block = int(min(max(rate * duration_s * 1.05, 256), 1_000_000))
    parts: list[NDArray[np.float64]] = []
    drawn, now_s = 0, 0.0
    while now_s < duration_s and drawn < wanted:
        times = now_s + np.cumsum(_gaps(rng, rate, burstiness, block))
        # Gaps that all underflow would never get anywhere.
        if drawn + block > MAX_REQUESTS or not now_s < times[-1] < math.inf:
            raise _undrawable(burstiness)
        parts.append(times)
        drawn += block
        now_s = float(times[-1])
    times = np.concatenate(parts)[:wanted]
    return to_ns(times[times < duration_s])


def _gaps(rng: np.random.Generator, rate: float, burstiness: float, n: int) -> NDArray[np.float64]:
    scale = 1.0 / (rate * burstiness)
    if not math.isfinite(scale):
        raise _undrawable(burstiness)
    return rng.gamma(burstiness, scale, n)


def to_ns(seconds: NDArray[np.float64] | float) -> Int64Array:
    """Turn seconds into nanoseconds, rounded half to even."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1e9).astype(np.int64)


def _checked_count(num_prompts: int | None) -> int:
    if num_prompts is None or num_prompts < 1:
        raise WorkloadError("the number of requests is open: give num_prompts (at least 1)")
    if num_prompts > MAX_REQUESTS:
        raise WorkloadError(f"num_prompts={num_prompts} exceeds {MAX_REQUESTS:,}: lower it")
    return num_prompts


def _check_time(seconds: float, what: str) -> None:
    if seconds * 1e9 > MAX_TIME_NS:
        raise WorkloadError(
            f"{what} {seconds:.3g} s, more than the clock holds ({MAX_TIME_NS / 1e9:.3g} s): "
            "raise request_rate or shorten the workload"
        )


def _undrawable(burstiness: float) -> WorkloadError:
    return WorkloadError(
        f"burstiness={burstiness} makes gaps that double precision cannot hold: use 0.01 to 1e6, "
        "or inf for constant gaps"
    )
