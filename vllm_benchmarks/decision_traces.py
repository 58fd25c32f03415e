"""Decision traces: what a scheduler decided, call by call, one JSON object a line.

- ``header``: the vLLM version and the engine's settings, in vLLM's names;
- ``add``: a request enters: ``id``, ``prompt`` tokens, ``max_tokens``, ``priority``, ``arrival``
  (the tie-breaker of the priority policy) and, with prefix caching, ``blocks``: one number for
  each full block of the prompt, equal for two requests exactly when all their tokens up to its end
  are (the simulator's traces go on with the blocks of an answer that a later turn repeats);
- ``schedule``: one call: rows ``[id, tokens computed before, tokens scheduled]`` in order; with it
  ``preempted`` ids (sorted), and ``free`` blocks, ``waiting`` and ``running`` requests after it;
- ``update``: the output of the oldest scheduled step is processed: ids that got ``tokens``, in
  scheduled order, and ids that ``finished`` (sorted).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.errors import WorkloadError, unknown_name

SETTINGS: dict[str, type] = {
    "block_size": int,
    "num_gpu_blocks": int,
    "max_model_len": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "enable_prefix_caching": bool,
    "scheduling_policy": str,
    "long_prefill_token_threshold": int,
    "long_prefill_token_threshold_adaptive": bool,
    "scheduler_reserve_full_isl": bool,
    "watermark": float,
    "async_scheduling": bool,
}
"""Settings that decisions depend on, as the header names them."""

OPTIONAL_SETTINGS: dict[str, type] = {"enable_chunked_prefill": bool, "batching_strategy": str}
"""Settings that only the simulator's traces tell; left out: on, and continuous as in vLLM."""

DESCRIPTIONS = {"vllm": str, "simulator": str, "kind": str, "seed": int}
"""What else a header may hold."""

ADD: dict[str, type] = {
    "id": int,
    "prompt": int,
    "max_tokens": int,
    "priority": int,
    "arrival": float,
}

SCHEDULE: dict[str, type] = {"schedule": list, "preempted": list}

COUNTS: dict[str, type] = {"free": int, "waiting": int, "running": int}
"""What a ``schedule`` line may leave out."""

UPDATE: dict[str, type] = {"tokens": list, "finished": list}

U32 = 2**32 - 1
I64 = 2**63 - 1

RANGES: dict[str, tuple[float, float]] = {
    "block_size": (1, U32),
    "num_gpu_blocks": (2, U32),
    "max_model_len": (1, U32),
    "max_num_seqs": (1, U32),
    "max_num_batched_tokens": (1, U32),
    "long_prefill_token_threshold": (0, U32),
    "watermark": (0, 1),
    "id": (0, I64),
    "prompt": (1, U32),
    "max_tokens": (1, U32),
    "priority": (-I64 - 1, I64),
    "arrival": (0, I64 // 10**9),
    "blocks": (0, I64),
    "schedule": (0, I64),
    "preempted": (0, I64),
    "free": (0, U32),
    "waiting": (0, U32),
    "running": (0, U32),
    "tokens": (0, I64),
    "finished": (0, I64),
}
"""Least and most of a number, or of the numbers in a list."""

ROW_LENGTH = 3
"""Numbers in a row of ``schedule``."""

FIELDS: dict[str, tuple[str, ...]] = {
    "header": ("header",),
    "add": ("add",),
    "schedule": ("schedule", "preempted", "free", "waiting", "running"),
    "update": ("update",),
}
"""What a line of each kind may hold."""

ARRIVAL_UNITS_PER_SECOND = 1_000_000_000
"""Arrivals are compared as whole nanoseconds, the simulator's clock."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a trace: its number in the file, its kind and its content."""

    number: int
    kind: str
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DecisionTrace:
    """A whole trace."""

    path: Path
    header: Mapping[str, Any]
    lines: tuple[Line, ...]

    @property
    def additions(self) -> list[Mapping[str, Any]]:
        """The requests, in the order in which they enter."""
        return [line.content["add"] for line in self.lines if line.kind == "add"]

    def settings(self) -> EngineSettings:
        """The header as settings of our engine.

        Raises :class:`WorkloadError` for windowed batching, which decides by a clock.
        """
        header = self.header
        strategy = header.get("batching_strategy", "continuous")
        if strategy not in ("continuous", "static"):
            raise WorkloadError(
                f"decision trace {self.path}: batching_strategy={strategy} cannot be replayed: "
                "only continuous and static batching decide without a clock"
            )
        return EngineSettings(
            max_num_seqs=header["max_num_seqs"],
            max_num_batched_tokens=header["max_num_batched_tokens"],
            max_model_len=header["max_model_len"],
            block_size=header["block_size"],
            num_gpu_blocks=header["num_gpu_blocks"],
            enable_chunked_prefill=header.get("enable_chunked_prefill", True),
            long_prefill_token_threshold=header["long_prefill_token_threshold"],
            long_prefill_token_threshold_adaptive=header["long_prefill_token_threshold_adaptive"],
            enable_prefix_caching=header["enable_prefix_caching"],
            scheduling_policy=header["scheduling_policy"],
            scheduler_reserve_full_isl=header["scheduler_reserve_full_isl"],
            watermark_blocks=int(header["watermark"] * header["num_gpu_blocks"]),
            async_scheduling=header["async_scheduling"],
            batching_strategy=strategy,
        )


def read_trace(path: Path) -> DecisionTrace:
    """Read a trace, plain or gzip; raises :class:`WorkloadError` naming file, line and reason."""
    lines = list(_read_lines(path))
    if not lines:
        raise WorkloadError(f"decision trace {path} is empty")
    if lines[0].kind != "header":
        raise WorkloadError(f"decision trace {path} line 1: the first line must be the header")
    header = lines[0].content["header"]
    _check_fields(path, 1, header, SETTINGS, optional={**OPTIONAL_SETTINGS, **DESCRIPTIONS})
    for line in lines[1:]:
        if line.kind == "header":
            raise WorkloadError(f"decision trace {path} line {line.number}: a second header")
        if line.kind == "add":
            _check_fields(path, line.number, line.content["add"], ADD, optional={"blocks": list})
        elif line.kind == "schedule":
            _check_fields(path, line.number, line.content, SCHEDULE, optional=COUNTS)
        else:
            _check_fields(path, line.number, line.content["update"], UPDATE, optional={})
    return DecisionTrace(path, header, tuple(lines[1:]))


def _read_lines(path: Path) -> Iterator[Line]:
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if compressed
            else path.open(encoding="utf-8") as file
        ):
            for number, text in enumerate(file, 1):
                yield _parse_line(path, number, text)
    except UnicodeDecodeError:
        raise WorkloadError(f"decision trace {path} is not UTF-8 text") from None
    except (EOFError, gzip.BadGzipFile):
        raise WorkloadError(f"decision trace {path} is a truncated or corrupt gzip file") from None
    except OSError as error:
        raise WorkloadError(f"decision trace {path} cannot be read: {error.strerror}") from None


