"""Traces that are read piece by piece: tables of a row a request, in order of time."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.columns import Int64Array
from llm_inference_simulator.workload.traces import azure, burstgpt, vidur
from llm_inference_simulator.workload.traces.registry import detect
from llm_inference_simulator.workload.traces.source import TraceSource, next_lines, open_text
from llm_inference_simulator.workload.traces.trace import RecordedRows

ROWS: dict[str, Callable[[TraceSource], RecordedRows]] = {
    "azure": azure.rows,
    "burstgpt": burstgpt.rows,
    "vidur": vidur.rows,
}
"""Formats that can be read so: no row says anything of another one."""

_NUMBER = re.compile(r"\d[\d,]*")


@dataclass(slots=True)
class TracePieces:
    """A trace on its way: pieces of (arrival_ns, prompt tokens, output tokens).

    Times count from the first request. ``warnings`` are complete behind the last piece.
    """

    path: Path
    trace_format: str
    rows_a_piece: int
    last_ns: int = 0
    """The latest arrival so far."""
    _counts: dict[str, list[int]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[Int64Array, Int64Array, Int64Array]]:
        start_ns: int | None = None
        for source, read in self._sources():
            times, prompts, outputs, warnings = read(source)
            if times is None:
                raise source.error(
                    "it has no times: leave --streaming out, or give a trace that has them"
                )
            self._count(warnings)
            if not len(times):
                continue
            times, prompts, outputs = self._sorted(times, prompts, outputs)
            start_ns = int(times[0]) if start_ns is None else start_ns
            if int(times[0]) - start_ns < self.last_ns:
                raise source.error(
                    "it is earlier than rows that were read before: sort the file by time, or "
                    "leave --streaming out",
                    row=1,
                )
            self.last_ns = int(times[-1]) - start_ns
            yield times - start_ns, prompts, outputs
        if start_ns is None:
            raise WorkloadError(f"trace {self.path}: no request is left")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the pieces warned of, their numbers added up."""
        return tuple(
            _NUMBER.sub("{:,}", text).format(*numbers) for text, numbers in self._counts.items()
        )

    def _sources(self) -> Iterator[tuple[TraceSource, Callable[[TraceSource], RecordedRows]]]:
        if os.path.isdir(self.path):  # noqa: PTH112 - as in the registry
            raise self._unreadable("a folder")
        with open_text(self.path) as file:
            header = next_lines(file, self.path, 1)
            rows = lines = 0
            while part := next_lines(file, self.path, self.rows_a_piece):
                text = "".join([*header, *part])
                source = TraceSource(self.path, text, rows_before=rows, lines_before=lines)
                if not lines:
                    self._check_format(source)
                lines += len(part)
                filled = sum(1 for line in part if line.strip())
                rows += filled
                if filled:
                    yield source, ROWS[self.trace_format]
            if not lines:
                self._check_format(TraceSource(self.path, "".join(header)))
                raise WorkloadError(f"trace {self.path} holds no rows: give one request at least")

    def _check_format(self, source: TraceSource) -> None:
        found = detect(source)
        if self.trace_format == "auto" and found is not None:
            self.trace_format = found
        if self.trace_format not in ROWS:
            raise self._unreadable(found or "an unknown format")
        if found not in (None, self.trace_format):
            raise source.error(
                f"trace_format={self.trace_format} was given but the content looks like {found}: "
                f"use trace_format={found} or auto"
            )

    def _unreadable(self, found: str) -> WorkloadError:
        return WorkloadError(
            f"trace {self.path}: --streaming reads {', '.join(ROWS)} piece by piece, and this is "
            f"{found}: leave --streaming out"
        )

    def _sorted(
        self, times: Int64Array, prompts: Int64Array, outputs: Int64Array
    ) -> tuple[Int64Array, Int64Array, Int64Array]:
        falls = int(np.count_nonzero(times[1:] < times[:-1]))
        if not falls:
            return times, prompts, outputs
        self._count(
            [f"{falls:,} rows are earlier than the row before: the requests were sorted by time"]
        )
        order = np.argsort(times, kind="stable")
        return times[order], prompts[order], outputs[order]

    def _count(self, warnings: list[str]) -> None:
        for warning in warnings:
            text = _NUMBER.sub("0", warning)
            numbers = [int(number.replace(",", "")) for number in _NUMBER.findall(warning)]
            before = self._counts.get(text, [0] * len(numbers))
            self._counts[text] = [a + b for a, b in zip(before, numbers, strict=True)]
