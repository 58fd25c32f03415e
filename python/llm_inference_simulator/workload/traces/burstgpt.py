"""BurstGPT traces: ``Timestamp,Model,Request tokens,Response tokens,…``, seconds.

Rows without response tokens are requests that failed in the recorded service; as in vLLM's
benchmark they are dropped. Unlike there, the rows of all models are kept: together they are the
load of the service. Newer files add ``Session ID`` and ``Elapsed time``, which are not used.
"""

from __future__ import annotations

import numpy as np

from llm_inference_simulator.workload.traces.csv_table import CsvTable
from llm_inference_simulator.workload.traces.numbers import NS_PER_SECOND
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import RecordedRows, Trace, recorded_trace


def read(source: TraceSource) -> Trace:
    """Read a BurstGPT trace; raises :class:`WorkloadError` naming file and row."""
    return recorded_trace(source, *rows(source))


def rows(source: TraceSource) -> RecordedRows:
    """Read the rows as they stand, in the order of the file."""
    table = CsvTable(source)
    table.require("Timestamp", "Request tokens", "Response tokens")
    times = table.times("Timestamp", NS_PER_SECOND)
    prompts, outputs = table.tokens("Request tokens"), table.tokens("Response tokens")
    kept = outputs > 0
    dropped = len(outputs) - int(np.count_nonzero(kept))
    warnings = []
    if dropped:
        warnings.append(
            f"{dropped:,} rows have no response tokens (failed requests) and were dropped"
        )
    return times[kept], prompts[kept], outputs[kept], warnings
