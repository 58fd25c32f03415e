"""A plan on the terminal: the answer, why, what else, the commands."""

from __future__ import annotations

from collections.abc import Sequence

from llm_inference_simulator.cli.catalog import print_table
from llm_inference_simulator.plan.judge import Judgement, Trial
from llm_inference_simulator.plan.planner import Plan
from llm_inference_simulator.plan.search import kind_of

_LATENCIES = (("p99_ttft_ms", "TTFT p99"), ("p99_tpot_ms", "TPOT p99"))


def print_plan(plan: Plan, most: int) -> None:
    """Print everything but the warnings."""
    print(_question(plan))
    if plan.best is not None:
        _print_best(plan, plan.best)
        _print_knobs(plan)
    _print_candidates(plan, most)
    _print_fronts(plan)
    _print_impossible(plan)
    if plan.commands:
        _heading("Commands")
        print("\n".join(plan.commands))


def _question(plan: Plan) -> str:
    request = plan.request
    limits = ", ".join(f"{name} <= {limit:g} ms" for name, limit in request.objectives_ms.items())
    model, share = request.base["model"], f"{request.attainment:.4g} of the requests with {limits}"
    if request.request_rate is None:
        return (
            f"{model}: highest rate of each cluster up to {request.max_xpus} accelerators, {share}"
        )
    return f"{model} at {request.request_rate:g} requests/s, {share}"


def _print_best(plan: Plan, best: Trial) -> None:
    assert best.judgement is not None
    metrics, judgement = best.judgement.metrics, best.judgement
    value = next(v for place, v in plan.values.items() if plan.trials[place] is best)
    _heading("Best")
    rows = [
        ["cluster", f"{best.candidate.count_words}, {best.candidate.family.xpu}"],
        ["settings", best.candidate.family.words],
        ["objective", f"{value:.4g} {plan.unit}"],
    ]
    if plan.request.request_rate is None:
        held = f"{best.rate:.4g} requests/s (within {plan.request.tolerance:.1%})"
        rows.append(["holds", held])
    rows += [
        [
            "attained",
            f"{judgement.attained:.2%} of all, {judgement.attained_late:.2%} of the late half",
        ],
        ["latency", ", ".join(f"{name} {_ms(metrics[key])} ms" for key, name in _LATENCIES)],
        [
            "speed",
            f"{_number(metrics['tokens_per_s_per_user'])} tokens/s a user, "
            f"{_number(metrics['tokens_per_s_per_xpu'])} tokens/s an accelerator",
        ],
    ]
    if metrics["usd_per_hour"] is not None:
        million = _number(metrics["per_million_output_tokens_usd"])
        rows.append(
            [
                "cost",
                f"{metrics['usd_per_hour']:.4g} USD per hour, {million} per million output tokens",
            ]
        )
    print_table((), rows)
    _heading("What binds")
    print("\n".join(f"  {line}" for line in plan.binds))


def _print_knobs(plan: Plan) -> None:
    if not plan.knobs:
        return
    _heading("What each knob would change")
    rows = [[knob.change, *_cells(knob.trial)] for knob in plan.knobs]
    print_table(("change", *_HEADINGS), rows, right=range(1, 1 + len(_HEADINGS) - 1))


_HEADINGS = ("xPUs", "USD/h", "attained", "TTFT p99", "TPOT p99", "verdict")


def _cells(trial: Trial) -> list[str]:
    judgement = trial.judgement
    if judgement is None:
        return [str(trial.candidate.n_xpus), "-", "-", "-", "-", f"refused: {trial.refusal}"]
    return [
        str(trial.candidate.n_xpus),
        _number(judgement.metrics["usd_per_hour"]),
        f"{judgement.share:.2%}",
        *(_ms(judgement.metrics[key]) for key, _ in _LATENCIES),
        "meets" if judgement.meets else f"misses {_missed(judgement)}",
    ]


def _missed(judgement: Judgement) -> str:
    return judgement.binding or "the queue grows"


def _print_candidates(plan: Plan, most: int) -> None:
    """The best of each family first, then the nearest of those that miss."""
    ranked = sorted(
        range(len(plan.trials)),
        key=lambda place: (
            plan.values.get(place, float("inf")),
            -(plan.trials[place].judgement.share if plan.trials[place].judgement else -1.0),  # type: ignore[union-attr]
        ),
    )
    chosen: list[Trial] = []
    others: list[Trial] = []
    seen = set()
    for place in ranked:
        trial = plan.trials[place]
        kind = kind_of(trial.candidate)
        (others if kind in seen else chosen).append(trial)
        seen.add(kind)
    # The best of each accelerator and mode, then whatever else comes near.
    chosen = (chosen + others)[: max(most, len(chosen))]
    if not chosen:
        return
    _heading("Candidates: the best of each accelerator and mode, then the next best")
    rate = plan.request.request_rate is None
    rows = [
        [
            trial.candidate.family.words,
            trial.candidate.count_words.partition(" = ")[2],
            *([f"{trial.rate:.4g}" if trial.meets else "-"] if rate else []),
            *_cells(trial),
        ]
        for trial in chosen
    ]
    header = ("kind", "engines", *(["req/s"] if rate else []), *_HEADINGS)
    print_table(header, rows, right=range(2, len(header) - 1))
    print(f"{len(plan.trials):,} candidates were simulated")
    if plan.search.unneeded:
        print(f"{plan.search.unneeded:,} dearer candidates needed no simulation")


def _print_fronts(plan: Plan) -> None:
    names = {
        "speed_per_user_and_per_xpu": (
            "Pareto front: tokens/s a user and an accelerator",
            ("tokens_per_s_per_user", "tokens_per_s_per_xpu"),
        ),
        "cost_and_tail_latency": (
            "Pareto front: USD per hour and TTFT p99",
            ("usd_per_hour", "p99_ttft_ms"),
        ),
    }
    for key, (title, metrics) in names.items():
        places = plan.fronts[key]
        if places:
            _heading(title)
            print_table((), [_front_row(plan.trials[place], metrics) for place in places], (0, 1))


def _front_row(trial: Trial, metrics: Sequence[str]) -> list[str]:
    assert trial.judgement is not None
    values = [_number(trial.judgement.metrics[name]) for name in metrics]
    return [*values, f"{trial.candidate.count_words}: {trial.candidate.family.words}"]


def _print_impossible(plan: Plan) -> None:
    pruned = plan.search.pruned
    if not pruned:
        return
    _heading(f"Not possible ({len(pruned):,} kinds)")
    by_xpu: dict[tuple[str, str], list[str]] = {}
    for each in pruned:
        by_xpu.setdefault((each.family.xpu, each.verdict), []).append(each.reason)
    for (xpu, verdict), reasons in by_xpu.items():
        print(f"  {len(reasons)} of {xpu}: {verdict}: {reasons[0]}")


def _heading(text: str) -> None:
    print(f"\n{text}")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1e4 else f"{value:,.0f}"
