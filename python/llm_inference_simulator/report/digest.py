"""Condenses a run into what the page's charts show: a few tens of kilobytes for any run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.metrics import COMPLETED, NS_PER_MS, NS_PER_S
from llm_inference_simulator.report.phases import request_phases
from llm_inference_simulator.report.saved import DIGEST_VERSION
from llm_inference_simulator.report.steps import StepBreakdown

if TYPE_CHECKING:
    from llm_inference_simulator.results import PoolSetup, SimulationResult

TIME_BINS = 300
"""Bins of the run: about one to three pixels on a screen."""
BINS_PER_DECADE = 200
"""Of the histograms: 1.2 % wide, so that the page can join them to what it has room for."""
SLOWEST = 30
"""Requests of the waterfall."""
DISTRIBUTIONS = ("ttft", "tpot", "e2el")

QUANTILES = np.unique(
    np.round(np.concatenate([np.linspace(0, 1, 201), np.linspace(0.99, 1, 21)]), 6)
)

SECONDS = 1 / NS_PER_S


def make_digest(result: SimulationResult) -> dict[str, Any]:
    """Condense ``result``, whose steps were recorded, to plain data for a ``saved.Digest``.

    Raises :class:`ConfigError` where they were not.
    """
    if result.steps is None:
        raise ConfigError("a report needs the run's steps: run simulate(..., record_steps=True)")
    return {
        "version": DIGEST_VERSION,
        "distributions": _distributions(result),
        "over_time": _over_time(result, result.steps),
        "components": _components(result, StepBreakdown(result, result.steps)),
        "slowest": _slowest(result),
    }


def _distributions(result: SimulationResult) -> dict[str, Any]:
    done = result.window.counted & (result.requests["status"] == COMPLETED)
    found = {}
    for metric in DISTRIBUTIONS:
        values = result.requests[f"{metric}_ns"][done]
        values = values[values >= 0] / NS_PER_MS
        if len(values):
            found[metric] = _distribution(values)
    return found


def _distribution(values_ms: NDArray[np.float64]) -> dict[str, Any]:
    # A latency of 0 (a one-token answer without any delay) goes into the bin of a nanosecond.
    logarithms = np.log10(np.maximum(values_ms, 1 / NS_PER_MS))
    bins = np.floor(logarithms * BINS_PER_DECADE).astype(np.int64)
    first = int(bins.min())
    return {
        "quantiles": QUANTILES.tolist(),
        "values_ms": _rounded(np.quantile(values_ms, QUANTILES)),
        "first_bin": first,
        "counts": np.bincount(bins - first).tolist(),
    }


def _over_time(result: SimulationResult, steps: dict[str, NDArray[Any]]) -> dict[str, Any]:
    last_ns = int(steps["end_ns"].max()) if len(steps["end_ns"]) else 0
    end_s = max(result.now_ns, last_ns, 1) * SECONDS
    edges = np.linspace(0.0, end_s, TIME_BINS + 1)
    pools, first = [], 0
    for pool in result.setup.pools:
        engines = range(first, first + pool.n_engines)
        pools.append(_pool_over_time(pool, engines, steps, edges))
        first += pool.n_engines
    return {"bin_s": end_s / TIME_BINS, "pools": pools}


def _pool_over_time(
    pool: PoolSetup, engines: range, steps: dict[str, NDArray[Any]], edges: NDArray[np.float64]
) -> dict[str, Any]:
    """Sums over the pool's engines; of shares the mean."""
    sums = {name: np.zeros(TIME_BINS) for name in (*_STATES, "kv_share")}
    blocks = pool.capacity.num_gpu_blocks - 1
    for engine in engines:
        rows = np.flatnonzero(steps["engine"] == engine)
        if not len(rows):
            continue
        start, end = (steps[name][rows] * SECONDS for name in ("start_ns", "end_ns"))
        # A state holds until the next step's; an engine without work in flight runs nothing.
        until = np.append(start[1:], max(end[-1], edges[-1]))
        in_flight = np.minimum(end, until)
        used = blocks - steps["free_blocks"][rows]
        sums["waiting"] += _binned(start, until, steps["waiting"][rows] * (until - start), edges)
        sums["running"] += _binned(
            start, in_flight, steps["running"][rows] * (in_flight - start), edges
        )
        sums["kv_share"] += _binned(start, in_flight, used * (in_flight - start), edges)
        sums["busy_share"] += _binned(start, in_flight, in_flight - start, edges)
        sums["prefill_tokens_per_s"] += _binned(start, end, steps["prefill_tokens"][rows], edges)
        sums["decode_tokens_per_s"] += _binned(start, end, steps["decode_seqs"][rows], edges)
    width = edges[1] - edges[0]
    # Without a step an aggregated engine holds nothing. The blocks of others wait for transfers, so
    # that only their steps say how many there are.
    known = (
        sums["busy_share"]
        if pool.role != "aggregated"
        else np.full(TIME_BINS, width * len(engines))
    )
    shares = np.divide(
        sums["kv_share"],
        known * max(blocks, 1),
        out=np.full(TIME_BINS, -1.0),
        where=known > 1e-9 * width,
    )
    sums["busy_share"] /= len(engines)
    return {
        "name": pool.name,
        "kv_share": [None if share < 0 else _round(share) for share in shares.tolist()],
        **{name: _rounded(sums[name] / width) for name in _STATES},
    }


