"""The ``sweep`` command: many configurations, their folder and their table."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_inference_simulator.cli.catalog import print_table
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.progress_bar import configurations_bar
from llm_inference_simulator.sweep import SweepInterrupted, SweepResult, SweepSpec, run_sweep
from llm_inference_simulator.sweep.executors import Executor, local_executor

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
DEFAULT_ROWS = 20
EXECUTORS = ("local", "ray")

SHOWN_METRICS = {
    "request_throughput": "req/s",
    "output_throughput": "tokens/s",
    "median_ttft_ms": "TTFT p50",
    "p99_ttft_ms": "TTFT p99",
    "median_tpot_ms": "TPOT p50",
    "p99_tpot_ms": "TPOT p99",
    "slo_attainment": "attained",
    "per_million_output_tokens_usd": "$/M out",
}
"""Columns of the table beside the parameters, with their headings; times in ms."""


def run_sweep_command(flags: Mapping[str, Any]) -> int:
    """Run the sweep that ``flags`` name and return the exit code: 2 where no row has metrics."""
    file, output = flags.get("command.spec"), flags.get("command.output")
    if file is None:
        raise ConfigError("sweep needs a file of a base and values, as in: sweep SPEC.yaml")
    if output is None:
        raise ConfigError("--output missing: give a folder for the results, as in --output sweep1")
    spec = SweepSpec.from_file(file)
    quiet = flags.get("command.quiet", False)
    try:
        result, path = _run(spec, Path(output), flags, silent=quiet)
    except SweepInterrupted as interruption:
        print(f"{interruption}, which are in {output}: the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    if not quiet:
        print_sweep(result, flags.get("command.sort"), flags.get("command.rows", DEFAULT_ROWS))
        print(f"\n{len(result.rows):,} configurations: {path}")
    good = any(row.status == "ok" for row in result.rows)
    if not good:
        print(f"error: no configuration could run: {result.rows[0].reason}", file=sys.stderr)
    return 0 if good else EXIT_BAD_INPUT


def _run(
    spec: SweepSpec, folder: Path, flags: Mapping[str, Any], *, silent: bool
) -> tuple[SweepResult, Path]:
    executor = _executor(flags)
    if silent or flags.get("command.no_progress"):
        return run_sweep(spec, folder, executor=executor)
    with configurations_bar(len(spec)) as progress:
        return run_sweep(spec, folder, executor=executor, progress=progress)


def _executor(flags: Mapping[str, Any]) -> Executor:
    name, jobs = flags.get("command.executor", "local"), flags.get("command.jobs")
    address = flags.get("command.ray_address")
    if name not in EXECUTORS:
        known = f"(known: {', '.join(EXECUTORS)})"
        raise ConfigError(unknown_name("--executor", name, EXECUTORS, remedy=known))
    if name == "ray":
        from llm_inference_simulator.sweep.ray_executor import ray_executor

        if address is not None and jobs is not None:
            raise ConfigError(
                f"--jobs {jobs} is for a cluster of this machine, but --ray-address {address} has "
                "its own CPUs: leave one out"
            )
        return ray_executor(address, jobs)
    if address is not None:
        raise ConfigError(f"--ray-address {address} needs --executor ray: give it too")
    return local_executor(jobs)


def print_sweep(result: SweepResult, sort: str | None, most: int) -> None:
    """Print the best rows and why others have none."""
    columns = result.columns()
    order = sorted_places(columns, sort)
    parameters = [name for name in result.spec.parameters if _varies(columns[name])]
    metrics = [name for name in SHOWN_METRICS if any(v is not None for v in columns.get(name, ()))]
    named = sort.removeprefix("-") if sort else None
    if named is not None and named not in (*parameters, *metrics):
        metrics.insert(0, named)
    if order:
        header = ["#", *_short(parameters), *(SHOWN_METRICS.get(name, name) for name in metrics)]
        rows = [
            [
                str(place),
                *(_parameter(columns[name][place]) for name in parameters),
                *(_metric(columns[name][place]) for name in metrics),
            ]
            for place in order[:most]
        ]
        print_table(header, rows, right=[0, *range(1 + len(parameters), len(header))])
        if len(order) > most:
            print(f"{len(order) - most:,} more rows")
    reasons = Counter((row.status, row.reason) for row in result.rows if row.status != "ok")
    for (status, reason), count in reasons.most_common(most):
        print(f"\n{count:,} {status}: {reason}")


def sorted_places(columns: Mapping[str, Sequence[Any]], sort: str | None) -> list[int]:
    """Places of the rows with metrics in the order of a column; undefined values last."""
    places = [i for i, status in enumerate(columns["status"]) if status == "ok"]
    if sort is None:
        goals = columns.get("slo_attainment", ())
        with_goals = any(value is not None for value in goals)
        sort = "-slo_attainment" if with_goals else "-output_throughput"
    name, largest_first = sort.removeprefix("-"), sort.startswith("-")
    if not places:
        return []
    if name not in columns:
        raise ConfigError(unknown_name("--sort column", name, columns, remedy="(see the results)"))
    values = columns[name]
    known = [place for place in places if _is_known(values[place])]
    known.sort(key=lambda place: values[place], reverse=largest_first)
    return known + [place for place in places if not _is_known(values[place])]


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _varies(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _short(paths: Sequence[str]) -> list[str]:
    """The last part of each path where that tells them apart."""
    last = [path.rpartition(".")[2] for path in paths]
    return [path if last.count(name) > 1 else name for path, name in zip(paths, last, strict=True)]


def _parameter(value: Any) -> str:
    return "-" if value is None else str(value)


def _metric(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
