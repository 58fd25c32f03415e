"""Azure LLM inference traces: ``TIMESTAMP,ContextTokens,GeneratedTokens``.

The 2023 files write ``2023-11-16 18:15:46.6805900``, the week of 2024 ``2024-05-10
00:00:00.009930+00:00`` (UTC) and no fraction where it is zero. The multimodal files' ``NumImages``
is not simulated: such requests are read as their text alone.
"""

from __future__ import annotations

import re

import numpy as np

from llm_inference_simulator.workload.columns import Int64Array
from llm_inference_simulator.workload.traces.csv_table import CsvTable
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import RecordedRows, Trace, recorded_trace

# Nanoseconds in 64 bits reach from 1678 to 2262: the years are limited so that none wraps.
_TIMESTAMP = re.compile(
    r"((?:19|20|21)\d\d-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?)(?:Z|\+00:00)?", re.ASCII
)
_EXAMPLE = "2023-11-16 18:15:46.6805900"


def read(source: TraceSource) -> Trace:
    """Read an Azure trace; raises :class:`WorkloadError` naming file and row."""
    return recorded_trace(source, *rows(source))


def rows(source: TraceSource) -> RecordedRows:
    """Read the rows as they stand, in the order of the file."""
    table = CsvTable(source)
    table.require("TIMESTAMP", "ContextTokens", "GeneratedTokens")
    warnings = []
    if "NumImages" in table:
        images = np.count_nonzero(table.tokens("NumImages"))
        if images:
            warnings.append(f"{images:,} requests carry images, which are not simulated")
    return (
        _timestamps(table),
        table.tokens("ContextTokens"),
        table.tokens("GeneratedTokens"),
        warnings,
    )


def _timestamps(table: CsvTable) -> Int64Array:
    stamps = []
    for row, text in enumerate(table.texts("TIMESTAMP")):
        match = _TIMESTAMP.fullmatch(text.strip())
        if match is None:
            raise table.row_error(row, _not_a_time(text))
        stamps.append(match[1])
    try:
        return np.array(stamps, dtype="datetime64[ns]").astype(np.int64)
    except ValueError:
        for row, stamp in enumerate(stamps):
            try:
                np.datetime64(stamp)
            except ValueError:
                raise table.row_error(row, _not_a_time(stamp)) from None
        raise


def _not_a_time(text: str) -> str:
    return f"TIMESTAMP={text!r} is not a time: it must look like {_EXAMPLE} (UTC)"
