"""When requests arrive, where no trace says so.

The process is that of ``vllm bench serve`` (``get_request`` in vllm/benchmarks/serve.py): gaps are
independent, Gamma(shape = burstiness, scale = 1 / (rate * burstiness)), so burstiness 1 is Poisson
and infinity is constant gaps; the first request arrives after one gap, not at time 0.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.rate_schedule import RateSchedule
from llm_inference_simulator.workload.columns import MAX_REQUESTS, MAX_TIME_NS, Int64Array

_NO_TIMES = np.empty(0, dtype=np.int64)

Pieces = Generator[Int64Array, None, int]
"""Arrivals piece after piece; what the generator returns is the length of the arrival period."""

PIECE = 1_000_000
"""Most arrivals that a piece has where they are drawn until a time has passed."""


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
    return joined(
        arrival_pieces(
            rng, rate=rate, burstiness=burstiness, num_prompts=num_prompts, duration_s=duration_s
        )
    )


def arrival_pieces(
    rng: np.random.Generator,
    *,
    rate: float | None,
    burstiness: float = 1.0,
    num_prompts: int | None = None,
    duration_s: float | None = None,
    most: int = MAX_REQUESTS,
    piece: int = MAX_REQUESTS,
) -> Pieces:
    """:func:`arrival_times` in pieces of at most ``piece`` (or :data:`PIECE`, if that is more).

    At most ``most`` requests are made.
    """
    if rate is None or math.isinf(rate):
        for size in sizes(_checked_count(num_prompts, most), piece):
            yield np.zeros(size, dtype=np.int64)
        return 0
    if duration_s is None:
        return (
            yield from _counted(rng, rate, burstiness, _checked_count(num_prompts, most), piece)
        )
    return (yield from _timed(rng, rate, burstiness, num_prompts, duration_s, most=most))


def joined(pieces: Pieces) -> tuple[Int64Array, int]:
    """All arrivals of ``pieces``, and the length of their period."""
    parts: list[Int64Array] = []
    while True:
        try:
            parts.append(next(pieces))
        except StopIteration as end:
            whole = parts[0] if len(parts) == 1 else np.concatenate([*parts, _NO_TIMES])
            return whole, end.value


def sizes(total: int, piece: int) -> Iterator[int]:
    """Sizes of the pieces of ``total``."""
    for start in range(0, total, piece):
        yield min(piece, total - start)


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
    return joined(staged_pieces(rng, stages, burstiness=burstiness, num_prompts=num_prompts))


def staged_pieces(
    rng: np.random.Generator,
    stages: Sequence[tuple[float, float]],
    *,
    burstiness: float = 1.0,
    num_prompts: int | None = None,
    most: int = MAX_REQUESTS,
) -> Pieces:
    """:func:`staged_arrival_times` in pieces of at most :data:`PIECE`."""
    _check_time(sum(seconds for _, seconds in stages), "rate_stages last")
    expected = sum(rate * seconds for rate, seconds in stages)
    if expected > most:
        raise WorkloadError(
            f"rate_stages make {expected:.3g} requests, more than {most:,}: lower a rate "
            "or shorten a stage"
        )
    start_s, last_ns = 0.0, 0
    left = None if num_prompts is None else _checked_count(num_prompts, most)
    for rate, seconds in stages:
        start_ns, end_ns = int(to_ns(start_s)), int(to_ns(start_s + seconds))
        if rate > 0 and left != 0:
            for times in _timed(rng, rate, burstiness, left, seconds, most=most):
                # The stage's end is rounded on the whole clock, not from the stage's start.
                arrivals = (start_ns + times)[start_ns + times < end_ns]
                left = None if left is None else left - len(arrivals)
                last_ns = int(arrivals[-1]) if len(arrivals) else last_ns
                yield arrivals
        start_s += seconds
    return last_ns if left == 0 else int(to_ns(start_s))


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
    return joined(
        scheduled_pieces(candidates, thinning, schedule, duration_s, num_prompts=num_prompts)
    )


def scheduled_pieces(
    candidates: np.random.Generator,
    thinning: np.random.Generator,
    schedule: RateSchedule,
    duration_s: float,
    *,
    num_prompts: int | None = None,
    most: int = MAX_REQUESTS,
) -> Pieces:
    """:func:`scheduled_arrival_times` in pieces of at most :data:`PIECE`."""
    highest = schedule.highest
    if highest * duration_s > most:
        raise WorkloadError(
            f"rate_schedule at its highest, {highest:g} requests/s, makes "
            f"{highest * duration_s:.3g} requests in {duration_s:g} s, more than "
            f"{most:,}: lower it or shorten duration"
        )
    left = num_prompts
    for times in _timed(candidates, highest, 1.0, None, duration_s, most=most):
        kept = thinning.random(len(times)) * highest < schedule.rates(times / 1e9)
        arrivals = times[kept]
        if left is not None and len(arrivals) >= left:
            yield arrivals[:left]
            return int(arrivals[left - 1])
        left = None if left is None else left - len(arrivals)
        yield arrivals
    return int(to_ns(duration_s))


def _counted(
    rng: np.random.Generator, rate: float, burstiness: float, n: int, piece: int
) -> Pieces:
    total_s = n / rate
    _check_time(total_s, f"num_prompts={n} at request_rate={rate} last")
    if math.isinf(burstiness):
        for start in range(0, n, piece):
            end = min(start + piece, n)
            yield to_ns(np.arange(start + 1, end + 1, dtype=np.float64) / rate)
        return int(to_ns(total_s))
    # The sum of all gaps comes first: where they are not held together they are drawn twice.
    first = rng if n <= piece else copy.deepcopy(rng)
    drawn_s = 0.0
    kept: list[NDArray[np.float64]] = []
    for times in _sums(first, rate, burstiness, n, piece):
        drawn_s = float(times[-1])
        kept = [times]
    if not 0 < drawn_s < math.inf:
        raise _undrawable(burstiness)
    last_ns = 0
    for times in kept if n <= piece else _sums(rng, rate, burstiness, n, piece):
        arrivals = to_ns(times * (total_s / drawn_s))
        last_ns = int(arrivals[-1])
        yield arrivals
    return last_ns


def _sums(
    rng: np.random.Generator, rate: float, burstiness: float, n: int, piece: int
) -> Iterator[NDArray[np.float64]]:
    """Running sums of ``n`` gaps, added in the same order whatever the pieces are."""
    sum_s = 0.0
    for size in sizes(n, piece):
        gaps = _gaps(rng, rate, burstiness, size)
        gaps[0] += sum_s
        times = np.cumsum(gaps)
        sum_s = float(times[-1])
        yield times


def _timed(
    rng: np.random.Generator,
    rate: float,
    burstiness: float,
    num_prompts: int | None,
    duration_s: float,
    *,
    most: int,
) -> Pieces:
    _check_time(duration_s, f"duration={duration_s} lasts")
    expected = rate * duration_s
    wanted = most if num_prompts is None else _checked_count(num_prompts, most)
    if num_prompts is None and expected > most:
        raise WorkloadError(
            f"request_rate={rate} over duration={duration_s} s makes {expected:.3g} requests, more "
            f"than {most:,}: lower one of them, or give num_prompts"
        )
    duration_ns = int(to_ns(duration_s))
    if math.isinf(burstiness):
        pieces = _constant(rate, min(wanted, math.ceil(expected) + 1))
    else:
        pieces = _drawn_until(rng, rate, burstiness, wanted, duration_s, most=most)
    count = last_ns = 0
    for arrivals in pieces:
        arrivals = arrivals[arrivals < duration_ns]  # noqa: PLW2901
        if len(arrivals):
            count, last_ns = count + len(arrivals), int(arrivals[-1])
            yield arrivals
    ended_by_count = num_prompts is not None and count == num_prompts
    return last_ns if ended_by_count else duration_ns


def _constant(rate: float, n: int) -> Iterator[Int64Array]:
    for start in range(0, n, PIECE):
        end = min(start + PIECE, n)
        yield to_ns(np.arange(start + 1, end + 1, dtype=np.float64) / rate)


def _drawn_until(
    rng: np.random.Generator,
    rate: float,
    burstiness: float,
    wanted: int,
    duration_s: float,
    *,
    most: int,
) -> Iterator[Int64Array]:
    """Draw gaps block by block until ``wanted`` requests or the duration are passed.

    The size of a block doesn't depend on ``wanted``, so a cap only cuts the sequence short.
    """
    block = int(min(max(rate * duration_s * 1.05, 256), PIECE))
    drawn, now_s = 0, 0.0
    while now_s < duration_s and drawn < wanted:
        times = now_s + np.cumsum(_gaps(rng, rate, burstiness, block))
        # Gaps that all underflow would never get anywhere.
        if drawn + block > most or not now_s < times[-1] < math.inf:
            raise _undrawable(burstiness)
        now_s = float(times[-1])
        times = times[: wanted - drawn]
        drawn += block
        yield to_ns(times[times < duration_s])


def _gaps(rng: np.random.Generator, rate: float, burstiness: float, n: int) -> NDArray[np.float64]:
    scale = 1.0 / (rate * burstiness)
    if not math.isfinite(scale):
        raise _undrawable(burstiness)
    return rng.gamma(burstiness, scale, n)


def to_ns(seconds: NDArray[np.float64] | float) -> Int64Array:
    """Turn seconds into nanoseconds, rounded half to even."""
    return np.rint(np.asarray(seconds, dtype=np.float64) * 1e9).astype(np.int64)


def _checked_count(num_prompts: int | None, most: int) -> int:
    if num_prompts is None or num_prompts < 1:
        raise WorkloadError("the number of requests is open: give num_prompts (at least 1)")
    if num_prompts > most:
        hint = ", or give --streaming" if most == MAX_REQUESTS else ""
        raise WorkloadError(f"num_prompts={num_prompts} exceeds {most:,}: lower it{hint}")
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
