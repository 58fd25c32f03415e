"""Where busy time goes, by component and bound, and where the slowest requests spent theirs."""

from __future__ import annotations

from collections.abc import Sequence

from llm_inference_simulator.report import numbers
from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.page import Item, Table
from llm_inference_simulator.report.phases import PHASES
from llm_inference_simulator.report.saved import NamedDigest, PoolComponents, SlowRequest

BOUNDS = ("compute", "memory", "communication", "latency", "overhead")
PHASE_NAMES = {
    "queued": "Queued",
    "prefill": "Prefill",
    "handover": "Waiting for room in a decode engine",
    "transfer": "KV transfer",
    "decode": "Decode",
}


def component_items(digests: Sequence[NamedDigest]) -> list[Item]:
    """One chart for each pool whose performance model has components."""
    items: list[Item] = []
    for each in digests:
        for pool in each.digest.components:
            of = [each.name] if each.several else []
            if len(each.digest.over_time.pools) > 1:
                of.append(pool.pool)
            items.append(_components(f"components-{each.place}-{len(items)}", of, pool))
    return items


def _components(identity: str, of: Sequence[str], pool: PoolComponents) -> Chart:
    names = sorted(
        {component.name for component in pool.components},
        key=lambda name: -sum(c.share for c in pool.components if c.name == name),
    )
    shares = {(c.name, c.bound): c.share for c in pool.components}
    bounds = [bound for bound in BOUNDS if any(c.bound == bound for c in pool.components)]
    totals = {bound: sum(c.share for c in pool.components if c.bound == bound) for bound in bounds}
    bounded = ", ".join(f"{bound} {share:.0%}" for bound, share in totals.items())
    origins = ", ".join(
        f"{share:.0%} {name}"
        for name, share in sorted(pool.provenance.items(), key=lambda item: -item[1])
    )
    looked_at = (
        f"all {pool.steps:,} steps"
        if pool.sampled_steps == pool.steps
        else f"{pool.sampled_steps:,} of {pool.steps:,} steps, sampled by duration"
    )
    return Chart(
        identity=identity,
        title="Busy time by component and what bounds it" + (f": {' · '.join(of)}" if of else ""),
        caption=f"Bound by {bounded}. From {looked_at}. Where the times come from: {origins}.",
        x=Axis(low=0, format="percent"),
        y=Axis(categories=tuple(name.replace("_", " ") for name in names)),
        series=[
            Series(
                name=bound,
                y=[shares.get((name, bound), 0.0) for name in names],
                kind="bar",
                stack="components",
                color=bound,
            )
            for bound in bounds
        ],
        height=90 + 26 * len(names),
        wide=True,
        flip=True,
    )


def waterfall_items(digests: Sequence[NamedDigest]) -> list[Item]:
    """A waterfall and a table of each result's slowest requests."""
    items: list[Item] = []
    for each in digests:
        if slowest := each.digest.slowest:
            of = f": {each.name}" if each.several else ""
            items += [_waterfall(each.place, of, slowest), _slow_table(of, slowest)]
    return items


def _waterfall(place: int, of: str, slowest: Sequence[SlowRequest]) -> Chart:
    phases = [phase for phase in PHASES if any(getattr(each, f"{phase}_ms") for each in slowest)]
    return Chart(
        identity=f"waterfall-{place}",
        title=f"Slowest requests, from arrival to answer{of}",
        caption="Prefill runs from the first scheduling to the first token, waits for other "
        "requests' steps and for room after a preemption included.",
        x=Axis(title="Time since arrival", low=0, format="milliseconds"),
        y=Axis(categories=tuple(f"request {each.request}" for each in slowest)),
        series=[
            Series(
                name=PHASE_NAMES[phase],
                y=[float(f"{getattr(each, f'{phase}_ms'):.6g}") for each in slowest],
                kind="bar",
                stack="phases",
                color=phase,
            )
            for phase in phases
        ],
        height=110 + 22 * len(slowest),
        wide=True,
        flip=True,
    )


def _slow_table(of: str, slowest: Sequence[SlowRequest]) -> Table:
    return Table(
        title=f"The same in numbers{of}",
        header=(
            "request",
            "arrival, s",
            "E2E, ms",
            "prompt",
            "cached",
            "output",
            "preemptions",
            "engine",
        ),
        rows=[
            [
                str(each.request),
                numbers.real(each.arrival_s, 3),
                numbers.milliseconds(sum(getattr(each, f"{phase}_ms") for phase in PHASES)),
                numbers.count(each.prompt_tokens),
                numbers.count(each.cached_tokens),
                numbers.count(each.output_tokens),
                numbers.count(each.preemptions),
                str(each.engine),
            ]
            for each in slowest
        ],
    )
