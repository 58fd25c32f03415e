"""The answer of a result: a sentence, the key figures, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence

from llm_inference_simulator.report import numbers
from llm_inference_simulator.report.page import Answer, Figure
from llm_inference_simulator.report.saved import NamedResult, Pool, SavedResult

NO_DIGEST = (
    "No digest of the run in {names}: charts of latencies, time, components and slow requests are "
    "missing. Run again with --report FILE.html, or with --save-digest beside --output, and the "
    "saved result brings them."
)


MOST_POOLS = 3
"""Pools that a title spells out."""


def title_of(named: Sequence[NamedResult]) -> str:
    """What ran, or how many runs are compared."""
    if len(named) == 1:
        return _what(named[0].result)
    return f"{len(named)} simulations compared"


def cluster(pools: Sequence[Pool]) -> str:
    """What the pools are made of: ``2 engines x TP 4 = 8 x h100-sxm``."""
    if len(pools) > MOST_POOLS:
        xpus = ", ".join(dict.fromkeys(pool.xpu for pool in pools))
        return f"{sum(pool.n_xpus for pool in pools)} accelerators in {len(pools)} pools ({xpus})"
    parts = []
    for pool in pools:
        size = f"{pool.n_xpus} x {pool.xpu}"
        if pool.n_xpus > 1:
            engines = "engine" if pool.n_engines == 1 else "engines"
            layout = f"{pool.n_engines} {engines} x TP {pool.tensor_parallel_size}"
            if pool.pipeline_parallel_size > 1:
                layout += f" x PP {pool.pipeline_parallel_size}"
            size = f"{layout} = {size}"
        own = pool.role in ("aggregated", pool.name)
        name = pool.name if own else f"{pool.name} ({pool.role})"
        parts.append(size if len(pools) == 1 else f"{name}: {size}")
    return ", ".join(parts)


def answer_of(each: NamedResult, *, several: bool) -> Answer:
    """The sentence and the figures of one result; of ``several`` the sentence under its name.

    The figures of several stand side by side in a table instead.
    """
    result = each.result
    if several:
        return Answer(subject=each.name, sentence=_sentence(result, f"{_what(result)} "))
    figures = [
        Figure(name="Requests", value=numbers.real(result.request_throughput), unit="/s"),
        Figure(name="Output tokens", value=numbers.whole(result.output_throughput), unit="/s"),
        *(_latency_figure(result, metric) for metric in ("ttft", "tpot", "e2el")),
    ]
    if result.slo_attainment is not None:
        figures.append(
            Figure(
                name="Attainment",
                value=numbers.percent(result.slo_attainment),
                note=f"{numbers.real(result.request_goodput)} good requests/s",
            )
        )
    figures.append(
        Figure(
            name="Engines busy",
            value=numbers.percent(result.utilisation.engine_busy_share),
            note=_bound_by(result),
        )
    )
    if result.per_million_output_tokens_usd is not None:
        figures.append(
            Figure(
                name="Cost",
                value=numbers.real(result.per_million_output_tokens_usd),
                unit="USD",
                note="per million output tokens",
            )
        )
    return Answer(sentence=_sentence(result, ""), figures=figures)


def _what(result: SavedResult) -> str:
    return f"{result.model_id} on {cluster(result.pools)}"


def _sentence(result: SavedResult, subject: str) -> str:
    """What came out, in words; ``subject`` opens the sentence where the title does not say it."""
    if not result.completed:
        return _opened(subject, "completed no counted request.")
    tail = result.tail
    latencies = [
        f"{tail} {name} {numbers.duration(value)}"
        for name, metric in (("TTFT", "ttft"), ("TPOT", "tpot"), ("E2E", "e2el"))
        if (value := result.latencies.get(f"{tail}_{metric}_ms")) is not None
    ]
    text = (
        f"served {numbers.real(result.request_throughput)} requests/s "
        f"({numbers.real(result.output_throughput, 0)} output tokens/s)"
    )
    if latencies:
        text += f" with {_listed(latencies)}"
    if result.slo_attainment is not None:
        text += f"; {numbers.percent(result.slo_attainment)} of the requests met their objectives"
    if result.failed:
        text += f"; {numbers.count(result.failed)} requests failed"
    if not result.complete:
        text += "; the run was interrupted"
    return _opened(subject, text + ".")


def _opened(subject: str, text: str) -> str:
    return subject + text if subject else text[0].upper() + text[1:]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _latency_figure(result: SavedResult, metric: str) -> Figure:
    tail = result.tail
    value = result.latencies.get(f"{tail}_{metric}_ms")
    median = result.latencies.get(f"median_{metric}_ms")
    name = {"ttft": "TTFT", "tpot": "TPOT", "e2el": "E2E"}[metric]
    shown, _, unit = numbers.duration(value).partition(numbers.SPACE)
    return Figure(
        name=f"{name} {tail}", value=shown, unit=unit, note=f"median {numbers.duration(median)}"
    )


def _bound_by(result: SavedResult) -> str:
    """What most of the busy time of all pools is bound by, where it is known."""
    if result.report_digest is None:
        return ""
    shares: dict[str, float] = {}
    weight = {pool.name: pool.n_engines * (pool.busy_share or 0.0) for pool in result.pools}
    for pool in result.report_digest.components:
        for component in pool.components:
            share = component.share * weight.get(pool.pool, 0.0)
            shares[component.bound] = shares.get(component.bound, 0.0) + share
    total = sum(shares.values())
    if not total:
        return ""
    bound = max(shares, key=shares.__getitem__)
    return f"{shares[bound] / total:.0%} of it bound by {bound}"


def warnings_of(named: Sequence[NamedResult]) -> list[str]:
    """Warnings of all results, and what their files lack."""
    several = len(named) > 1
    found = [
        f"{each.name}: {warning}" if several else warning
        for each in named
        for warning in each.result.warnings
    ]
    bare = [each.name for each in named if each.result.report_digest is None]
    if bare:
        found.append(NO_DIGEST.format(names=_listed(bare)))
    return found
