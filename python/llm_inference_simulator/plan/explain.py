"""Why a candidate is the best: what binds it, and what each knob would change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm_inference_simulator._core import EngineStats, StepShape
from llm_inference_simulator.plan.candidates import Candidate, Family
from llm_inference_simulator.plan.judge import Judge, Trial
from llm_inference_simulator.pools import ResolvedPool
from llm_inference_simulator.results import SimulationResult
from llm_inference_simulator.simulation import simulate
from llm_inference_simulator.step_sums import STEP_SUMS

BOUNDS = {
    "compute": "compute",
    "memory": "memory bandwidth",
    "communication": "the link between accelerators",
    "latency": "kernel launches",
    "overhead": "the host",
}
FULL_KV_SHARE = 0.95
"""From which a cache counts as full."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A neighbour of the best candidate."""

    change: str
    trial: Trial


def what_binds(judge: Judge, best: Trial) -> list[str]:
    """Sentences: the nearest objective, then what an average step of each pool waits for."""
    assert best.judgement is not None
    judgement, limits = best.judgement, judge.request.objectives_ms
    name = judgement.binding
    lines = []
    if name is not None:
        lines.append(
            f"objective: {name} is the nearest to its limit, {judgement.closeness:.0%} of "
            f"{limits[name]:g} ms at {judge.request.attainment:.4g} of the requests"
        )
    result = simulate(judge.config(best.candidate, best.rate), inputs=judge.inputs)
    lines += _pool_lines(judge, result)
    transfer = result.summary().get("kv_transfer")
    if transfer is not None and transfer["p99_transfer_ms"] is not None:
        lines.append(
            f"link: a transfer of keys and values takes {transfer['p99_transfer_ms']:.1f} ms at p99"
        )
    return lines


def _pool_lines(judge: Judge, result: SimulationResult) -> Iterator[str]:
    pools = judge.inputs.pools(result.config)
    for pool in pools:
        engines = [
            engine
            for engine, setup in zip(result.engines, result.setup.pool_of_engine, strict=True)
            if setup.name == pool.setup.name
        ]
        busy = sum(engine.busy_ns for engine in engines)
        shares = _bound_shares(pool, engines)
        listed = ", ".join(f"{share:.0%} {BOUNDS.get(name, name)}" for name, share in shares)
        spent = busy / max(1, result.now_ns * len(engines))
        yield f"{pool.setup.name}: busy {spent:.0%} of the time; of an average step {listed}"
        blocks = max(1, pool.setup.capacity.num_gpu_blocks - 1)
        full = max(engine.peak_blocks for engine in engines) / blocks
        preempted = sum(engine.preemptions for engine in engines)
        if full >= FULL_KV_SHARE:
            yield (
                f"{pool.setup.name}: memory binds: the KV cache was {full:.0%} full at its peak, "
                f"{preempted:,} preemptions"
            )
        else:
            yield f"{pool.setup.name}: KV cache {full:.0%} full at its peak"


def _bound_shares(pool: ResolvedPool, engines: Sequence[EngineStats]) -> list[tuple[str, float]]:
    """Seconds of an average step by what bounds its components, the largest first."""
    steps = max(1, sum(engine.steps for engine in engines))
    totals = [engine.total for engine in engines]

    def mean(name: str) -> int:
        total: int = sum(getattr(each, name) for each in totals)
        return round(total / steps)

    step = StepShape(**{name: mean(name) for name in STEP_SUMS})
    seconds: dict[str, float] = {}
    for stage in pool.core.cost_models:
        for part in stage.breakdown(step):
            seconds[part.bound] = seconds.get(part.bound, 0.0) + part.seconds
    total = sum(seconds.values()) or 1.0
    shares = [(name, value / total) for name, value in seconds.items() if value / total >= 0.01]
    return sorted(shares, key=lambda pair: -pair[1])


def knobs(judge: Judge, best: Trial) -> list[Knob]:
    """Neighbours of the best candidate, simulated at its rate."""
    changes = list(_neighbours(judge, best.candidate))
    trials = judge.trials([(candidate, best.rate) for _, candidate in changes])
    return [Knob(change, trial) for (change, _), trial in zip(changes, trials, strict=True)]


