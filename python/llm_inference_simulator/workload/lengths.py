"""How long prompts and outputs are, where no trace says so."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.columns import MAX_TOKENS, Int64Array

INPUT_SIGMA = 0.99
OUTPUT_SIGMA = 0.86
"""Spread of log-normal lengths: the standard deviation of the logarithm of prompt and of output
lengths in the Azure 2023 conversation trace (shipped as azure-conv-2023)."""


def uniform_lengths(
    rng: np.random.Generator, n: int, mean: int, range_ratio: float, *, least: int, field: str
) -> Int64Array:
    """Draw whole lengths uniformly from [floor(mean * (1 - r)), ceil(mean * (1 + r))].

    The rule of vLLM's random dataset (vllm/benchmarks/datasets/random.py). ``least`` raises the
    lower end, as vLLM does to 1 for outputs. Ratio 0 gives ``mean`` for every request.
    """
    low = max(math.floor(mean * (1 - range_ratio)), least)
    high = max(math.ceil(mean * (1 + range_ratio)), least)
    if high > MAX_TOKENS:
        raise WorkloadError(f"{field}={mean} makes lengths beyond {MAX_TOKENS}: lower it")
    return rng.integers(low, high, size=n, dtype=np.int64, endpoint=True)


def log_normal_lengths(
    rng: np.random.Generator, n: int, mean: float, longest: int | None, sigma: float, *, field: str
) -> Int64Array:
    """Draw ``n`` lengths by :func:`log_normal_drawer`."""
    return log_normal_drawer(rng, mean, longest, sigma, field=field)(n)


def log_normal_drawer(
    rng: np.random.Generator, mean: float, longest: int | None, sigma: float, *, field: str
) -> Callable[[int], Int64Array]:
    """What draws the next so many log-normal lengths between 1 and ``longest``, of mean ``mean``.

    A value outside is moved to the nearer end, as a serving system's own limit does to an answer.
    That alone would shift the mean, so the median is chosen such that the mean *after* the cut is
    the one asked for. Fractions are rounded at random, up with the probability of the fraction,
    which keeps the mean too.
    """
    limit = MAX_TOKENS if longest is None else min(longest, MAX_TOKENS)
    if not 1 <= mean <= limit:
        raise WorkloadError(f"{field}={mean} is not between 1 and {limit} tokens: change it")
    if mean in (1, limit):
        return lambda n: np.full(n, int(mean), dtype=np.int64)
    # Two streams, so that a longer workload begins with the requests of a shorter one.
    fractions = rng.spawn(1)[0]
    mu = _median_log(mean, limit, sigma)

    def draw(n: int) -> Int64Array:
        normal, uniform = rng.standard_normal(n), fractions.random(n)
        values: NDArray[np.float64] = np.clip(np.exp(mu + sigma * normal), 1.0, float(limit))
        return np.minimum(np.floor(values + uniform), limit).astype(np.int64)

    return draw


def _median_log(mean: float, limit: int, sigma: float) -> float:
    """Find mu such that the mean of LogNormal(mu, sigma) clipped to [1, limit] is ``mean``."""
    low, high = -40 * sigma, math.log(limit) + 40 * sigma
    for _ in range(200):
        middle = (low + high) / 2
        if clipped_mean(middle, sigma, limit) < mean:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def clipped_mean(mu: float, sigma: float, limit: int) -> float:
    """Mean of exp(N(mu, sigma²)) clipped to [1, limit]: partial expectations of the log-normal."""
    lower, upper = -mu / sigma, (math.log(limit) - mu) / sigma
    inside = math.exp(mu + sigma**2 / 2) * (_phi(upper - sigma) - _phi(lower - sigma))
    return _phi(lower) + inside + limit * _phi(-upper)


def _phi(z: float) -> float:
    """Distribution function of the standard normal; exact in the lower tail."""
    return math.erfc(-z / math.sqrt(2)) / 2


def empirical_lengths(
    rng: np.random.Generator, n: int, prompts: Int64Array, outputs: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Draw ``n`` (prompt, output) pairs with replacement; a pair stays together."""
    picks = rng.integers(0, len(prompts), size=n)
    return prompts[picks], outputs[picks]
