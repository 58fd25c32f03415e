"""The terminal summary of a run: 80 columns, plain text in a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llm_inference_simulator.metrics import LATENCY_METRICS, percentile_name

if TYPE_CHECKING:
    from llm_inference_simulator.results import PoolSetup, SimulationResult

LABEL_WIDTH = 13
INDENT = 2
GIB = 2**30

_LATENCY_NAMES = {
    "ttft": "TTFT  time to first token",
    "tpot": "TPOT  time per output token",
    "itl": "ITL   inter-token latency",
    "e2el": "E2E   end to end",
}


def print_summary(
    result: SimulationResult, summary: Mapping[str, Any], console: Console | None = None
) -> None:
    """Print what ran, what it can hold, what it gave, and last the warnings."""
    console = console or Console(markup=False, highlight=False)
    if console.is_terminal:
        _print_all(console, result, summary)
        return
    # In a pipe or a file: no padding at the ends of lines.
    with console.capture() as capture:
        _print_all(console, result, summary)
    for line in capture.get().splitlines():
        console.file.write(line.rstrip() + "\n")


def _print_all(console: Console, result: SimulationResult, summary: Mapping[str, Any]) -> None:
    title = f"{result.setup.model_name} on {_accelerators(result)}"
    console.print(Text(title, style="bold"))
    _print_rows(console, "What ran", _what_ran(result, summary))
    for pool in result.setup.pools:
        several = len(result.setup.pools) > 1
        of = f"an engine of {pool.name}" if several else "an engine"
        _print_rows(console, f"Capacity of {of}", _capacity(pool))
    _print_rows(console, "Throughput", _throughput(summary))
    method = "" if result.percentile_method == "exact" else ", percentiles within 0.1 %"
    _print_heading(console, f"Latency (ms{method})")
    percentiles = result.config.measurement.metric_percentiles
    console.print(Padding(_latency_table(summary, percentiles), (0, 0, 0, INDENT)))
    if "classes" in summary:
        _print_heading(console, "Classes (latency in ms)")
        console.print(Padding(_class_table(summary, percentiles), (0, 0, 0, INDENT)))
    _print_rows(console, "Utilisation", _utilisation(summary))
    _print_rows(console, "Energy and cost", _energy_and_cost(summary))
    for warning in result.warnings:
        console.print()
        # One line each outside a terminal: easy to search for.
        message = Text.assemble(("warning: ", "bold yellow"), warning)
        console.print(message, soft_wrap=not console.is_terminal)


def _accelerators(result: SimulationResult) -> str:
    pools = result.setup.pools
    if len(pools) == 1:
        return _pool_size(pools[0])
    return ", ".join(f"{pool.name}: {_pool_size(pool)}" for pool in pools)


def _pool_size(pool: PoolSetup) -> str:
    if pool.n_xpus == 1:
        return f"1 x {pool.xpu_name}"
    engine = "engine" if pool.n_engines == 1 else "engines"
    layout = f"{pool.n_engines} {engine} x TP {pool.tensor_parallel_size}"
    if pool.pipeline_parallel_size > 1:
        layout += f" x PP {pool.pipeline_parallel_size}"
    return f"{layout} = {pool.n_xpus} x {pool.xpu_name}"


def _what_ran(result: SimulationResult, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    setup, measurement = result.setup, summary["measurement"]
    rows = [
        ("model", f"{_parameters(setup.parameter_count)} parameters"),
        *_performance(setup.pools),
        ("load", setup.workload_description),
        ("requests", _request_counts(summary)),
        *_from_vllm(setup.provenance.get("from_vllm", {})),
    ]
    window = f"{measurement['window_start_s']:,.3f} s to {measurement['window_end_s']:,.3f} s"
    if summary["completed"]:
        window += f", the last {measurement['drain_s']:,.3f} s without new arrivals"
    rows.append(("measured", window))
    return rows


def _from_vllm(lines: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of the flags of vLLM's command lines."""
    rows = []
    if lines.get("ignored"):
        rows.append(("ignored", f"{', '.join(lines['ignored'])}: without effect on times"))
    if lines.get("defaults"):
        filled = (f"{place.split('.', 1)[1]} {value}" for place, value in lines["defaults"].items())
        rows.append((f"vLLM {lines['vllm_version']}", f"its defaults: {', '.join(filled)}"))
    return rows


