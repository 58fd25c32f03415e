"""What no cluster can do, from capacity and prices of steps alone, before anything is simulated.

Every step costs at least what its tokens cost in the projections (attention, sampling and waiting
left out, weights shared by as many tokens as a step can have), and decoding at least reads its
keys and values. A cluster whose engines cannot do that work by the last moment that the objectives
allow, for as many requests as must meet them, cannot meet them; nor can one whose shortest step
breaks a limit. Requests with shared prefixes may find their prompts cached: theirs count nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator._core import CostModel, OperationCost, StepShape
from llm_inference_simulator.pools import ResolvedPool
from llm_inference_simulator.workload import Workload

SAFETY = 0.97
"""Costs are looked up at some sizes of steps; between them a token might cost a little less."""

_OUTSIDE = ("attention", "lm_head", "logits", "sampl", "kv_cache")
"""Parts of a step that do not grow with its tokens, or that requests share unevenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFloor:
    """The least that an engine takes."""

    seconds_per_token: float
    """Of its slowest stage, in steps as large as it may make."""
    decode_seconds_per_token: float
    """The same in steps of decoding alone, which hold ``max_num_seqs`` tokens at most."""
    seconds_per_key: float
    """Of a key that a decoding token reads."""
    first_token_s: Mapping[int, float]
    """Of a step that computes a prompt of so many tokens alone, through all stages."""
    decode_step_s: float
    """Of a step of one request with the shortest context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What the requests that must meet the objectives ask for at least, and by when."""

    prompt_tokens: float
    decode_tokens: float
    keys: float
    """Read by decoding tokens, all together."""
    prefill_s: float
    """From the first arrival to the last moment at which a first token is in time."""
    total_s: float
    """The same for the last token; infinite where only first tokens have a limit."""
    shortest_prompt: int
    """Tokens of a prompt that is exceeded by more requests than may miss; 0: none is certain."""
    shortest_context: int
    must_decode: bool
    """Whether more requests than may miss have a time per output token."""


def demand_of(workload: Workload, objectives_ms: Mapping[str, float], attainment: float) -> Demand:
    """Sum up what at least a share ``attainment`` of the requests asks for."""
    prompts, outputs = workload.prompt_tokens, np.maximum(workload.output_tokens, 1)
    must = math.ceil(attainment * len(prompts) - 1e-9)
    may_miss = len(prompts) - must
    cached = workload.segments is not None
    # The prompt's keys and those of the tokens before, for each token after the first.
    later = outputs - 1
    keys = later * prompts + later * (later + 1) / 2
    ttft, tpot, e2el = (
        objectives_ms.get(name, math.inf) / 1e3 for name in ("ttft", "tpot", "e2el")
    )
    arrival = (workload.arrival_ns - workload.arrival_ns[0]) / 1e9
    # Without a limit for tokens after the first, there is none where there are such tokens.
    following = np.multiply(tpot, later, out=np.zeros(len(later)), where=later > 0)
    whole = np.minimum(e2el, ttft + following)
    by_length = np.sort(prompts)
    # Requests of a session are sent when the answer before them has come: no moment is the last.
    open_load = workload.after is None and workload.max_concurrency is None
    return Demand(
        prompt_tokens=0.0 if cached else _least_sum(prompts, must),
        decode_tokens=_least_sum(later, must),
        keys=_least_sum(keys, must),
        prefill_s=float((arrival + min(ttft, e2el)).max()) if open_load else math.inf,
        total_s=float((arrival + whole).max()) if open_load else math.inf,
        shortest_prompt=0 if cached or not must else int(by_length[must - 1]),
        shortest_context=int(by_length[0]) + 1,
        must_decode=int((later > 0).sum()) > may_miss,
    )


def _least_sum(values: NDArray[np.float64] | NDArray[np.int64], count: int) -> float:
    """Sum of the ``count`` smallest."""
    return float(np.sort(values)[:count].sum())


