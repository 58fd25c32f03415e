"""The ``run`` command: one simulation, its files and its summary."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_inference_simulator.cli.fail_on import parse_conditions
from llm_inference_simulator.cli.run_config import build_config
from llm_inference_simulator.cli.streams import drop_stdout
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import check_writable
from llm_inference_simulator.metrics import percentile_name
from llm_inference_simulator.simulation import SimulationInterrupted, simulate
from llm_inference_simulator.tables import check_table_path

if TYPE_CHECKING:
    from llm_inference_simulator.results import SimulationResult

EXIT_FAIL_ON = 3
EXIT_INTERRUPTED = 130

_OUTPUTS = {
    "command.output": "--output",
    "command.requests_output": "--requests-output",
    "command.steps_output": "--steps-output",
    "command.decisions_output": "--decisions-output",
}
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
    config = build_config(flags)
    check_outputs(flags)
    conditions = parse_conditions(
        flags.get("command.fail_on", ()),
        percentile_names=[percentile_name(p) for p in config.measurement.metric_percentiles],
        goodput=bool(config.measurement.goodput),
    )
    quiet = flags.get("command.quiet", False)
    try:
        result = simulate(
            config,
            progress=not (quiet or flags.get("command.no_progress", False)),
            record_steps="command.steps_output" in flags,
            record_decisions="command.decisions_output" in flags,
        )
    except SimulationInterrupted as interruption:
        return _finish_interrupted(interruption.result, flags)
    write_outputs(result, flags)
    summary = result.summary()
    violations = [text for condition in conditions if (text := condition.violation(summary))]
    _show(result, summary, quiet=quiet)
    for text in violations:
        print(text, file=sys.stderr)
    return EXIT_FAIL_ON if violations else 0


def check_outputs(flags: Mapping[str, Any]) -> None:
    """Refuse outputs that could not be written, or would overwrite one another or an input."""
    if flags.get("command.save_detailed") and "command.output" not in flags:
        raise ConfigError("--save-detailed needs --output: it adds arrays to that file")
    taken: dict[Path, str] = {}
    for place, flag in _INPUTS.items():
        value = flags.get(place)
        if value is not None and Path(value).is_file():
            taken[Path(value).resolve()] = flag
    for place, flag in _OUTPUTS.items():
        value = flags.get(place)
        if value is None:
            continue
        path = Path(value)
        other = taken.setdefault(path.resolve(), flag)
        if other != flag:
            raise ConfigError(f"{other} and {flag} name the same file {path}: give two names")
        if place in ("command.requests_output", "command.steps_output"):
            check_table_path(path, flag)
        check_writable(path, flag)


def write_outputs(result: SimulationResult, flags: Mapping[str, Any]) -> list[str]:
    """Write the files that were asked for; return their names."""
    written = []
    if output := flags.get("command.output"):
        result.write_json(output, detailed=flags.get("command.save_detailed", False))
        written.append(output)
    if requests_output := flags.get("command.requests_output"):
        result.write_requests(requests_output)
        written.append(requests_output)
    if steps_output := flags.get("command.steps_output"):
        result.write_steps(steps_output)
        written.append(steps_output)
    if decisions_output := flags.get("command.decisions_output"):
        result.write_decisions(decisions_output)
        written.append(decisions_output)
    return written


def _finish_interrupted(result: SimulationResult, flags: Mapping[str, Any]) -> int:
    written = write_outputs(result, flags)
    kept = f"; wrote {', '.join(written)}, marked incomplete" if written else ""
    answered = int((result.requests["status"] != 0).sum())
    print(
        f"interrupted after {answered} of {len(result.requests['status'])} requests{kept}",
        file=sys.stderr,
    )
    return EXIT_INTERRUPTED


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
