"""The page of one result, or of several side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_text
from llm_inference_simulator.report.answer import answer_of, title_of, warnings_of
from llm_inference_simulator.report.capacity_charts import capacity_items
from llm_inference_simulator.report.engine_charts import component_items, waterfall_items
from llm_inference_simulator.report.latency_charts import latency_charts
from llm_inference_simulator.report.page import Item, Tab, render_page
from llm_inference_simulator.report.result_tables import (
    class_tables,
    comparison,
    cost_table,
    engine_table,
    latency_table,
    setup_items,
)
from llm_inference_simulator.report.saved import NamedDigest, NamedResult, SavedResult
from llm_inference_simulator.report.time_charts import time_charts


def write_report(path: Path, results: Sequence[tuple[str, SavedResult]]) -> None:
    """Write the page of ``results`` under their names, whole or not at all.

    Raises :class:`ConfigError` where Jinja2 is missing or there is no result.
    """
    page = render_report(results)
    with atomic_text(path) as file:
        file.write(page)


def render_report(results: Sequence[tuple[str, SavedResult]]) -> str:
    """The page as text."""
    if not results:
        raise ConfigError("a report needs at least one result: name result files")
    named = [
        NamedResult(name, result)
        for name, (_, result) in zip(unique_names([n for n, _ in results]), results, strict=True)
    ]
    several = len(named) > 1
    return render_page(
        title=title_of(named),
        answers=[answer_of(each, several=several) for each in named],
        warnings=warnings_of(named),
        tabs=_tabs(named),
        footer=f"LLM Inference Simulator {named[0].result.provenance.version}. Charts: Apache "
        "ECharts. This file needs nothing else and sends nothing anywhere.",
    )


def unique_names(names: Sequence[str]) -> list[str]:
    """Number names that come more than once."""
    total, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if total[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _tabs(named: Sequence[NamedResult]) -> list[Tab]:
    digests = [
        NamedDigest(place=place, name=each.name, several=len(named) > 1, digest=digest)
        for place, each in enumerate(named)
        if (digest := each.result.report_digest) is not None
    ]
    objectives = [_objectives(each.result) for each in named]
    shared = objectives[0] if all(each == objectives[0] for each in objectives) else {}
    views: list[tuple[str, str, Sequence[Item]]] = [
        (
            "summary",
            "Summary",
            [
                comparison(named),
                *([latency_table(named[0].result)] if len(named) == 1 else []),
                *class_tables(named),
            ],
        ),
        ("latency", "Latency", latency_charts(digests, shared)),
        ("time", "Over time", time_charts(digests)),
        ("engines", "Engines", [*component_items(digests), engine_table(named)]),
        ("requests", "Slow requests", waterfall_items(digests)),
        ("capacity", "Capacity and cost", [*capacity_items(named), cost_table(named)]),
        ("setup", "Setup", setup_items(named)),
    ]
    return [Tab(identity=key, title=title, items=items) for key, title, items in views if items]


def _objectives(result: SavedResult) -> dict[str, float]:
    measurement = result.config.get("measurement")
    goodput = measurement.get("goodput") if isinstance(measurement, dict) else None
    if not isinstance(goodput, dict):
        return {}
    return {
        name: float(limit)
        for name, limit in goodput.items()
        if isinstance(limit, int | float) and limit > 0
    }
