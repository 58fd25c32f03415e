"""Writes every scheduling decision of a run in the format of recorded vLLM decisions.

One JSON object a line: a header, then ``add``, ``schedule`` and ``update`` lines in order of time
(``vllm_benchmarks/decision_traces.py`` describes them), so that a run can be compared with a real
engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.files import atomic_text

if TYPE_CHECKING:
    from llm_inference_simulator._core import Simulation
    from llm_inference_simulator.cluster import EngineSettings
    from llm_inference_simulator.workload import Workload

ADD, SCHEDULE, UPDATE = 0, 1, 2
"""Calls of the core's log."""


@dataclass(frozen=True, slots=True)
class DecisionPool:
    """Equal engines, as the header of their decisions describes them."""

    settings: EngineSettings
    watermark: float
    n_engines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLog:
    """The decisions of a run and what their headers need to know."""

    simulation: Simulation
    workload: Workload
    pools: Sequence[DecisionPool]
    version: str

    def write(self, path: Path) -> list[Path]:
        """Write one file an engine and return their paths.

        With several engines ``x.jsonl`` becomes ``x.engine0.jsonl``, ``x.engine1.jsonl``, …
        """
        owners = [pool for pool in self.pools for _ in range(pool.n_engines)]
        paths = decision_paths(path, len(owners))
        log, steps, rows, preempted = self.simulation.decisions()
        sent = log["index"][log["call"] == ADD]
        order = np.full(len(self.workload), -1, dtype=np.int64)
        order[sent] = np.arange(len(sent))
        numbering: dict[int, _Blocks] = {}
        for engine, (own, pool) in enumerate(zip(paths, owners, strict=True)):
            size = pool.settings.block_size
            if size not in numbering:
                numbering[size] = _Blocks(self.workload, size)
            blocks = numbering[size]
            mine = np.flatnonzero(log["engine"] == engine)
            with atomic_text(own) as file:
                _write_line(file, {"header": self._header(pool)})
                for call, index in zip(log["call"][mine], log["index"][mine], strict=True):
                    if call == ADD:
                        addition = self._addition(int(index), order)
                        if pool.settings.enable_prefix_caching:
                            addition["blocks"] = blocks.of(int(index))
                        _write_line(file, {"add": addition})
                    elif call == SCHEDULE:
                        _write_line(file, _schedule_line(int(index), steps, rows, preempted))
                    else:
                        _write_line(file, {"update": _update(int(index), steps, rows)})
        return paths

    def _header(self, pool: DecisionPool) -> dict[str, Any]:
        settings = pool.settings
        return {
            "simulator": self.version,
            "block_size": settings.block_size,
            "num_gpu_blocks": settings.num_gpu_blocks,
            "max_model_len": settings.max_model_len,
            "max_num_seqs": settings.max_num_seqs,
            "max_num_batched_tokens": settings.max_num_batched_tokens,
            "enable_prefix_caching": settings.enable_prefix_caching,
            "scheduling_policy": settings.scheduling_policy,
            "long_prefill_token_threshold": settings.long_prefill_token_threshold,
            "long_prefill_token_threshold_adaptive": settings.long_prefill_token_threshold_adaptive,
            "scheduler_reserve_full_isl": settings.scheduler_reserve_full_isl,
            "watermark": pool.watermark,
            "async_scheduling": settings.async_scheduling,
            "enable_chunked_prefill": settings.enable_chunked_prefill,
            "batching_strategy": settings.batching_strategy,
        }

    def _addition(self, request: int, order: NDArray[np.int64]) -> dict[str, Any]:
        workload = self.workload
        return {
            "id": request,
            "prompt": int(workload.prompt_tokens[request]),
            "max_tokens": int(workload.output_tokens[request]),
            "priority": 0 if workload.priority is None else int(workload.priority[request]),
            "arrival": float(order[request]),
        }


class _Blocks:
    """Numbers of the full blocks of prompts: the workload's, then new ones for what is private."""

    def __init__(self, workload: Workload, block_size: int) -> None:
        self._full = workload.prompt_tokens // block_size
        if workload.segments is None:
            self._offsets: NDArray[np.int64] = np.zeros(len(workload) + 1, dtype=np.int64)
            self._ids: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        else:
            self._offsets, self._ids = workload.segments.blocks(block_size)
        self._next = int(self._ids.max(initial=-1)) + 1

    def of(self, request: int) -> list[int]:
        named = self._ids[self._offsets[request] : self._offsets[request + 1]].tolist()
        private = max(0, int(self._full[request]) - len(named))
        self._next += private
        return [*named, *range(self._next - private, self._next)]


def decision_paths(path: Path, n_engines: int) -> list[Path]:
    """Files that the decisions of ``n_engines`` engines go to."""
    if n_engines == 1:
        return [path]
    return [path.with_name(f"{path.stem}.engine{k}{path.suffix}") for k in range(n_engines)]


Columns = dict[str, NDArray[np.int64]]


def _rows(index: int, steps: Columns, column: str) -> slice:
    ends = steps[column]
    return slice(int(ends[index - 1]) if index else 0, int(ends[index]))


def _schedule_line(
    index: int, steps: Columns, rows: Columns, preempted: NDArray[np.int64]
) -> dict[str, Any]:
    own = _rows(index, steps, "rows_end")
    columns = (rows[name][own].tolist() for name in ("request", "computed", "tokens"))
    return {
        "schedule": [list(row) for row in zip(*columns, strict=True)],
        "preempted": sorted(preempted[_rows(index, steps, "preempted_end")].tolist()),
        "free": int(steps["free"][index]),
        "waiting": int(steps["waiting"][index]),
        "running": int(steps["running"][index]),
    }


def _update(index: int, steps: Columns, rows: Columns) -> dict[str, Any]:
    own = _rows(index, steps, "rows_end")
    requests = rows["request"][own]
    return {
        "tokens": requests[rows["yields"][own] == 1].tolist(),
        "finished": sorted(requests[rows["last"][own] == 1].tolist()),
    }


def _write_line(file: IO[str], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, separators=(",", ":")))
    file.write("\n")
