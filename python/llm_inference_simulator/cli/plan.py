"""The ``plan`` command: from flags to a request, and the answer on the terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from llm_inference_simulator._core import __version__
from llm_inference_simulator.cli.plan_summary import print_plan
from llm_inference_simulator.cli.run_config import name_flags, put_flags
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import check_writable, is_stream
from llm_inference_simulator.plan import Plan, PlanRequest, make_plan
from llm_inference_simulator.plan.judge import Trial
from llm_inference_simulator.plan.request import DEFAULT_MAX_XPUS, NODE_SIZE, Method, Objective
from llm_inference_simulator.plan.search import Report
from llm_inference_simulator.progress_bar import task_bar
from llm_inference_simulator.report import require_jinja
from llm_inference_simulator.report.plan_page import write_plan_page

EXIT_NOTHING_MEETS = 3
DEFAULT_ROWS = 12
MODES = ("aggregated", "disaggregated")
OBJECTIVES: tuple[str, ...] = get_args(Objective)
SEARCHES: tuple[str, ...] = get_args(Method)


def run_plan(flags: Mapping[str, Any]) -> int:
    """Plan what ``flags`` ask for; the exit code is 3 where nothing meets the objectives."""
    request = request_of(flags)
    output, page = flags.get("command.output"), flags.get("command.report")
    for path, flag in ((output, "--output"), (page, "--report")):
        if path is not None:
            check_writable(Path(path), flag)
    if page is not None:
        require_jinja()
        if output is not None and Path(output).resolve() == Path(page).resolve():
            raise ConfigError(f"--output and --report are both {page}: give two files")
    quiet = flags.get("command.quiet", False)
    silent = quiet or flags.get("command.no_progress", False)
    with _reporter(silent=silent) as report:
        plan = make_plan(request, jobs=flags.get("command.jobs"), report=report)
    _write("--output", output, plan.write_json)
    _write("--report", page, lambda path: write_plan_page(path, plan.to_dict(), __version__))
    if not quiet and (output is None or not is_stream(Path(output))):
        print_plan(plan, flags.get("command.rows", DEFAULT_ROWS))
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if plan.best is None:
        print(f"error: {_nothing_meets(plan)}", file=sys.stderr)
        return EXIT_NOTHING_MEETS
    return 0


def _write(flag: str, file: str | None, write: Callable[[Path], None]) -> None:
    if file is None:
        return
    try:
        write(Path(file))
    except OSError as error:
        raise ConfigError(f"{flag} {file} cannot be written: {error.strerror or error}") from None


def request_of(flags: Mapping[str, Any]) -> PlanRequest:
    """The request that flags describe; raises :class:`ConfigError` in the words of the flags."""
    settings = {place: value for place, value in flags.items() if _is_setting(place)}
    base: dict[str, Any] = {}
    put_flags(base, settings)
    rate = base.get("workload", {}).get("request_rate")
    given = {place.removeprefix("plan."): flags[place] for place in flags if "plan." in place}
    _check_names("--modes", given.get("modes", ()), MODES)
    _check_names("--objective", (given.get("objective", "cost"),), OBJECTIVES)
    _check_names("--search", (given.get("search", "exhaustive"),), SEARCHES)
    if "model" not in base:
        raise ConfigError("--model missing: name a model, as in --model llama-3.1-70b")
    searched = {
        place.removeprefix("settings."): flags[place]
        for place in flags
        if place.startswith("settings.")
    }
    for name in searched:
        if name in base.get("engine", {}):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} and --search-{flag} are both given: leave one out")
    engine = base.get("engine", {})
    if "max_num_batched_tokens" not in engine:
        searched.setdefault("max_num_batched_tokens", (2048, 8192))
    given.setdefault("max_xpus", DEFAULT_MAX_XPUS if rate is not None else NODE_SIZE)
    request = PlanRequest(base=base, request_rate=rate, settings=searched, **{"xpus": (), **given})
    _check_base(request, flags)
    return request


def _is_setting(place: str) -> bool:
    section = place.partition(".")[0]
    return section not in ("plan", "settings", "command")


def _check_names(flag: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            remedy = f"(known: {', '.join(known)})"
            raise ConfigError(unknown_name(f"{flag} name", name, known, remedy=remedy))


def _check_base(request: PlanRequest, flags: Mapping[str, Any]) -> None:
    """Refuse what no candidate could mend, before anything is simulated."""
    base = request.at_rate(1.0 if request.request_rate is None else request.request_rate)
    own = {key: value for key, value in base.items() if key != "transfer"}
    try:
        config = SimulatorConfig.from_dict({**own, "xpu": request.xpus[0]}, source="")
    except ConfigError as error:
        raise ConfigError(name_flags(str(error), flags, None)) from None
    if config.workload.request_rate == float("inf"):
        raise ConfigError("--request-rate inf: give the rate that the cluster must hold, or none")


@contextlib.contextmanager
def _reporter(*, silent: bool) -> Iterator[Report | None]:
    if silent:
        yield None
        return
    with task_bar(1, "planning") as move:
        if move is None:
            yield None
            return

        def show(done: int, total: int, best: Trial | None) -> None:
            found = "" if best is None else f", best so far {best.candidate.count_words}"
            move(done / max(1, total), f"{done:,} of {total:,} candidates{found}")

        yield show


def _nothing_meets(plan: Plan) -> str:
    """Say how near the nearest candidate came, and what could be changed."""
    nearest = plan.nearest
    remedy = "raise --max-xpus, loosen --goodput or --attainment, or name other --xpus"
    if nearest is None or nearest.judgement is None:
        reason = plan.search.pruned[0].reason if plan.search.pruned else "nothing could run"
        return f"nothing meets the objectives: {reason}; {remedy}"
    candidate = nearest.candidate
    return (
        f"nothing meets the objectives; the nearest is {candidate.count_words} "
        f"({candidate.family.words}): {nearest.judgement.reason}; {remedy}"
    )
