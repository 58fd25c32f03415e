"""The tables of a page of results: figures side by side, engines, cost, provenance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from llm_inference_simulator.metrics import LATENCY_METRICS
from llm_inference_simulator.report import numbers
from llm_inference_simulator.report.answer import cluster
from llm_inference_simulator.report.page import Item, Table, Text
from llm_inference_simulator.report.saved import NamedResult, SavedResult

METRIC_NAMES = {
    "ttft": "TTFT, time to first token",
    "tpot": "TPOT, time per output token",
    "itl": "ITL, inter-token latency",
    "e2el": "E2E, end to end",
}

Row = tuple[str, Callable[[SavedResult], float | None], Callable[[float | None], str]]


def _comparison_rows(named: Sequence[NamedResult]) -> list[Row]:
    def latency(key: str) -> Callable[[SavedResult], float | None]:
        return lambda result: result.latencies.get(key)

    rows: list[Row] = [
        ("Requests completed", lambda r: r.completed, lambda v: numbers.count(int(v or 0))),
        ("Requests failed", lambda r: r.failed, lambda v: numbers.count(int(v or 0))),
        ("Requests per second", lambda r: r.request_throughput, numbers.real),
        ("Output tokens per second", lambda r: r.output_throughput, numbers.real),
        ("Tokens per second, prompts included", lambda r: r.total_token_throughput, numbers.real),
        ("Goodput, requests per second", lambda r: r.request_goodput, numbers.real),
        ("Requests within objectives", lambda r: r.slo_attainment, numbers.percent),
        ("Engines busy", lambda r: r.utilisation.engine_busy_share, numbers.percent),
        ("Compute used (MFU)", lambda r: r.utilisation.mfu, numbers.percent),
        (
            "Memory bandwidth used",
            lambda r: r.utilisation.memory_bandwidth_utilisation,
            numbers.percent,
        ),
        ("Accelerators", lambda r: r.energy_and_cost.xpus, lambda v: numbers.count(int(v or 0))),
        ("USD per million output tokens", lambda r: r.per_million_output_tokens_usd, numbers.real),
        ("Joules per output token", lambda r: r.joules_per_output_token, numbers.real),
    ]
    if len(named) > 1:
        common = [
            p for p in named[0].result.percentiles if all(p in n.result.percentiles for n in named)
        ]
        rows[7:7] = [
            (
                f"{metric.upper().replace('E2EL', 'E2E')} {name}, ms",
                latency(f"{name}_{metric}_ms"),
                numbers.milliseconds,
            )
            for metric in LATENCY_METRICS
            for name in ("mean", *common)
        ]
    return [row for row in rows if any(row[1](each.result) is not None for each in named)]


def comparison(named: Sequence[NamedResult]) -> Table:
    """One row a figure, one column a result; from the second on with the change to the first."""
    base = named[0].result
    rows = []
    for title, value_of, write in _comparison_rows(named):
        cells = [title]
        for place, each in enumerate(named):
            value = value_of(each.result)
            change = numbers.difference(value, value_of(base)) if place else ""
            cells.append(f"{write(value)} ({change})" if change else write(value))
        rows.append(cells)
    several = len(named) > 1
    return Table(
        title="Side by side" if several else "Throughput and use",
        header=("", *(each.name for each in named)) if several else (),
        rows=rows,
        caption=f"In brackets: against {named[0].name}." if several else "",
    )


def latency_table(result: SavedResult) -> Table:
    """Mean, standard deviation and percentiles of the four latencies."""
    columns = ("mean", "std", *result.percentiles)
    return Table(
        title="Latency, ms",
        header=("", *columns),
        rows=[
            [
                METRIC_NAMES[metric],
                *(
                    numbers.milliseconds(result.latencies.get(f"{column}_{metric}_ms"))
                    for column in columns
                ),
            ]
            for metric in LATENCY_METRICS
        ],
    )


def engine_table(named: Sequence[NamedResult]) -> Table:
    """One row an engine, up to ``MOST_ENGINES``."""
    several = len(named) > 1
    rows = []
    for each in named:
        span = each.result.utilisation.span_s
        blocks = {pool.name: pool.capacity.num_gpu_blocks - 1 for pool in each.result.pools}
        for engine in each.result.engines:
            found = engine.prefix_cache_hits / (engine.prefix_cache_queries or 1)
            most = engine.peak_kv_blocks / (blocks.get(engine.pool) or 1)
            rows.append(
                [
                    f"{each.name}, engine {engine.engine}" if several else str(engine.engine),
                    engine.pool,
                    numbers.count(engine.requests),
                    numbers.count(engine.steps),
                    numbers.percent(engine.busy_s / span if span else None),
                    numbers.percent(most),
                    numbers.count(engine.preemptions),
                    numbers.percent(found if engine.prefix_cache_hits else None),
                ]
            )
    shown = rows[:MOST_ENGINES]
    left = len(rows) - len(shown)
    return Table(
        title="Engines",
        header=(
            "engine",
            "pool",
            "requests",
            "steps",
            "busy",
            "peak KV use",
            "preemptions",
            "prefix hits",
        ),
        rows=shown,
        text_columns=2,
        caption=f"{left:,} more engines are in the result files." if left else "",
    )


def class_tables(named: Sequence[NamedResult]) -> list[Item]:
    """One table for each result whose requests come in classes: one row a class."""
    tables: list[Item] = []
    for each in named:
        tail = each.result.tail
        metrics = ("ttft", "tpot", "e2el")
        rows = [
            [
                row.name,
                numbers.count(row.counted),
                numbers.real(row.request_throughput),
                *(numbers.milliseconds(row.latencies[f"{tail}_{name}_ms"]) for name in metrics),
                numbers.percent(row.slo_attainment),
            ]
            for row in each.result.classes
        ]
        if rows:
            latencies = (f"{tail} {name}, ms" for name in ("TTFT", "TPOT", "E2E"))
            tables.append(
                Table(
                    title="Classes of requests" + (f": {each.name}" if len(named) > 1 else ""),
                    header=("", "requests", "per second", *latencies, "within objectives"),
                    rows=rows,
                )
            )
    return tables


MOST_ENGINES = 64
"""Rows of the table of engines."""


def cost_table(named: Sequence[NamedResult]) -> Table:
    """Energy and cost of the whole runs, and what went in."""
    return Table(
        title="Energy and cost",
        header=("", *(each.name for each in named)) if len(named) > 1 else (),
        rows=[
            ["Accelerators", *(str(n.result.energy_and_cost.xpus) for n in named)],
            ["Energy, J", *(numbers.real(n.result.energy_joules, 0) for n in named)],
            [
                "Power per accelerator, W",
                *(numbers.real(n.result.energy_and_cost.mean_power_w, 0) for n in named),
            ],
            [
                "Joules per output token",
                *(numbers.real(n.result.joules_per_output_token) for n in named),
            ],
            ["Cost of the run, USD", *(numbers.real(n.result.cost_usd, 4) for n in named)],
            [
                "USD per million output tokens",
                *(numbers.real(n.result.per_million_output_tokens_usd) for n in named),
            ],
            [
                "USD per million input tokens",
                *(numbers.real(n.result.per_million_input_tokens_usd) for n in named),
            ],
        ],
        caption=" ".join(dict.fromkeys(text for n in named for text in _cost_notes(n.result))),
    )


def _cost_notes(result: SavedResult) -> list[str]:
    notes = [f"{note[0].upper()}{note[1:]}." for note in result.energy_and_cost.notes if note]
    if result.energy_and_cost.price_per_hour_usd is not None:
        notes.append(f"{_price(result)}.")
    if result.cost_usd is not None:
        notes.append(
            "The prices per million tokens are alternatives: each is the whole cost over the "
            "tokens of one kind."
        )
    return notes


def _price(result: SavedResult) -> str:
    details = result.energy_and_cost
    parts = [f"Price: {details.price_per_hour_usd:,.4g} USD per accelerator and hour"]
    parts += [
        part for part in (details.price_tier, details.price_source, details.price_date) if part
    ]
    return ", ".join(parts)


def setup_items(named: Sequence[NamedResult]) -> list[Item]:
    """Where the numbers come from, and the configurations to run again."""
    several = len(named) > 1
    table = Table(
        title="Provenance",
        header=("", *(each.name for each in named)) if several else (),
        rows=[
            ["Model", *(n.result.model_id for n in named)],
            ["Cluster", *(cluster(n.result.pools) for n in named)],
            ["Load", *(n.result.provenance.workload for n in named)],
            ["Step times", *(_performance(n.result) for n in named)],
            ["Measured", *(_measured(n.result) for n in named)],
            ["Version", *(n.result.provenance.version for n in named)],
            ["Seed", *(str(n.result.provenance.seed) for n in named)],
            ["Trace hash", *(n.result.provenance.trace_hash for n in named)],
            ["Configuration", *(_completeness(n.result) for n in named)],
        ],
        text_columns=len(named) + 1,
        preformatted=True,
    )
    texts = [
        Text(
            title=f"Configuration of {each.name}" if several else "Configuration",
            body=json.dumps(each.result.config, indent=2, ensure_ascii=False),
            folded=True,
        )
        for each in named
    ]
    return [table, *texts]


def _performance(result: SavedResult) -> str:
    lines = {}
    for pool in result.pools:
        text = f"{pool.performance_model}: {pool.performance_description}"
        if pool.calibration_file:
            text += f" ({pool.calibration_file}, SHA-256 {(pool.calibration_sha256 or '')[:12]}…)"
        lines[pool.name] = text
    if len(set(lines.values())) == 1:
        return next(iter(lines.values()))
    return "\n".join(f"{name}: {text}" for name, text in lines.items())


def _measured(result: SavedResult) -> str:
    window = result.measurement
    text = (
        f"{window.counted:,} requests, {window.window_start_s:,.3f} s to "
        f"{window.window_end_s:,.3f} s, the last {window.drain_s:,.3f} s without new arrivals"
    )
    if window.excluded_warm_up:
        text += f"; {window.excluded_warm_up:,} of the warm-up not counted"
    return text


def _completeness(result: SavedResult) -> str:
    if result.provenance.config_is_complete:
        return "below, complete: it can be run again"
    return "below; a workload, a router or a performance model was passed beside it"
