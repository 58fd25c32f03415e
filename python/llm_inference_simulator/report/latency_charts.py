"""Distributions of TTFT, TPOT and E2E: cumulative shares and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.digest import BINS_PER_DECADE, DISTRIBUTIONS
from llm_inference_simulator.report.saved import Distribution, NamedDigest

TITLES = {"ttft": "Time to first token", "tpot": "Time per output token", "e2el": "End to end"}
MOST_BINS = 60
"""Bars of a histogram: what the eye can tell apart."""


def latency_charts(
    digests: Sequence[NamedDigest], objectives_ms: Mapping[str, float]
) -> list[Chart]:
    """Two charts a metric; ``objectives_ms`` are marked where they lie in sight."""
    charts = []
    for metric in DISTRIBUTIONS:
        found = [
            (each.place, each.name, each.digest.distributions[metric])
            for each in digests
            if metric in each.digest.distributions
        ]
        if not found:
            continue
        values = [value for _, _, each in found for value in each.values_ms if value > 0]
        if not values:
            continue
        low, high = min(values), max(values)
        axis = Axis(
            title=TITLES[metric],
            scale="log",
            low=low / 1.03,
            high=high * 1.03,
            format="milliseconds",
        )
        limit = objectives_ms.get(metric)
        marks = ((limit, "objective"),) if limit and axis.low < limit < axis.high else ()  # type: ignore[operator]
        charts += [_cumulative(metric, found, axis, marks), _histogram(metric, found, axis)]
    return charts


Found = Sequence[tuple[int, str, Distribution]]


def _cumulative(metric: str, found: Found, axis: Axis, marks: Sequence[tuple[float, str]]) -> Chart:
    series = []
    for place, name, each in found:
        points = [
            (value, share)
            for value, share in zip(each.values_ms, each.quantiles, strict=True)
            if value > 0
        ]
        series.append(
            Series(name=name, x=[p[0] for p in points], y=[p[1] for p in points], color=place)
        )
    return Chart(
        identity=f"{metric}-cumulative",
        title=f"{TITLES[metric]}: share of requests at or below",
        x=axis,
        y=Axis(low=0, high=1, format="percent"),
        series=series,
        marks=marks,
    )


def _histogram(metric: str, found: Found, axis: Axis) -> Chart:
    first = min(each.first_bin for _, _, each in found)
    last = max(each.first_bin + len(each.counts) for _, _, each in found)
    joined = max(1, -(-(last - first) // MOST_BINS))
    series = []
    for place, name, each in found:
        total = sum(each.counts) or 1
        n_bins = -(-(last - first) // joined)
        shares = [0.0] * n_bins
        for offset, count in enumerate(each.counts):
            shares[(each.first_bin + offset - first) // joined] += count / total
        edges = [10 ** ((first + joined * k) / BINS_PER_DECADE) for k in range(n_bins + 1)]
        series.append(
            Series(name=name, x=edges, y=[*shares, 0.0], kind="area", step=True, color=place)
        )
    width = 100 * (10 ** (joined / BINS_PER_DECADE) - 1)
    ends = (series[0].x[0], series[0].x[-1])
    return Chart(
        identity=f"{metric}-histogram",
        title=f"{TITLES[metric]}: share of requests by latency",
        caption=f"Bins are {width:.2g}\u00a0% wide.",
        x=Axis(title=axis.title, scale="log", low=ends[0], high=ends[1], format="milliseconds"),
        y=Axis(low=0, format="percent"),
        series=series,
    )