def _performance(pools: Sequence[PoolSetup]) -> list[tuple[str, str]]:
    described = {
        pool.name: f"{pool.performance_model}: {pool.performance_description}" for pool in pools
    }
    if len(set(described.values())) == 1:
        return [("performance", described[pools[0].name])]
    return [("performance", f"{name}: {text}") for name, text in described.items()]


def _request_counts(summary: Mapping[str, Any]) -> str:
    measurement = summary["measurement"]
    parts = [f"{measurement['counted']:,} counted: {summary['completed']:,} completed"]
    for count, word in (
        (summary["failed"], "failed"),
        (measurement["unfinished"], "unfinished"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    text = ", ".join(parts)
    failures = summary.get("failures", {})
    listed = [f"{count:,} {name.replace('_', ' ')}" for name, count in failures.items() if count]
    if listed:
        text += f" ({', '.join(listed)})"
    if measurement["excluded_warm_up"]:
        text += f"; {measurement['excluded_warm_up']:,} of the warm-up not counted"
    return text


def _capacity(pool: PoolSetup) -> list[tuple[str, str]]:
    capacity = pool.capacity
    return [
        (
            "KV cache",
            f"{capacity.kv_cache_tokens:,} tokens ({capacity.num_gpu_blocks:,} blocks of "
            f"{capacity.block_size}), {_gib(capacity.kv_cache_bytes)} per accelerator",
        ),
        (
            "memory",
            f"{_gib(capacity.usable_bytes)} of {_gib(capacity.total_bytes)} usable: weights "
            f"{_gib(capacity.weight_bytes_per_rank)}, activations "
            f"{_gib(capacity.activation_bytes)}, runtime {_gib(capacity.runtime_bytes)}",
        ),
        ("context", f"prompt + output up to {capacity.max_model_len:,} tokens"),
    ]


def _throughput(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("requests", _rate(summary["request_throughput"], "requests/s")),
        ("output", _rate(summary["output_throughput"], "tokens/s")),
        ("total", _rate(summary["total_token_throughput"], "tokens/s, prompts included")),
    ]
    if summary["slo_attainment"] is not None:
        goodput = _rate(summary["request_goodput"], "requests/s")
        share = f"{summary['slo_attainment']:.1%} of the requests meet all objectives"
        rows.append(("goodput", f"{goodput}, {share}"))
    return rows


def _latency_table(summary: Mapping[str, Any], percentiles: Sequence[float]) -> Table:
    names = [percentile_name(percentile) for percentile in percentiles]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("")
    for name in ("mean", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for metric in LATENCY_METRICS:
        values = [summary[f"{name}_{metric}_ms"] for name in ("mean", *names)]
        table.add_row(_LATENCY_NAMES[metric], *(_milliseconds(value) for value in values))
    transfer = summary.get("kv_transfer", {})
    for metric, text in _TRANSFER_NAMES.items() if transfer else ():
        values = [transfer[f"{name}_{metric}_ms"] for name in ("mean", *names)]
        table.add_row(text, *(_milliseconds(value) for value in values))
    return table


def _class_table(summary: Mapping[str, Any], percentiles: Sequence[float]) -> Table:
    """One row a class, latencies at the highest of the percentiles."""
    tail = percentile_name(max(percentiles)) if percentiles else "mean"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("class", overflow="fold")
    for name in ("requests", "per s", f"{tail} TTFT", f"{tail} ITL", f"{tail} E2E", "good"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in summary["classes"]:
        table.add_row(
            row["name"],
            f"{row['counted']:,}",
            "-" if row["request_throughput"] is None else f"{row['request_throughput']:.3g}",
            *(_milliseconds(row[f"{tail}_{metric}_ms"]) for metric in ("ttft", "itl", "e2el")),
            _percent(row["slo_attainment"]),
        )
    return table


_TRANSFER_NAMES = {
    "transfer": "KV transfer",
    "second_token": "gap to the second token",
}


def _utilisation(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    utilisation, engines = summary["utilisation"], summary["engines"]
    rows = [("engines", f"busy {_percent(utilisation['engine_busy_share'])} of the time")]
    if len(summary["pools"]) > 1:
        shares = (f"{pool['name']} {_percent(pool['busy_share'])}" for pool in summary["pools"])
        rows = [("engines", f"busy {', '.join(shares)} of the time")]
    if utilisation["mfu"] is not None:
        rows.append(("compute", f"{_percent(utilisation['mfu'])} of peak operations (MFU)"))
    if utilisation["memory_bandwidth_utilisation"] is not None:
        share = _percent(utilisation["memory_bandwidth_utilisation"])
        rows.append(("memory", f"{share} of peak bandwidth"))
    if "kv_transfer" in summary:
        transfer = summary["kv_transfer"]
        rows.append(("KV transfers", f"{transfer['transfers']:,}, {_gib(transfer['bytes'])}"))
    steps = sum(engine["steps"] for engine in engines)
    preemptions = sum(engine["preemptions"] for engine in engines)
    rows.append(("steps", f"{steps:,}, {preemptions:,} preemptions"))
    dummies = sum(engine["dummy_steps"] for engine in engines)
    if dummies:
        share = _percent(dummies / (steps + dummies))
        text = f"{dummies:,} beside other engines of their group ({share} of all)"
        rows.append(("dummy steps", text))
    hits = sum(engine["prefix_cache_hits"] for engine in engines)
    if hits:
        queries = sum(engine["prefix_cache_queries"] for engine in engines)
        rows.append(("prefix cache", f"{_percent(hits / queries)} of the looked-up tokens found"))
    return rows


def _energy_and_cost(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    details = summary["energy_and_cost"]
    rows = []
    if summary["energy_joules"] is not None:
        text = _joules(summary["energy_joules"])
        if details["mean_power_w"] is not None:
            text += f", {details['mean_power_w']:,.0f} W per accelerator"
        if summary["joules_per_output_token"] is not None:
            text += f", {summary['joules_per_output_token']:.3g} J per output token"
        rows.append(("energy", text))
    if summary["cost_usd"] is not None:
        if details["price_per_hour_usd"] is not None:
            rows.append(("price", _price(details)))
        text = f"{summary['cost_usd']:,.4g} USD"
        for kind in ("output", "input"):
            price = summary[f"per_million_{kind}_tokens_usd"]
            if price is not None:
                text += f", {price:,.3g} per million {kind} tokens"
        rows.append(("cost", text))
    rows += [("note", note) for note in details["notes"]]
    return rows


def _price(details: Mapping[str, Any]) -> str:
    text = f"{details['price_per_hour_usd']:,.4g} USD per accelerator and hour"
    if details["price_tier"] is None:
        return text + ", as given"
    return f"{text}, {details['price_tier']}: {details['price_source']}, {details['price_date']}"


def _joules(joules: float) -> str:
    return f"{joules / 1e6:,.2f} MJ" if joules >= 1e6 else f"{joules:,.0f} J"


def _print_heading(console: Console, heading: str) -> None:
    console.print()
    console.print(Text(heading, style="bold cyan"))


def _print_rows(console: Console, heading: str, rows: Sequence[tuple[str, str]]) -> None:
    _print_heading(console, heading)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=LABEL_WIDTH, style="dim")
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(label, text)
    console.print(Padding(table, (0, 0, 0, INDENT)))


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if value < 10_000 else f"{value:,.0f}"


def _rate(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f} {unit}" if value >= 1 else f"{value:.3g} {unit}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / GIB:,.2f} GiB"


def _parameters(count: int) -> str:
    return f"{count / 1e9:,.2f} B" if count >= 10**9 else f"{count / 1e6:,.1f} M"