def _parse_line(path: Path, number: int, text: str) -> Line:
    where = f"decision trace {path} line {number}"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise WorkloadError(f"{where} is not a JSON object: {reason}") from None
    kinds = ("header", "add", "schedule", "update")
    kind = next((kind for kind in kinds if isinstance(content, dict) and kind in content), None)
    if kind is None:
        raise WorkloadError(f"{where}: expected one of {', '.join(kinds)}")
    if kind != "schedule" and not isinstance(content[kind], dict):
        raise WorkloadError(f"{where}: {kind} must be an object")
    for name in content:
        if name not in FIELDS[kind]:
            raise WorkloadError(f"{where}: {unknown_name('field', name, FIELDS[kind])}")
    return Line(number, kind, content)


def _check_fields(
    path: Path,
    number: int,
    found: Mapping[str, Any],
    required: Mapping[str, type],
    *,
    optional: Mapping[str, type],
) -> None:
    where = f"decision trace {path} line {number}"
    known = {**required, **optional}
    for name, value in found.items():
        if name not in known:
            raise WorkloadError(f"{where}: {unknown_name('field', name, known)}")
        _check_value(where, name, value, known[name])
    missing = [name for name in required if name not in found]
    if missing:
        raise WorkloadError(f"{where}: {', '.join(missing)} missing")


def _check_value(where: str, name: str, value: Any, kind: type) -> None:
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise WorkloadError(f"{where}: {name}={_short(value)} must be of type {kind.__name__}")
    if name == "schedule":
        for row in value:
            if not isinstance(row, list) or len(row) != ROW_LENGTH:
                raise WorkloadError(
                    f"{where}: schedule holds {_short(row)}: a row is [id, tokens computed before, "
                    "tokens scheduled]"
                )
            _check_numbers(where, name, row)
    elif kind is list:
        _check_numbers(where, name, value)
    elif name in RANGES:
        least, most = RANGES[name]
        if not least <= value <= most:
            raise WorkloadError(f"{where}: {name}={_short(value)} must be from {least} to {most}")


def _check_numbers(where: str, name: str, values: list[Any]) -> None:
    least, most = RANGES[name]
    for value in values:
        if type(value) is not int or not least <= value <= most:
            raise WorkloadError(
                f"{where}: {name} holds {_short(value)}: it must hold whole numbers from {least} "
                f"to {most}"
            )


def _short(value: Any) -> str:
    return repr(value)[:80]
