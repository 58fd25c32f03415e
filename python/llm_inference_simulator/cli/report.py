"""The subcommand ``report``: a page of saved results, one or several side by side."""

from __future__ import annotations

import argparse
from pathlib import Path

from llm_inference_simulator.errors import ConfigError

DESCRIPTION = """\
Make one HTML file of saved results: the answer, distributions, time series,
what bounds the engines, slow requests, capacity, cost, warnings and where the
numbers come from. It opens from disk and asks the network for nothing.

A result is what run --output FILE.json wrote; with --save-digest or --report it
also carries what the charts need."""


def add_report_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``report RESULT... [--output FILE.html]``; the handler is in ``args.run``."""
    parser = subparsers.add_parser(
        "report",
        usage="%(prog)s RESULT.json ... [--output FILE.html]",
        help="make a page of saved results",
        description=DESCRIPTION,
    )
    parser.add_argument("results", nargs="*", metavar="RESULT.json", help="saved results")
    parser.add_argument(
        "--output",
        default="report.html",
        metavar="FILE.html",
        help="where the page goes (default: report.html)",
    )
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> int:
    """Handle ``report``; returns the exit code."""
    from llm_inference_simulator.files import check_writable, is_stream, real_path
    from llm_inference_simulator.report.page import require_jinja
    from llm_inference_simulator.report.result_page import write_report
    from llm_inference_simulator.report.saved import read_result

    if not args.results:
        raise ConfigError("report needs results: name files that run --output wrote")
    paths, output = [Path(name) for name in args.results], Path(args.output)
    require_jinja()
    check_writable(output, "--output")
    if not is_stream(output) and real_path(output) in map(real_path, paths):
        raise ConfigError(f"--output {output} is one of the results: give another name")
    results = [(path.stem, read_result(path)) for path in paths]
    write_report(output, results)
    if not is_stream(output):
        print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB")
    return 0
