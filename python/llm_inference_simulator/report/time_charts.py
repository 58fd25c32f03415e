"""The run over time: queue, running sequences, KV cache, busy engines and what steps consist of."""

from __future__ import annotations

from collections.abc import Sequence

from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.saved import NamedDigest, OverTime

STATES = (
    ("waiting", "Waiting requests", "number"),
    ("running", "Running sequences", "number"),
    ("kv_share", "KV cache in use", "percent"),
    ("busy_share", "Engines busy", "percent"),
)
NOTES = {
    "waiting": "As schedulers see them when they decide a step. ",
    "busy_share": "Share of the engines with a step in flight. ",
}


def time_charts(digests: Sequence[NamedDigest]) -> list[Chart]:
    """Charts of states with a line for each pool, then one of tokens for each result."""
    if not digests:
        return []
    charts = [_state(digests, name, title, form) for name, title, form in STATES]
    return charts + [
        _tokens(each.place, each.name if each.several else "", each.digest.over_time)
        for each in digests
    ]


def _times(over_time: OverTime, bins: int) -> list[float]:
    """Middles of the bins, in seconds."""
    return [float(f"{(place + 0.5) * over_time.bin_s:.6g}") for place in range(bins)]


def _state(digests: Sequence[NamedDigest], name: str, title: str, form: str) -> Chart:
    series = []
    for each in digests:
        over_time, pools = each.digest.over_time, each.digest.over_time.pools
        for index, pool in enumerate(pools):
            values: list[float | None] = getattr(pool, name)
            label = " · ".join(
                part
                for part, needed in ((each.name, each.several), (pool.name, len(pools) > 1))
                if needed
            )
            series.append(
                Series(
                    name=label or title,
                    x=_times(over_time, len(values)),
                    y=values,
                    color=each.place if each.several else index,
                    dashed=each.several and index > 0,
                )
            )
    longest = max(each.digest.over_time.bin_s for each in digests)
    return Chart(
        identity=f"time-{name.replace('_', '-')}",
        title=title,
        caption=f"{NOTES.get(name, '')}Mean over each {longest:.3g} s.",
        x=Axis(title="Time, s", low=0),
        y=Axis(low=0, format="percent" if form == "percent" else "number"),
        series=series,
    )


def _tokens(place: int, result: str, over_time: OverTime) -> Chart:
    """Prefill and decode tokens per second of all pools, on top of one another."""
    series = []
    for title, role, name in (
        ("Decode", "decode", "decode_tokens_per_s"),
        ("Prefill", "prefill", "prefill_tokens_per_s"),
    ):
        columns = [getattr(pool, name) for pool in over_time.pools]
        sums = [float(f"{sum(values):.6g}") for values in zip(*columns, strict=True)]
        series.append(
            Series(
                name=title,
                x=_times(over_time, len(sums)),
                y=sums,
                kind="area",
                stack="tokens",
                color=role,
            )
        )
    return Chart(
        identity=f"time-tokens-{place}",
        title=f"What steps consist of{f': {result}' if result else ''}",
        caption="Tokens that pass through the engines per second, those of prompts and those that "
        "are generated.",
        x=Axis(title="Time, s", low=0),
        y=Axis(title="tokens/s", low=0),
        series=series,
        wide=True,
    )