def engine_floor(pool: ResolvedPool, demand: Demand) -> EngineFloor:
    """Look the least costs up in the cost models of an engine's stages."""
    settings = pool.core.settings
    stages = pool.core.cost_models
    budget = settings.max_num_batched_tokens
    seqs = min(settings.max_num_seqs, budget)
    mixed = [(StepShape.prefill(1, size), size) for size in _sizes(budget)]
    decode = [(StepShape.decode(size, 1), size) for size in _sizes(seqs)]
    prompt = min(demand.shortest_prompt, budget)
    return EngineFloor(
        seconds_per_token=max(_per_token(stage, [*mixed, *decode]) for stage in stages),
        decode_seconds_per_token=max(_per_token(stage, decode) for stage in stages),
        seconds_per_key=max(_per_key(stage, seqs) for stage in stages),
        first_token_s={
            demand.shortest_prompt: SAFETY
            * sum(stage.step_seconds(StepShape.prefill(1, prompt)) for stage in stages)
            if prompt
            else 0.0
        },
        decode_step_s=SAFETY
        * sum(stage.step_seconds(StepShape.decode(1, demand.shortest_context)) for stage in stages),
    )


def _sizes(largest: int) -> list[int]:
    """From 1 to ``largest``, three to each doubling."""
    steps = range(3 * max(largest, 1).bit_length() + 1)
    return sorted({min(largest, round(2 ** (step / 3))) for step in steps} | {largest})


def _per_token(stage: CostModel, steps: Sequence[tuple[StepShape, int]]) -> float:
    return SAFETY * min(
        sum(part.seconds for part in stage.breakdown(step) if _counts(part)) / size
        for step, size in steps
    )


def _counts(part: OperationCost) -> bool:
    return not any(word in part.name for word in _OUTSIDE)


def _per_key(stage: CostModel, seqs: int) -> float:
    """Least seconds of decoding attention for a key, over batches and contexts."""
    found = math.inf
    for size in {1, max(1, seqs // 4), seqs}:
        for context in (1024, 8192, 65536):
            parts = stage.breakdown(StepShape.decode(size, context))
            seconds = sum(part.seconds for part in parts if "attention" in part.name)
            found = min(found, seconds / (size * context))
    return SAFETY * found


def too_slow(
    floors: Sequence[EngineFloor], demand: Demand, objectives_ms: Mapping[str, float]
) -> str | None:
    """Why no number of engines meets the objectives, or None. The first engine computes prompts."""
    prefill, decode = floors[0], floors[-1]
    ttft, tpot = objectives_ms.get("ttft"), objectives_ms.get("tpot")
    first_ms = 1e3 * prefill.first_token_s[demand.shortest_prompt]
    if ttft is not None and first_ms > ttft:
        return (
            f"a prompt of {demand.shortest_prompt:,} tokens alone takes {first_ms:,.0f} ms, and "
            f"more requests than may miss are as long: ttft {ttft:g} ms is out of reach"
        )
    step_ms = 1e3 * decode.decode_step_s
    if tpot is not None and demand.must_decode and step_ms > tpot:
        return f"a step of one request takes {step_ms:,.1f} ms: tpot {tpot:g} ms is out of reach"
    return None


def least_engines(floors: Sequence[EngineFloor], demand: Demand) -> tuple[int, ...]:
    """Engines of each layout below which the work cannot be done in time."""
    if len(floors) == 1:
        floor = floors[0]
        prompts = floor.seconds_per_token * demand.prompt_tokens / demand.prefill_s
        whole = _work(floor.seconds_per_token, floor, demand) + (
            floor.seconds_per_token * demand.prompt_tokens
        )
        return (_engines(max(prompts, whole / demand.total_s)),)
    prefill, decode = floors
    return (
        _engines(prefill.seconds_per_token * demand.prompt_tokens / demand.prefill_s),
        _engines(_work(decode.decode_seconds_per_token, decode, demand) / demand.total_s),
    )


def _work(seconds_per_token: float, floor: EngineFloor, demand: Demand) -> float:
    """Seconds of decoding, at least."""
    return seconds_per_token * demand.decode_tokens + floor.seconds_per_key * demand.keys


def _engines(load: float) -> int:
    return max(1, math.ceil(load - 1e-9))
