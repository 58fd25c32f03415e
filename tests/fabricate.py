"""Results made by hand, for tests that need no core."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.results import Capacity, PoolSetup, Setup, SimulationResult

GIB = 2**30

CAPACITY = Capacity(
    num_gpu_blocks=1001,
    block_size=16,
    max_model_len=4096,
    weight_bytes_per_rank=35 * GIB,
    activation_bytes=GIB,
    runtime_bytes=GIB // 2,
    kv_cache_bytes=33 * GIB,
    kv_bytes_per_token=327_680,
    kv_bytes_per_token_per_rank=163_840,
    usable_bytes=72 * GIB,
    total_bytes=80 * GIB,
)


def columns(**given: Any) -> dict[str, NDArray[Any]]:
    """Request columns with sensible values for all that is not given."""
    n = len(given["arrival_ns"])
    defaults: dict[str, Any] = {
        "admitted_ns": given["arrival_ns"],
        "first_token_ns": np.full(n, -1),
        "finished_ns": np.full(n, -1),
        "prompt_tokens": np.full(n, 10),
        "output_tokens": np.full(n, 1),
        "cached_tokens": np.zeros(n),
        "preemptions": np.zeros(n),
        "engine": np.zeros(n),
        "status": np.ones(n),
    }
    merged = defaults | given
    made = {name: np.asarray(values, dtype=np.int64) for name, values in merged.items()}
    made["status"] = made["status"].astype(np.uint8)
    return made


class EvenTokens:
    """Tokens at equal gaps between the first and the last of a request."""

    def __init__(self, requests: Mapping[str, NDArray[Any]]) -> None:
        self._requests = requests

    def _times(self, index: int) -> NDArray[np.int64]:
        first, count = (
            self._requests["first_token_ns"][index],
            self._requests["output_tokens"][index],
        )
        if self._requests["status"][index] != 1:
            return np.empty(0, dtype=np.int64)
        return np.linspace(first, self._requests["finished_ns"][index], count).astype(np.int64)

    def token_times(
        self, requests: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """As in the core."""
        times = [self._times(int(index)) for index in requests]
        offsets = np.cumsum([0, *(len(each) for each in times)])
        return np.concatenate([np.empty(0, dtype=np.int64), *times]), offsets

    def token_gaps(self, counted: NDArray[np.bool_]) -> ListedGaps:
        """As in the core."""
        gaps = [np.diff(self._times(int(index))) for index in np.flatnonzero(counted)]
        return ListedGaps(np.concatenate([np.empty(0, dtype=np.int64), *gaps]))


class ListedGaps:
    """Gaps written out one by one."""

    def __init__(self, gaps: NDArray[np.int64]) -> None:
        self.gaps = np.sort(gaps)

    @property
    def count(self) -> int:
        """As in the core."""
        return len(self.gaps)

    def mean_and_deviation(self) -> tuple[float, float] | None:
        """As in the core."""
        if not len(self.gaps):
            return None
        return float(self.gaps.mean()), float(self.gaps.std())

    def at_ranks(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """As in the core."""
        return self.gaps[ranks]


def engine(**given: Any) -> Any:
    """Totals of an engine."""
    totals = {
        "steps": 3,
        "preemptions": 0,
        "busy_ns": 500_000_000,
        "requests": 2,
        "peak_blocks": 7,
        "dummy_steps": 0,
        "prefix_queries": 0,
        "prefix_hits": 0,
        "total": SimpleNamespace(prefill_tokens=20, decode_seqs=4),
        "operations": 0.0,
        "bytes": 0.0,
    }
    return SimpleNamespace(**(totals | given))


def result(
    requests: Mapping[str, NDArray[Any]],
    *,
    config: Mapping[str, Any] | None = None,
    requested_output_tokens: NDArray[Any] | None = None,
    setup: Mapping[str, Any] | None = None,
    pool: Mapping[str, Any] | None = None,
    **given: Any,
) -> SimulationResult:
    """Build a result of ``requests``; everything else has a sensible value."""
    settings = SimulatorConfig.from_dict({"model": "llama-7b", "xpu": "gb10", **(config or {})})
    what: dict[str, Any] = {
        "config": settings,
        "request_rate": settings.workload.request_rate,
        "version": "0.1.0",
        "model_name": "llama-7b",
        "parameter_count": 6_738_415_616,
        "workload_description": "by hand",
        "max_concurrency": None,
    }
    options: dict[str, Any] = {
        "engines": [engine()],
        "tokens": EvenTokens(requests),
        "trace_hash": 0xABC,
        "now_ns": int(max(requests["finished_ns"].max(), requests["arrival_ns"].max())),
    }
    engines: dict[str, Any] = {
        "name": "engines",
        "xpu_name": "gb10",
        "n_engines": len((options | given)["engines"]),
        "tensor_parallel_size": 1,
        "capacity": CAPACITY,
        "performance_model": "roofline",
        "performance_description": "peaks",
    }
    what["pools"] = (PoolSetup(**(engines | dict(pool or {}))),)
    if requested_output_tokens is None:
        requested_output_tokens = requests["output_tokens"]
    return SimulationResult(
        setup=Setup(**(what | dict(setup or {}))),
        columns=requests,
        requested_output_tokens=requested_output_tokens,
        **(options | given),
    )
