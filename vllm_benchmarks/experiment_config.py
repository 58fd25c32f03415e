"""Which points a calibration measures: a full grid, or a sparse one that covers the same ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.sections import Count, Section
from vllm_benchmarks.schema import PlannedPoint

SPARSE_POINTS = 24


class ExperimentConfig(Section):
    """The plan of a sweep, within the limits of the engine."""

    max_num_seqs: Count
    max_num_batched_tokens: Count
    max_model_len: Count
    kv_cache_tokens: Count
    """Tokens that fit the engine's KV cache."""
    max_context: Count | None = None
    """Longest context to measure; None: half of max_model_len. Long ones cost their prefill."""
    sparse: bool = False
    sparse_points: Annotated[int, Field(ge=8, le=4096)] = SPARSE_POINTS
    sampling: Literal["sobol", "latin_hypercube"] = "sobol"
    repeats: Annotated[int, Field(ge=1, le=1000)] = 3
    decode_steps: Annotated[int, Field(ge=2, le=10_000)] = 12
    """Tokens that each request of a decode or mixed point generates."""
    seed: Annotated[int, Field(ge=0)] = 0

    def plan(self) -> list[PlannedPoint]:
        """The points, cheapest first, so that an early end leaves something to fit."""
        points = self._sparse() if self.sparse else self._full()
        inside = [point for point in dict.fromkeys(points) if self.fits(point)]
        return sorted(inside, key=_tokens)

    def fits(self, point: PlannedPoint) -> bool:
        """Whether the engine can run the point as it is meant, in one step where it is prefill."""
        longest = point.context_tokens + max(point.prompt_tokens, 0) + self.decode_steps
        cached = point.batch_size * (point.context_tokens + self.decode_steps + 1)
        if point.kind == "prefill":
            step = point.batch_size * point.prompt_tokens
            cached = point.batch_size * longest
        else:
            step = point.batch_size + point.prompt_tokens
            cached += point.prompt_tokens
        running = point.batch_size + (point.kind == "mixed")
        return (
            running <= self.max_num_seqs
            and step <= self.max_num_batched_tokens
            and longest <= self.max_model_len
            and cached <= self.kv_cache_tokens
        )

    def _full(self) -> list[PlannedPoint]:
        tokens = _octaves(16, self.max_num_batched_tokens)
        contexts = _octaves(64, self._longest, step=2)
        batches = _octaves(1, self.max_num_seqs)
        points = [_prefill(1, n) for n in tokens]
        points += [_prefill(batch, n) for batch in (2, 8) for n in tokens[::2]]
        points += [_prefill(1, tokens[-1], context) for context in contexts[1:]]
        points += [_decode(batch, context) for batch in batches for context in contexts]
        points += [
            _mixed(batch, context, n)
            for batch in batches[2::2]
            for context in contexts[:2]
            for n in tokens[2::2]
        ]
        return points

    def _sparse(self) -> list[PlannedPoint]:
        """Corners, which tell a parameter each, and a low-discrepancy sample in log space."""
        most, seqs = self.max_num_batched_tokens, self.max_num_seqs
        longest = self._longest
        points = [_prefill(1, n) for n in (16, 64, 256, most)]
        points += [_prefill(1, min(most, longest), longest // 2)]
        points += [_decode(batch, c) for batch in (1, 4, max(1, seqs // 2)) for c in (64, longest)]
        points += [_decode(max(1, seqs // 2), 64), _decode(seqs, 64)]
        for kind, tokens, batch, context in self._sample():
            if kind < 0.4:
                points.append(_prefill(1, _log_scale(tokens, 16, most)))
            elif kind < 0.8:
                points.append(_decode(_log_scale(batch, 1, seqs), _log_scale(context, 64, longest)))
            else:
                points.append(
                    _mixed(
                        _log_scale(batch, 1, max(1, seqs // 2)),
                        _log_scale(context, 64, longest),
                        _log_scale(tokens, 16, most),
                    )
                )
        return points

    @property
    def _longest(self) -> int:
        return max(64, self.max_context or self.max_model_len // 2)

    def _sample(self) -> list[list[float]]:
        """Rows of four numbers from 0 to 1."""
        try:
            from scipy.stats import qmc
        except ModuleNotFoundError:
            raise CalibrationError(
                "a sparse plan needs SciPy: install it with pip install "
                "'llm-inference-simulator[calibration]', or leave out --sparse"
            ) from None
        if self.sampling == "latin_hypercube":
            sample = qmc.LatinHypercube(d=4, seed=self.seed).random(self.sparse_points)
        else:
            # Sobol points are balanced in powers of two: draw enough and keep the first.
            power = math.ceil(math.log2(self.sparse_points))
            sample = qmc.Sobol(d=4, seed=self.seed).random_base2(power)[: self.sparse_points]
        rows: list[list[float]] = sample.tolist()
        return rows


def expected_seconds(
    plan: list[PlannedPoint],
    config: ExperimentConfig,
    prefill_s: Callable[[int, int], float],
    decode_s: Callable[[int, int], float],
) -> float:
    """Seconds that a plan takes, from the times of a performance model.

    ``prefill_s(batch, tokens)`` and ``decode_s(batch, context)`` are seconds of a step.
    """
    total = 0.0
    for point in plan:
        fill = prefill_s(point.batch_size, max(1, point.context_tokens + point.prompt_tokens))
        steps = 0 if point.kind == "prefill" else config.decode_steps
        total += fill + steps * decode_s(point.batch_size, max(1, point.context_tokens))
    return total * config.repeats


def _prefill(batch: int, tokens: int, context: int = 0) -> PlannedPoint:
    return PlannedPoint(
        kind="prefill", batch_size=batch, prompt_tokens=tokens, context_tokens=context
    )


def _decode(batch: int, context: int) -> PlannedPoint:
    return PlannedPoint(kind="decode", batch_size=batch, context_tokens=context)


def _mixed(batch: int, context: int, tokens: int) -> PlannedPoint:
    return PlannedPoint(
        kind="mixed", batch_size=batch, context_tokens=context, prompt_tokens=tokens
    )


def _octaves(low: int, high: int, step: int = 1) -> list[int]:
    """Powers of two from ``low`` up to ``high``, and ``high`` itself."""
    values = []
    value = low
    while value < high:
        values.append(value)
        value *= 2**step
    return [*values, max(low, high)]


def _log_scale(share: float, low: int, high: int) -> int:
    return round(low * math.pow(max(high, low) / low, share))


def _tokens(point: PlannedPoint) -> int:
    return point.batch_size * (point.context_tokens + point.prompt_tokens)