def _neighbours(judge: Judge, best: Candidate) -> Iterator[tuple[str, Candidate]]:
    seen = {best}
    for change, candidate in (
        *_counts(best),
        *_widths(judge, best),
        *_settings(judge, best),
        *_other_modes(best),
        *_other_xpus(judge, best),
    ):
        if candidate not in seen:
            seen.add(candidate)
            yield change, candidate


def _counts(best: Candidate) -> Iterator[tuple[str, Candidate]]:
    for place, layout in enumerate(best.family.layouts):
        kind = "" if layout.role == "aggregated" else f"{layout.role} "
        for step, word in ((-1, "fewer"), (1, "more")):
            engines = list(best.engines)
            engines[place] += step
            if engines[place] >= 1:
                yield f"one {kind}engine {word}", replace(best, engines=tuple(engines))


def _widths(judge: Judge, best: Candidate) -> Iterator[tuple[str, Candidate]]:
    """The same accelerators in engines twice or half as wide."""
    for place, (layout, count) in enumerate(best.pools):
        kind = "" if layout.role == "aggregated" else f"{layout.role} "
        for size in judge.request.tensor_parallel_sizes:
            wider = replace(layout, tensor_parallel_size=size)
            engines, rest = divmod(count * layout.xpus, wider.xpus)
            near = size in (2 * layout.tensor_parallel_size, layout.tensor_parallel_size // 2)
            if near and engines and not rest:
                layouts, counts = list(best.family.layouts), list(best.engines)
                layouts[place], counts[place] = wider, engines
                family = replace(best.family, layouts=tuple(layouts))
                yield f"{kind}TP {size}, as many accelerators", family.candidate(counts)


def _settings(judge: Judge, best: Candidate) -> Iterator[tuple[str, Candidate]]:
    """Each engine setting that was searched, and three that often matter."""
    engine = judge.config(best, 1.0).engine_of(judge.config(best, 1.0).cluster.named_pools[-1])
    tried: dict[str, tuple[Any, ...]] = dict(judge.request.settings)
    tried.setdefault("max_num_seqs", (engine.max_num_seqs // 2 or 1, engine.max_num_seqs * 2))
    if engine.kv_cache_dtype == "auto":
        tried.setdefault("kv_cache_dtype", ("fp8",))
    for name, values in tried.items():
        for value in values:
            if value != getattr(engine, name):
                yield (
                    f"{name} {value}",
                    replace(best, family=_with_setting(best.family, name, value)),
                )


def _with_setting(family: Family, name: str, value: Any) -> Family:
    def changed(settings: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
        return tuple({**dict(settings), name: value}.items())

    layouts = tuple(replace(each, settings=changed(each.settings)) for each in family.layouts)
    return replace(family, layouts=layouts)


def _other_modes(best: Candidate) -> Iterator[tuple[str, Candidate]]:
    """The same accelerators the other way: aggregated, or divided by the prompts' share."""
    layout = best.family.layouts[-1]
    if best.family.mode == "disaggregated":
        family = replace(best.family, layouts=(replace(layout, role="aggregated"),))
        engines = best.n_xpus // layout.xpus
        if engines * layout.xpus == best.n_xpus:
            yield "aggregated, as many accelerators", family.candidate((engines,))
    elif best.engines[0] >= 2 and layout.pipeline_parallel_size == 1:
        pair = (replace(layout, role="prefill"), replace(layout, role="decode"))
        family = replace(best.family, layouts=pair)
        prefill = best.engines[0] // 2
        yield (
            "disaggregated, as many accelerators",
            family.candidate((prefill, best.engines[0] - prefill)),
        )


def _other_xpus(judge: Judge, best: Candidate) -> Iterator[tuple[str, Candidate]]:
    for xpu in judge.request.xpus:
        if xpu != best.family.xpu:
            yield f"as many {xpu}", replace(best, family=replace(best.family, xpu=xpu))
