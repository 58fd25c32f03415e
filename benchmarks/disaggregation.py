"""Aggregated serving against 1P1D and 2P1D on real traces: a table, and with --picture a PNG.

    python benchmarks/disaggregation.py [MOONCAKE_TRACE.jsonl] [--picture FILE.png]

llama-3.1-70b on H100 SXM, four accelerators an engine. A comparison is fair in that both sides have
the same accelerators and the same requests: two aggregated engines against 1P1D, three against
2P1D. Requests keep their recorded order and pattern of arrivals; the trace's clock is sped up or
slowed down to the rate, which is given per engine, so that both sizes carry the same load each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.errors import SimulatorError
from llm_inference_simulator.files import atomic_path
from llm_inference_simulator.workload import build_workload
from llm_inference_simulator.workload_config import WorkloadConfig

MODEL, XPU, TP = "llama-3.1-70b", "h100-sxm", 4
LINK_GB_S, LATENCY_MS = 50.0, 1.0
"""A 400 Gbit/s network card for each engine."""
REQUESTS = 1500
WARM_UP_SHARE = 0.1
TTFT_OBJECTIVE_MS = {"azure-conv-2023": 1000.0, "azure-code-2023": 5000.0, "mooncake": 30_000.0}
"""A prompt of Mooncake's trace has 14,000 tokens in the mean and up to 123,000: it takes longer."""
TPOT_OBJECTIVE_MS = 50.0
RATES_PER_ENGINE = {
    "azure-conv-2023": (0.5, 1.0, 2.0, 3.0, 4.0),
    "azure-code-2023": (0.2, 0.5, 1.0, 1.5, 2.0),
    "mooncake": (0.1, 0.2, 0.3, 0.4, 0.6),
}
LAYOUTS = {
    "2 aggregated": ("aggregated", "aggregated"),
    "1P1D": ("prefill", "decode"),
    "3 aggregated": ("aggregated", "aggregated", "aggregated"),
    "2P1D": ("prefill", "prefill", "decode"),
}
COLUMNS = {
    "TTFT p50": ("p50_ttft_ms", 1e-3, "{:.2f} s"),
    "TTFT p99": ("p99_ttft_ms", 1e-3, "{:.2f} s"),
    "ITL p50": ("p50_itl_ms", 1.0, "{:.1f} ms"),
    "ITL p99": ("p99_itl_ms", 1.0, "{:.1f} ms"),
    "good": ("slo_attainment", 100.0, "{:.1f} %"),
    "goodput": ("request_goodput", 1.0, "{:.2f} /s"),
    "cost": ("per_million_output_tokens_usd", 1.0, "{:.2f}"),
}


@dataclass(frozen=True)
class Point:
    """One simulation: a layout under a trace at a rate."""

    name: str
    trace: str
    span_s: float
    """Of the trace's first requests, in its own time."""
    rate_per_engine: float
    layout: str

    def config(self) -> SimulatorConfig:
        """What is simulated."""
        roles = LAYOUTS[self.layout]
        seconds = REQUESTS / (self.rate_per_engine * len(roles))
        counts = {role: roles.count(role) for role in dict.fromkeys(roles)}
        pools = [
            {"name": role, "role": role, "n_engines": count, "tensor_parallel_size": TP}
            for role, count in counts.items()
        ]
        transfer = {"bandwidth_gb_s": LINK_GB_S, "latency_ms": LATENCY_MS}
        return SimulatorConfig.from_dict(
            {
                "model": MODEL,
                "xpu": XPU,
                "cluster": {"pools": pools, "router": "least_outstanding_tokens"},
                "transfer": transfer if "prefill" in roles else {},
                "workload": {
                    "trace": self.trace,
                    "num_prompts": REQUESTS,
                    "trace_speedup": self.span_s / seconds,
                },
                "measurement": {
                    "warm_up": WARM_UP_SHARE * seconds,
                    "metric_percentiles": [50.0, 99.0],
                    "goodput": {"ttft": TTFT_OBJECTIVE_MS[self.name], "tpot": TPOT_OBJECTIVE_MS},
                },
            }
        )


def run(point: Point) -> dict[str, Any]:
    """Simulate a point and return the result's summary."""
    return simulate(point.config()).summary()


def points_of(name: str, trace: str) -> list[Point]:
    """All simulations on one trace."""
    load = WorkloadConfig(trace=trace, num_prompts=REQUESTS)
    span_s = build_workload(load, seed=0).duration_ns / 1e9
    return [
        Point(name, trace, span_s, rate, layout)
        for rate in RATES_PER_ENGINE[name]
        for layout in LAYOUTS
    ]


def table(points: Sequence[Point], summaries: Sequence[dict[str, Any]]) -> str:
    """Markdown with one row a simulation."""
    heads = ["trace", "requests/s per engine", "engines", *COLUMNS, "busy"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for point, summary in zip(points, summaries, strict=True):
        cells = [point.name, f"{point.rate_per_engine:g}", point.layout]
        for key, factor, text in COLUMNS.values():
            value = summary[key]
            cells.append("-" if value is None else text.format(value * factor))
        busy = (pool["busy_share"] for pool in summary["pools"])
        cells.append(" / ".join(f"{share:.0%}" for share in busy))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: Sequence[Point], summaries: Sequence[dict[str, Any]], path: Path) -> None:
    """TTFT, ITL and the share of good requests over the rate, one column a trace."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise SystemExit(
            "--picture needs matplotlib: pip install 'llm-inference-simulator[pictures]'"
        ) from None
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator

    names = list(dict.fromkeys(point.name for point in points))
    shown = ("TTFT p99", "ITL p99", "good")
    figure, axes = plt.subplots(len(shown), len(names), figsize=(10, 7.5), squeeze=False)
    for row, head in enumerate(shown):
        key, factor, unit = COLUMNS[head]
        for column, name in enumerate(names):
            axis = axes[row][column]
            for number, layout in enumerate(LAYOUTS):
                line = [
                    (point.rate_per_engine, summary[key] * factor)
                    for point, summary in zip(points, summaries, strict=True)
                    if (point.name, point.layout) == (name, layout)
                ]
                style = {"color": f"C{number // 2}", "marker": "o", "markersize": 3}
                dashes = "--" if "aggregated" in layout else "-"
                axis.plot(*zip(*line, strict=True), dashes, label=layout, **style)
            axis.set_ylabel(f"{head}, {unit.split()[-1]}" if column == 0 else "")
            if head != "good":
                axis.set_yscale("log")
                axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axis.yaxis.set_major_formatter("{x:g}")
                axis.yaxis.set_minor_locator(NullLocator())
            else:
                axis.set_ylim(0, 105)
            if row == 0:
                axis.set_title(name)
            if row == len(shown) - 1:
                axis.set_xlabel("requests/s per engine")
            axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; exit code 2 for a trace that cannot be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("mooncake", nargs="?", help="a Mooncake trace, beside the Azure ones")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it too")
    parser.add_argument("--jobs", type=int, default=2, help="simulations at a time (default: 2)")
    arguments = parser.parse_args(words)
    traces = {name: name for name in RATES_PER_ENGINE if name != "mooncake"}
    if arguments.mooncake:
        traces["mooncake"] = arguments.mooncake
    try:
        points = [point for name, trace in traces.items() for point in points_of(name, trace)]
        with ProcessPoolExecutor(max_workers=arguments.jobs) as pool:
            summaries = list(pool.map(run, points))
    except SimulatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(points, summaries))
    if arguments.picture:
        draw(points, summaries, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
