"""Vidur traces: ``num_prefill_tokens,num_decode_tokens`` and, if known, ``arrived_at`` (s)."""

from __future__ import annotations

from llm_inference_simulator.workload.traces.csv_table import CsvTable
from llm_inference_simulator.workload.traces.numbers import NS_PER_SECOND
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import RecordedRows, Trace, recorded_trace


def read(source: TraceSource) -> Trace:
    """Read a Vidur trace; raises :class:`WorkloadError` naming file and row."""
    return recorded_trace(source, *rows(source))


def rows(source: TraceSource) -> RecordedRows:
    """Read the rows as they stand, in the order of the file."""
    table = CsvTable(source)
    table.require("num_prefill_tokens", "num_decode_tokens")
    times = table.times("arrived_at", NS_PER_SECOND) if "arrived_at" in table else None
    prompts, outputs = table.tokens("num_prefill_tokens"), table.tokens("num_decode_tokens")
    return times, prompts, outputs, []
