"""The page of a plan, from the plain data of ``plan.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator.files import atomic_text
from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.page import (
    Answer,
    Figure,
    Item,
    Tab,
    Table,
    Text,
    render_page,
)

Entry = Mapping[str, Any]

UNKNOWN = "-"

MOST_ROWS = 200
"""Candidates in the table; the file has them all."""

_Front = tuple[str, str, str, tuple[str, str], tuple[str, str]]
"""Key of ``pareto``, title, caption, and (metric, title) of the two axes."""

_FRONTS: tuple[_Front, ...] = (
    (
        "speed_per_user_and_per_xpu",
        "Speed of a user against work of an accelerator",
        "Up and to the right is better. Nothing is better in both than the Pareto front.",
        ("tokens_per_s_per_user", "Tokens/s a user"),
        ("tokens_per_s_per_xpu", "Tokens/s an accelerator"),
    ),
    (
        "cost_and_tail_latency",
        "Cost against tail latency",
        "Down and to the left is better. Nothing is better in both than the Pareto front.",
        ("usd_per_hour", "USD per hour"),
        ("p99_ttft_ms", "TTFT p99 (ms)"),
    ),
)
_HEADER = ("candidate", "verdict", "xPUs", "USD/h", "attained", "TTFT p99 ms", "TPOT p99 ms")


def write_plan_page(path: Path, plan: Entry, version: str) -> None:
    """Write the page of ``plan``, the content of ``plan.json``, whole or not at all.

    Raises :class:`ConfigError` where Jinja2 is missing.
    """
    page = render_plan_page(plan, version)
    with atomic_text(path) as file:
        file.write(page)


def render_plan_page(plan: Entry, version: str) -> str:
    """The page as text."""
    model = plan["request"]["base"]["model"]
    return render_page(
        title=f"Plan for {model}",
        answers=[_answer(plan)],
        warnings=plan["warnings"],
        tabs=[tab for tab in _tabs(plan) if tab.items],
        footer=f"LLM Inference Simulator {version}. Charts: Apache ECharts. This file needs "
        "nothing else and sends nothing anywhere.",
    )


def _question(plan: Entry) -> str:
    request = plan["request"]
    limits = " and ".join(f"{name} ≤ {limit:g} ms" for name, limit in request["goodput"].items())
    share = f"{request['attainment']:.4g} of the requests with {limits}"
    if request["request_rate"] is None:
        return f"the highest rate, up to {request['max_xpus']} accelerators, {share}"
    return f"{request['request_rate']:g} requests/s, {share}"


def _answer(plan: Entry) -> Answer:
    best = plan["best"]
    if best is None:
        nearest = plan["nearest"]
        if nearest is not None:
            near = f" The nearest is {nearest['name']}: {nearest['reason']}."
        else:
            reasons = [each["reason"] for each in plan["candidates"] if each["reason"]]
            near = f" {reasons[0]}." if reasons else ""
        return Answer(sentence=f"Nothing that was tried holds {_question(plan)}.{near}")
    metrics, xpu = best["metrics"], best["parameters"]["xpu"]
    cost = metrics["usd_per_hour"]
    figures = [
        Figure(name="Accelerators", value=str(best["parameters"]["n_xpus"]), note=best["count"]),
        Figure(
            name="Objective",
            value=f"{best['objective_value']:.4g}",
            unit=plan["request"]["objective_unit"],
        ),
        Figure(
            name="Attained",
            value=f"{metrics['attained']:.2%}",
            note=f"{metrics['attained_late']:.2%} of the late half",
        ),
        Figure(name="TTFT p99", value=_number(metrics["p99_ttft_ms"]), unit="ms"),
        Figure(name="TPOT p99", value=_number(metrics["p99_tpot_ms"]), unit="ms"),
        Figure(
            name="Output tokens",
            value=_number(metrics["per_million_output_tokens_usd"]),
            unit="USD per million",
        ),
    ]
    held = f" at {best['request_rate']:.4g} requests/s" if _is_open(plan) else ""
    price = "" if cost is None else f" for {cost:.4g} USD per hour"
    return Answer(
        sentence=f"{best['count']} of {xpu}{price}{held}: {_question(plan)}.",
        figures=figures,
    )


def _is_open(plan: Entry) -> bool:
    return plan["request"]["request_rate"] is None


def _tabs(plan: Entry) -> list[Tab]:
    best = plan["best"]
    why: list[Item] = []
    if best is not None:
        why.append(
            Table(
                title="What binds the best candidate",
                rows=[line.partition(": ")[::2] for line in best["binds"]],
                text_columns=2,
            )
        )
        if best["knobs"]:
            why.append(
                Table(
                    title="What each knob would change",
                    header=("change", *_HEADER[1:]),
                    rows=[[knob["change"], *_cells(knob)] for knob in best["knobs"]],
                    text_columns=2,
                )
            )
    fronts = [_front(plan, front) for front in _FRONTS]
    commands = [
        Text(
            title="Commands to serve the best candidate",
            body="\n".join(plan["commands"]),
            unfolded=True,
        )
    ]
    setup = [Text(title="Configuration of the best candidate", body=_yaml(best), folded=True)]
    return [
        Tab(identity="why", title="Why", items=why),
        Tab(identity="fronts", title="Trade-offs", items=[f for f in fronts if f is not None]),
        Tab(identity="candidates", title="Candidates", items=[*_candidates(plan), _asked(plan)]),
        Tab(
            identity="commands",
            title="Commands",
            items=[*commands, *setup] if best is not None else [],
        ),
    ]


def _front(plan: Entry, front_of: _Front) -> Chart | None:
    key, title, caption, across, up = front_of
    candidates = plan["candidates"]
    front = [candidates[place] for place in plan["pareto"][key]]
    if not front:
        return None
    others = [each for each in candidates if each["verdict"] == "meets" and each not in front]

    def points(name: str, entries: Sequence[Entry], color: int) -> Series:
        known = [
            each
            for each in entries
            if each["metrics"].get(across[0]) is not None and each["metrics"].get(up[0]) is not None
        ]
        known.sort(key=lambda each: float(each["metrics"][across[0]]))
        return Series(
            name=name,
            x=[each["metrics"][across[0]] for each in known],
            y=[each["metrics"][up[0]] for each in known],
            kind="points",
            color=color,
            labels=[each["name"] for each in known],
        )

    return Chart(
        identity=f"front-{key.replace('_', '-')}",
        title=title,
        caption=caption,
        x=_axis(across, [*front, *others]),
        y=_axis(up, [*front, *others]),
        series=[points("meets the objectives", others, 1), points("Pareto front", front, 0)],
        tooltip="item",
        height=340,
        wide=True,
    )


def _axis(measure: tuple[str, str], entries: Sequence[Entry]) -> Axis:
    """An axis around the values, which lie far from 0 and near one another."""
    key, title = measure
    known = [each["metrics"][key] for each in entries if each["metrics"].get(key) is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    margin = 0.05 * (high - low) or 0.05 * high
    step = 10.0 ** math.floor(math.log10(max(high - low, high / 10, 1e-9)) - 1)
    return Axis(
        title=title,
        low=max(0.0, step * math.floor((low - margin) / step)),
        high=step * math.ceil((high + margin) / step),
    )


def _candidates(plan: Entry) -> list[Item]:
    simulated = [each for each in plan["candidates"] if each["metrics"]]
    simulated.sort(key=_rank)
    rest = [each for each in plan["candidates"] if not each["metrics"]]
    dearer = plan["not_simulated_because_dearer"]
    caption = f"{len(simulated):,} candidates were simulated, in {plan['simulations']:,} runs"
    if len(simulated) > MOST_ROWS:
        caption += f"; the first {MOST_ROWS} are shown"
    if dearer:
        caption += f". {dearer:,} dearer ones needed no simulation"
    items: list[Item] = [
        Table(
            title="Simulated",
            header=_HEADER,
            rows=[[each["name"], *_cells(each)] for each in simulated[:MOST_ROWS]],
            caption=f"{caption}.",
            text_columns=2,
        )
    ]
    if rest:
        items.append(
            Table(
                title="Not possible",
                header=("kind", "verdict", "reason"),
                rows=[[each["name"], each["verdict"], each["reason"]] for each in rest[:MOST_ROWS]],
                caption=f"{len(rest):,} kinds; the first {MOST_ROWS} are shown."
                if len(rest) > MOST_ROWS
                else "",
                text_columns=3,
            )
        )
    return items


def _asked(plan: Entry) -> Table:
    """What the answer holds for."""
    request = plan["request"]
    rate = request["request_rate"]
    rows = [
        ("model", request["base"]["model"]),
        ("accelerators", f"{', '.join(request['xpus'])}; at most {request['max_xpus']}"),
        ("rate", "the highest" if rate is None else f"{rate:g} requests/s"),
        ("objectives", _question(plan)),
        ("smallest", request["objective_unit"]),
        ("tolerance of rates", f"{request['tolerance']:.1%}"),
    ]
    return Table(title="What was asked", rows=rows, text_columns=2)


def _rank(entry: Entry) -> tuple[float, float]:
    value = entry.get("objective_value")
    return (float("inf") if value is None else value, -entry["metrics"]["attained"])


def _cells(entry: Entry) -> list[str]:
    metrics = entry["metrics"]
    xpus = str(entry["parameters"]["n_xpus"])
    if not metrics:
        return [f"refused: {entry['reason']}", xpus, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    verdict = entry["verdict"]
    return [
        verdict if verdict == "meets" else f"{verdict}: {entry['reason']}",
        xpus,
        _number(metrics["usd_per_hour"]),
        f"{metrics['attained']:.2%}",
        _number(metrics["p99_ttft_ms"]),
        _number(metrics["p99_tpot_ms"]),
    ]


def _number(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _yaml(best: Entry | None) -> str:
    import yaml

    return "" if best is None else str(yaml.safe_dump(best["config"], sort_keys=False))
