"""The ``run`` command: one simulation, its files and its summary."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.cli.run_config import build_config, read_vllm_lines
from llm_inference_simulator.cli.streams import drop_stdout
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import check_writable, is_stream, real_path
from llm_inference_simulator.metrics import percentile_name
from llm_inference_simulator.results import strict_json
from llm_inference_simulator.simulation import SimulationInterrupted, simulate
from llm_inference_simulator.tables import block_writer, check_table_path

if TYPE_CHECKING:
    from llm_inference_simulator.cli.fail_on import Condition
    from llm_inference_simulator.config import MeasurementConfig
    from llm_inference_simulator.results import SimulationResult
    from llm_inference_simulator.streaming import RowSink

EXIT_FAIL_ON = 3
EXIT_INTERRUPTED = 130

_OUTPUTS = {
    "command.output": "--output",
    "command.requests_output": "--requests-output",
    "command.steps_output": "--steps-output",
    "command.report": "--report",
    "command.timeline": "--timeline",
    "command.decisions_output": "--decisions-output",
}
_NEED_STEPS = ("steps_output", "save_digest", "report", "timeline")
"""Flags of ``command`` that show what steps did."""
_INPUTS = {
    "command.config_file": "--config",
    "workload.trace": "--trace",
    "workload.lengths_from": "--lengths-from",
    "performance.calibration_data": "--calibration-data",
    "model": "--model",
    "xpu": "--xpu",
}


def run(flags: Mapping[str, Any]) -> int:
    """Simulate what ``flags`` describe and return the exit code."""
    lines = read_vllm_lines(flags)
    config = build_config(flags, lines)
    check_outputs(flags, config.cluster.n_engines)
    conditions = _conditions(flags, config.measurement)
    quiet = flags.get("command.quiet", False)
    streams = config.measurement.streaming
    if streams:
        _refuse_arrays(flags)
    written: list[str] = []
    try:
        with _row_sink(flags if streams else {}, written) as row_sink:
            result = simulate(
                config,
                progress=not (quiet or flags.get("command.no_progress", False)),
                record_steps=any(flags.get(f"command.{name}") for name in _NEED_STEPS),
                record_decisions="command.decisions_output" in flags,
                provenance=None if lines is None else {"from_vllm": lines.provenance()},
                row_sink=row_sink,
                threads=flags.get("command.threads"),
            )
    except SimulationInterrupted as interruption:
        return _finish_interrupted(interruption, flags)
    quiet = quiet or _fills_stdout(flags)
    try:
        write_outputs(result, flags, written)
    except KeyboardInterrupt:
        return _finish_unwritten(result, flags, written)
    summary = result.summary()
    violations = [text for condition in conditions if (text := condition.violation(summary))]
    _show(result, summary, quiet=quiet)
    if not quiet and config.cluster.n_engines > 1 and "command.decisions_output" in flags:
        print(f"\ndecisions: {', '.join(written[-config.cluster.n_engines :])}")
    for text in violations:
        print(text, file=sys.stderr)
    return EXIT_FAIL_ON if violations else 0


def _conditions(flags: Mapping[str, Any], measurement: MeasurementConfig) -> Sequence[Condition]:
    """What --fail-on asks of the result."""
    texts = flags.get("command.fail_on")
    if not texts:
        return ()
    from llm_inference_simulator.cli.fail_on import parse_conditions

    return parse_conditions(
        texts,
        percentile_names=[percentile_name(p) for p in measurement.metric_percentiles],
        goodput=bool(measurement.goodput),
    )


def _refuse_arrays(flags: Mapping[str, Any]) -> None:
    """Refuse outputs that hold what a streamed run does not keep."""
    for place, kept in (
        ("command.save_detailed", "the token times of every request"),
        ("command.steps_output", "every step"),
        ("command.decisions_output", "every decision"),
        ("command.report", "every request and step"),
        ("command.timeline", "every request and step"),
        ("command.save_digest", "every request and step"),
    ):
        if flags.get(place):
            flag = "--" + place.partition(".")[2].replace("_", "-")
            raise ConfigError(
                f"{flag} keeps {kept}, --streaming none: leave one of them out "
                "(--requests-output FILE.parquet has a row per request)"
            )


@contextlib.contextmanager
def _row_sink(flags: Mapping[str, Any], written: list[str]) -> Iterator[RowSink | None]:
    """What takes the rows of a streamed run while it goes on: --requests-output, if it is given."""
    value = flags.get("command.requests_output")
    if value is None:
        yield None
        return
    try:
        with block_writer(Path(value), "requests table") as write:
            yield write
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--requests-output {value} cannot be written: {reason}") from None
    written.append(value)


def check_outputs(flags: Mapping[str, Any], n_engines: int) -> None:
    """Refuse outputs that could not be written, or would overwrite one another or an input."""
    for name, what in (("save_detailed", "arrays"), ("save_digest", "a digest of the run")):
        if flags.get(f"command.{name}") and "command.output" not in flags:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} needs --output: it adds {what} to that file")
    if "command.report" in flags:
        from llm_inference_simulator.report.page import require_jinja

        require_jinja()
    if any(place.startswith("command.timeline") for place in flags):
        from llm_inference_simulator.cli.timeline_scope import timeline_scope

        timeline_scope(flags)
    taken: dict[Path, str] = {}
    for place, flag in _INPUTS.items():
        value = flags.get(place)
        if value is not None and Path(value).is_file():
            taken[real_path(Path(value))] = flag
    for place, flag in _OUTPUTS.items():
        value = flags.get(place)
        if value is None:
            continue
        for path in _targets(place, Path(value), n_engines):
            # A device or a pipe takes what comes; nothing in it is overwritten.
            other = flag if is_stream(path) else taken.setdefault(real_path(path), flag)
            if other != flag:
                raise ConfigError(f"{other} and {flag} name the same file {path}: give two names")
            if place in ("command.requests_output", "command.steps_output"):
                check_table_path(path, flag)
            elif place == "command.timeline":
                from llm_inference_simulator.report.timeline import check_timeline_path

                check_timeline_path(path, flag)
            check_writable(path, flag)


def _targets(place: str, path: Path, n_engines: int) -> list[Path]:
    """Files that the flag of ``place`` really writes."""
    if place != "command.decisions_output" or n_engines == 1:
        return [path]
    if is_stream(path):
        raise ConfigError(
            f"--decisions-output {path} is not a regular file, but each of the {n_engines} engines "
            "has a file of its own: give a file name"
        )
    from llm_inference_simulator.decisions import decision_paths

    return decision_paths(path, n_engines)


def write_outputs(
    result: SimulationResult, flags: Mapping[str, Any], written: list[str] | None = None
) -> list[str]:
    """Write the files that were asked for; return their names.

    ``written`` gets each name as soon as its file is whole, for callers that may be interrupted.
    """
    written = [] if written is None else written
    detailed = flags.get("command.save_detailed", False)
    digest: dict[str, Any] = {}
    if flags.get("command.save_digest") or "command.report" in flags:
        from llm_inference_simulator.report.digest import make_digest
        from llm_inference_simulator.report.saved import DIGEST_KEY

        digest = {DIGEST_KEY: make_digest(result)}
    _write(
        "command.output",
        flags,
        lambda path: result.write_json(path, detailed=detailed, extra=digest),
        written,
    )
    if flags.get("command.requests_output") not in written:
        _write("command.requests_output", flags, result.write_requests, written)
    _write("command.steps_output", flags, result.write_steps, written)
    _write("command.report", flags, lambda path: _write_page(result, digest, path), written)
    _write("command.timeline", flags, lambda path: _write_trace(result, flags, path), written)
    _write("command.decisions_output", flags, result.write_decisions, written)
    return written


def _write_page(result: SimulationResult, digest: Mapping[str, Any], path: Path) -> None:
    from llm_inference_simulator.report.result_page import write_report
    from llm_inference_simulator.report.saved import SavedResult

    data = strict_json({**result.summary(), **digest})
    write_report(path, [("run", SavedResult.from_summary(data, source="the run"))])


def _write_trace(result: SimulationResult, flags: Mapping[str, Any], path: Path) -> None:
    from llm_inference_simulator.cli.timeline_scope import timeline_scope
    from llm_inference_simulator.progress_bar import task_bar
    from llm_inference_simulator.report.timeline import MANY_EVENTS, count_events, write_timeline

    scope = timeline_scope(flags)
    quiet = flags.get("command.quiet", False)
    events = count_events(result, scope)
    if events > MANY_EVENTS and not quiet:
        print(
            f"--timeline {path}: about {events:,} events, which viewers open slowly; narrow it "
            "with --timeline-window and --timeline-requests",
            file=sys.stderr,
        )
    hidden = quiet or flags.get("command.no_progress", False)
    bar = contextlib.nullcontext() if hidden else task_bar(events, "writing the timeline")
    with bar as move:
        write_timeline(result, path, scope, move)


def _write(
    place: str,
    flags: Mapping[str, Any],
    write: Callable[[Path], list[Path] | None],
    written: list[str],
) -> None:
    """Write one output, if it was asked for, and note the names of its files."""
    value = flags.get(place)
    if value is None:
        return
    try:
        paths = write(Path(value))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{_OUTPUTS[place]} {value} cannot be written: {reason}") from None
    written += map(str, paths or [value])


def _write_summary(result: SimulationResult, flags: Mapping[str, Any], written: list[str]) -> None:
    """Write the JSON without arrays, which takes no time, unless --output is there already."""
    if flags.get("command.output") not in written:
        _write("command.output", flags, result.write_json, written)


def _finish_unwritten(
    result: SimulationResult, flags: Mapping[str, Any], written: list[str]
) -> int:
    """End after Ctrl-C while the outputs of a finished run were written."""
    whole = flags.get("command.output") in written
    _write_summary(result, flags, written)
    _say_interrupted("interrupted while writing a finished run", flags, written, detailed=whole)
    return EXIT_INTERRUPTED


def _finish_interrupted(interruption: SimulationInterrupted, flags: Mapping[str, Any]) -> int:
    """End after Ctrl-C in the event loop: all but the summary may take minutes to write."""
    written: list[str] = []
    if "command.output" in flags:
        print(f"interrupted: writing {flags['command.output']}", file=sys.stderr, flush=True)
        _write_summary(interruption.result, flags, written)
    happened = f"interrupted after {interruption.answered} of {interruption.requests} requests"
    _say_interrupted(happened, flags, written, detailed=False, mark=", marked incomplete")
    return EXIT_INTERRUPTED


def _say_interrupted(
    happened: str, flags: Mapping[str, Any], written: list[str], *, detailed: bool, mark: str = ""
) -> None:
    """Tell on stderr what was written and what was left out."""
    left_out = [
        f"{flag} {flags[place]}"
        for place, flag in _OUTPUTS.items()
        if place in flags and flags[place] not in written
    ]
    if flags.get("command.save_digest") and not detailed:
        left_out.insert(0, "the digest of --save-digest")
    if flags.get("command.save_detailed") and not detailed:
        left_out.insert(0, "the arrays of --save-detailed")
    kept = f"; wrote {', '.join(written)}{mark}" if written else ""
    missing = f"; left out: {', '.join(left_out)}" if left_out else ""
    print(happened + kept + missing, file=sys.stderr)


def _fills_stdout(flags: Mapping[str, Any]) -> bool:
    """Tell whether an output is standard output itself: a summary would spoil what it gets."""
    paths = [Path(flags[place]) for place in _OUTPUTS if place in flags]
    try:
        stdout = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):  # replaced by an object without a descriptor
        return False
    return any(is_stream(path) and os.path.samestat(stdout, path.stat()) for path in paths)


def _show(result: SimulationResult, summary: Mapping[str, Any], *, quiet: bool) -> None:
    if quiet:
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return
    from llm_inference_simulator.cli.summary import print_summary

    try:
        print_summary(result, summary)
        sys.stdout.flush()
    except BrokenPipeError:
        drop_stdout()
