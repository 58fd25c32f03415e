"""The trace formats, and how a file's content gives its format away."""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from llm_inference_simulator.errors import WorkloadError, unknown_name
from llm_inference_simulator.workload.traces.source import TraceSource, read_source
from llm_inference_simulator.workload.traces.trace import Trace

READERS = ("azure", "mooncake", "burstgpt", "sharegpt", "vidur", "vllm-bench")
"""Formats of one file; each has a module of its name, imported when such a file is read."""
SERVEGEN = "servegen"
FORMATS = (*READERS, SERVEGEN)

_CSV_MARKS = {
    "azure": ("timestamp", "contexttokens", "generatedtokens"),
    "burstgpt": ("timestamp", "request tokens", "response tokens"),
    "vidur": ("num_prefill_tokens", "num_decode_tokens"),
}
_SERVEGEN_ROW = re.compile(r"\d+(,[^,]*){2},(Gamma|Weibull|)(,[^,]*){2}", re.ASCII)
_LOOKS_LIKE = (
    "azure (TIMESTAMP,ContextTokens,GeneratedTokens), burstgpt (Timestamp,Model,Request tokens,"
    "Response tokens), vidur (num_prefill_tokens,num_decode_tokens), servegen (a folder of "
    "chunk-N-trace.csv), mooncake (a JSON object a line: timestamp, input_length, output_length), "
    "sharegpt (a JSON list of conversations), vllm-bench (a JSON object with input_lens)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceLimits:
    """How much of a trace will be used, so that sampled ones needn't be drawn in full."""

    seed: int = 0
    limit_ns: int | None = None
    limit_rows: int | None = None


def load_trace(path: Path, trace_format: str = "auto", limits: TraceLimits | None = None) -> Trace:
    """Read a trace file or folder, whole; ``auto`` goes by its content, not by its name.

    ``limits`` matter to sampled formats (servegen) only. Raises :class:`WorkloadError` naming file
    and row, or what was found where the format is unknown.
    """
    limits = limits or TraceLimits()
    if trace_format not in ("auto", *FORMATS):
        raise WorkloadError(
            unknown_name(
                "trace_format", trace_format, FORMATS, remedy=f"(known: {', '.join(FORMATS)})"
            )
        )
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for names the system refuses
        from llm_inference_simulator.workload.traces import servegen

        if trace_format not in ("auto", SERVEGEN) or not servegen.is_client_folder(path):
            raise WorkloadError(
                f"trace {path} is a folder: give a file, or a folder with ServeGen's "
                "chunk-N-trace.csv and chunk-N-dataset.json"
            )
        return _sample(path, limits)
    source = read_source(path)
    found = detect(source)
    if trace_format == "auto":
        if found is None:
            raise source.error(f"unknown format; it has {_describe(source)}. Known: {_LOOKS_LIKE}")
        trace_format = found
    elif found not in (None, trace_format):
        raise source.error(
            f"trace_format={trace_format} was given but the content looks like {found}: use "
            f"trace_format={found} or auto"
        )
    return _sample(path, limits) if trace_format == SERVEGEN else _read(source, trace_format)


def _read(source: TraceSource, trace_format: str) -> Trace:
    home = f"llm_inference_simulator.workload.traces.{trace_format.replace('-', '_')}"
    return cast(Trace, importlib.import_module(home).read(source))


def _sample(path: Path, limits: TraceLimits) -> Trace:
    from llm_inference_simulator.workload.traces import servegen

    return servegen.sample(
        path, limits.seed, limit_ns=limits.limit_ns, limit_rows=limits.limit_rows
    )


def detect(source: TraceSource) -> str | None:
    """Name the format of a file by its content; None if it looks like none."""
    start = source.text.lstrip()
    if start.startswith("["):
        return "sharegpt"
    first = _first_line(source)
    if start.startswith("{"):
        return _detect_object(first, source.text)
    names = {name.strip().strip('"').casefold() for name in first.split(",")}
    for trace_format, marks in _CSV_MARKS.items():
        if names.issuperset(marks):
            return trace_format
    return SERVEGEN if _SERVEGEN_ROW.fullmatch(first) else None


def _detect_object(first: str, text: str) -> str | None:
    try:
        keys = set(json.loads(first))
    except (ValueError, RecursionError):
        # An object over several lines, or one cut off: its first keys must do.
        keys = set(re.findall(r'"(\w+)"\s*:', text[:100_000]))
    if keys & {"input_lens", "request_throughput", "total_input_tokens"}:
        return "vllm-bench"
    if keys & {"input_length", "output_length", "timestamp"}:
        return "mooncake"
    return None


def _first_line(source: TraceSource) -> str:
    return source.text.lstrip().partition("\n")[0].strip()


def _describe(source: TraceSource) -> str:
    first = _first_line(source)
    shown = first if len(first) <= 80 else first[:77] + "..."
    return f"the first line {shown!r}"
