"""Detailed results of ``vllm bench serve``: every request as it was sent, and what it waited.

The file doesn't hold the server's settings: they come beside it, or from a calibration that was
measured on the same engine. Requests are replayed at their measured ``start_times``. A closed loop
(``--max-concurrency``) is replayed as one where the file has ``queue_times``, what each request
waited for its turn; without them it becomes the open loop that it turned out to be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.catalog import load_model
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.validation.measured import MeasuredRun, latency_metrics
from llm_inference_simulator.workload import Workload

_NUMBERS = ("start_times", "input_lens", "output_lens", "ttfts")
MS_PER_S = 1e3


def recognises(value: Any) -> bool:
    """Tell whether ``value`` looks like a result of ``vllm bench serve``, detailed or not."""
    return isinstance(value, dict) and {"request_throughput", "mean_ttft_ms"} <= value.keys()


def read(
    values: Sequence[Any],
    path: Path,
    settings: Mapping[str, Any],
    calibration: CalibrationFile | None = None,
) -> list[MeasuredRun]:
    """Read every result of a file; :class:`ConfigError` names file, list and row."""
    if calibration is not None:
        settings = _completed(settings, calibration)
    several = len(values) > 1
    return [
        _run(
            value,
            path,
            settings,
            name=f"{path.stem}#{index}" if several else path.stem,
            source=f"measurements {path}" + (f", result {index}" if several else ""),
        )
        for index, value in enumerate(values, start=1)
    ]


def _run(
    value: dict[str, Any], path: Path, settings: Mapping[str, Any], *, name: str, source: str
) -> MeasuredRun:
    limit = _closed_loop(value)
    names = _NUMBERS if limit is None else (*_NUMBERS, "queue_times")
    columns = {key: _column(value, key, source) for key in names}
    e2e_s = _end_to_end_s(value, columns["ttfts"], source)
    for key, column in (*columns.items(), ("itls", e2e_s)):
        if len(column) != len(columns["input_lens"]):
            raise ConfigError(
                f"{source}: {key} has {len(column)} values but input_lens has "
                f"{len(columns['input_lens'])}: the file is damaged"
            )
    if limit is not None:
        # The start times alone would tell a prediction the throughput that it is to predict.
        columns["start_times"] = columns["start_times"] - columns.pop("queue_times")
    answered = columns["output_lens"] > 0
    if not answered.any():
        raise ConfigError(f"{source}: no request has an answer: there is nothing to compare with")
    failed = int((~answered).sum())
    order = np.argsort(columns["start_times"][answered], kind="stable")
    rows = {key: column[answered][order] for key, column in columns.items()}
    seconds = rows["start_times"] - rows["start_times"][0]
    output_tokens = rows["output_lens"].astype(np.int64)
    measured = latency_metrics(
        rows["ttfts"] * MS_PER_S, e2e_s[answered][order] * MS_PER_S, output_tokens
    )
    zero = [metric for metric, latency_ms in measured.items() if latency_ms == 0]
    return MeasuredRun(
        id=name,
        source=str(path),
        workload_name=str(value.get("label") or "vllm bench serve"),
        config=_configuration(value, settings, source),
        measured={metric: ms for metric, ms in measured.items() if metric not in zero},
        requests=Workload.from_columns(
            np.rint(seconds * 1e9).astype(np.int64),
            rows["input_lens"].astype(np.int64),
            output_tokens,
            max_concurrency=limit,
            description=f"requests of {path.name}: {len(seconds):,} over {seconds[-1]:.6g} s",
        ),
        notes=(
            *((f"{failed:,} requests failed when measured: left out",) if failed else ()),
            # An answer that came in one piece has no time between its tokens.
            *(f"{metric} is 0 in the measurement: not compared" for metric in zero),
        ),
    )


def _closed_loop(value: Mapping[str, Any]) -> int | None:
    """Return how many requests were open at most, where the file can tell what that held back."""
    limit = value.get("max_concurrency")
    told = value.get("queue_times") is not None
    return limit if told and type(limit) is int and limit > 0 else None


def _completed(settings: Mapping[str, Any], calibration: CalibrationFile) -> dict[str, Any]:
    """``settings``, and what the calibration's measurements knew of the engine besides."""
    data = dict(settings)
    data["engine"] = {**calibration.engine_settings(), **data.get("engine", {})}
    if calibration.tensor_parallel_size is not None:
        size = {"tensor_parallel_size": calibration.tensor_parallel_size}
        data["cluster"] = {**size, **data.get("cluster", {})}
    return data


def _configuration(
    value: Mapping[str, Any], settings: Mapping[str, Any], source: str
) -> SimulatorConfig:
    """Return the server's configuration; the file's model counts where the catalogue has it."""
    data = dict(settings)
    missing = [f"--{name}" for name in ("model", "xpu") if name not in data]
    if "--model" in missing and isinstance(value.get("model_id"), str):
        try:
            data["model"] = load_model(value["model_id"]).name
            missing.remove("--model")
        except ConfigError:
            pass  # a served name of the user's own
    if missing:
        raise ConfigError(
            f"{source}: a vllm bench serve result doesn't hold the server's settings: give "
            f"{' and '.join(missing)} (and --max-num-seqs and so on, as the server had them)"
        )
    return SimulatorConfig.from_dict(data, source=source)


def _column(value: Mapping[str, Any], key: str, source: str) -> NDArray[np.float64]:
    """A list of numbers that are finite and not negative."""
    found = value.get(key)
    if not isinstance(found, list):
        raise ConfigError(
            f"{source}: list {key!r} is missing: run vllm bench serve with --save-result and "
            "--save-detailed"
        )
    for row, number in enumerate(found, start=1):
        _check(number, f"{source}: {key}[{row - 1}]")
    return np.array(found, dtype=np.float64)


def _end_to_end_s(
    value: Mapping[str, Any], ttfts: NDArray[np.float64], source: str
) -> NDArray[np.float64]:
    """TTFT and all gaps between the chunks of each answer."""
    gaps = value.get("itls")
    if not isinstance(gaps, list) or not all(isinstance(each, list) for each in gaps):
        raise ConfigError(
            f"{source}: list 'itls' is missing or holds no lists: run vllm bench serve with "
            "--save-result and --save-detailed"
        )
    sums = []
    for row, each in enumerate(gaps):
        for index, gap in enumerate(each):
            _check(gap, f"{source}: itls[{row}][{index}]")
        sums.append(math.fsum(each))
    if len(sums) != len(ttfts):
        return np.array(sums)
    total: NDArray[np.float64] = ttfts + np.array(sums)
    return total


def _check(number: Any, where: str) -> None:
    if type(number) not in (int, float) or not 0 <= number < math.inf:
        raise ConfigError(f"{where}={number!r} is not a finite number of at least 0")