_STATES = (
    "waiting",
    "running",
    "busy_share",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
)


def _binned(
    start: NDArray[Any], end: NDArray[Any], amounts: NDArray[Any], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spread each amount evenly over its time and sum what falls between each two ``edges``.

    A ramp from 0 at its start to the amount at its end is the difference of two rays, so sorted
    sums of slopes give the total at every edge without a loop over amounts.
    """
    lasting = end > start
    slopes = amounts[lasting] / (end - start)[lasting]
    total = _rays(start[lasting], slopes, edges) - _rays(end[lasting], slopes, edges)
    # Differences of large sums leave dust.
    return np.maximum(np.diff(total), 0.0)


def _rays(
    origin: NDArray[np.float64], slopes: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum of slope · (at - origin) over the rays that began before each ``at``."""
    order = np.argsort(origin, kind="stable")
    slope_sums = np.concatenate([[0.0], np.cumsum(slopes[order])])
    moments = np.concatenate([[0.0], np.cumsum((slopes * origin)[order])])
    begun = np.searchsorted(origin[order], at)
    rays: NDArray[np.float64] = slope_sums[begun] * at - moments[begun]
    return rays


def _components(result: SimulationResult, breakdown: StepBreakdown) -> list[dict[str, Any]]:
    found = []
    pool_of_steps = breakdown.pool_of_steps()
    for index, pool in enumerate(result.setup.pools):
        steps = int((pool_of_steps == index).sum())
        if not steps or not breakdown.knows(index):
            continue
        by_bound, by_provenance, sampled = breakdown.shares(index)
        found.append(
            {
                "pool": pool.name,
                "steps": steps,
                "sampled_steps": sampled,
                "components": [
                    {"name": name, "bound": bound, "share": _round(share)}
                    for (name, bound), share in by_bound.items()
                ],
                "provenance": {name: _round(share) for name, share in by_provenance.items()},
            }
        )
    return found


def _slowest(result: SimulationResult) -> list[dict[str, Any]]:
    requests = result.requests
    done = np.flatnonzero(result.window.counted & (requests["status"] == COMPLETED))
    rows = done[np.argsort(-requests["e2el_ns"][done], kind="stable")][:SLOWEST]
    phases = request_phases(requests, rows)
    return [
        {
            "request": row,
            "arrival_s": _round(int(requests["arrival_ns"][row]) * SECONDS),
            **{
                f"{name}_ms": int(phases[name][1][place] - phases[name][0][place]) / NS_PER_MS
                for name in phases
            },
            **{
                name: int(requests[name][row])
                for name in (
                    "prompt_tokens",
                    "output_tokens",
                    "cached_tokens",
                    "preemptions",
                    "engine",
                )
            },
        }
        for place, row in enumerate(rows.tolist())
    ]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [_round(value) for value in values.tolist()]


def _round(value: float, digits: int = 6) -> float:
    """Round to significant digits: more than a chart shows, fewer than a float prints."""
    if value == 0 or not math.isfinite(value):
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
