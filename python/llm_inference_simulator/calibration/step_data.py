"""Logs of engine steps: one JSON object a line, composition and time of each step.

The first line is a header (``"type": "header"``) with the engine's settings; every other line has
``reqs``, rows of ``[request, tokens computed before, tokens scheduled, 1 if prefill]``, ``exec_s``
(from the end of ``schedule()`` to the output), ``sched_s`` and ``upd_s`` (what the scheduler itself
took, before and after) and ``out`` (tokens that requests were given).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.parameters import DataSource, MeasuredEngine
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.step_sums import STEP_SUMS

WARM_UP_SHARE = 0.05
"""Share of a log's steps that is dropped at its start where its header gives no warm-up_steps."""

_SETTINGS = {
    "block_size": "block_size",
    "num_gpu_blocks": "num_gpu_blocks",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "max_model_len": "max_model_len",
    "prefix_caching": "enable_prefix_caching",
    "async": "async_scheduling",
}
"""Keys of the header, and the settings that they give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStep:
    """One engine step: what it computed and how long it took."""

    chunks: tuple[tuple[int, int], ...] = ()
    """Prompt chunks: tokens computed before, tokens of the step."""
    contexts: tuple[int, ...] = ()
    """Contexts of the decoding requests, the step's own token included."""
    sampled_seqs: int
    seconds: float

    @property
    def prefill_seqs(self) -> int:
        """Prompts in the step."""
        return len(self.chunks)

    @property
    def prefill_tokens(self) -> int:
        """Prompt tokens of the step."""
        return sum(new for _, new in self.chunks)

    @property
    def decode_seqs(self) -> int:
        """Decoding requests in the step."""
        return len(self.contexts)

    @property
    def longest_context(self) -> int:
        """Of any request in the step, its own tokens included."""
        return max([*self.contexts, *(computed + new for computed, new in self.chunks)])

    def shape(self, window: tuple[str, int] | None = None) -> StepShape:
        """The step as cost models see it (docs/spec.md, section 8), in a model with ``window``."""
        chunks, contexts = Counter(self.chunks), Counter(self.contexts)
        parts = [StepShape.prefill(n, new, old, window) for (old, new), n in chunks.items()]
        parts += [StepShape.decode(n, context, window) for context, n in contexts.items()]
        sums = {name: sum(getattr(part, name) for part in parts) for name in STEP_SUMS}
        return StepShape(**{**sums, "sampled_seqs": self.sampled_seqs})

    @property
    def cell(self) -> tuple[int, ...]:
        """Where the step lies in a grid of powers of two: steps of a cell are nearly alike."""
        pairs = sum(new * computed + new * (new + 1) // 2 for computed, new in self.chunks)
        return (
            _octave(self.prefill_tokens),
            _octave(pairs // max(self.prefill_tokens, 1)),
            _octave(self.decode_seqs),
            _octave(sum(self.contexts) // max(self.decode_seqs, 1)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepData:
    """The steps of one or more logs, warm-up left out, and what they were measured with."""

    steps: tuple[MeasuredStep, ...]
    dropped_warm_up: int
    engine: MeasuredEngine
    environment: dict[str, Any] = field(default_factory=dict)
    sources: tuple[DataSource, ...] = ()

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Measured seconds of each step."""
        return np.array([step.seconds for step in self.steps])


def read_step_logs(paths: Sequence[Path], *, warm_up_steps: int | None = None) -> StepData:
    """Read logs of one engine; raises :class:`CalibrationError` naming file, line and field.

    The first ``warm_up_steps`` of each log are dropped (None: what the header says, else 5 %): the
    first call of a shape compiles or allocates.
    """
    steps: list[MeasuredStep] = []
    sources: list[DataSource] = []
    engines: list[MeasuredEngine] = []
    environment: dict[str, Any] = {}
    dropped = 0
    for path in paths:
        header, rows, sha256 = _read_log(path)
        skip = warm_up_steps
        if skip is None:
            skip = _warm_up_of(header, len(rows), path)
        dropped += min(skip, len(rows))
        steps += rows[skip:]
        engines.append(_engine_of(header, path))
        environment.update(header.get("environment") or {})
        sources.append(DataSource(file=path.name, sha256=sha256))
    for path, engine in zip(paths, engines, strict=True):
        if engine.async_scheduling != engines[0].async_scheduling:
            raise CalibrationError(
                f"step logs {paths[0]} and {path} differ in async: calibrate them apart, a step's "
                "time means something else"
            )
    if not steps:
        raise CalibrationError(
            f"step log {paths[0]} holds no steps after the warm-up of {dropped}: measure longer, "
            "or lower --warm-up-steps"
        )
    return StepData(
        steps=tuple(steps),
        dropped_warm_up=dropped,
        engine=engines[0],
        environment=environment,
        sources=tuple(sources),
    )


def _read_log(path: Path) -> tuple[dict[str, Any], list[MeasuredStep], str]:
    header: dict[str, Any] = {}
    rows: list[tuple[str, dict[str, Any]]] = []
    digest = hashlib.sha256()
    for number, line in enumerate(_lines(path), start=1):
        digest.update(line)
        if not line.strip():
            continue
        where = f"step log {path} line {number}"
        entry = _parse(where, line)
        if entry.get("type") == "header":
            header = entry
        elif "reqs" in entry:
            rows.append((where, entry))
        else:
            raise CalibrationError(f"{where}: key 'reqs' is missing: this is not a log of steps")
    synchronous = not header.get("async", False)
    steps = [step for where, row in rows if (step := _step(where, row, synchronous)) is not None]
    return header, steps, digest.hexdigest()


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of a plain or gzipped file."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as file:
                    yield from file
            else:
                yield from raw
    except FileNotFoundError:
        raise CalibrationError(f"step log {path} does not exist: check the path") from None
    except (EOFError, gzip.BadGzipFile) as cause:
        raise CalibrationError(f"step log {path} is damaged: {cause}") from None
    except OSError as cause:
        raise CalibrationError(f"step log {path} cannot be read: {cause.strerror}") from None


def _parse(where: str, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise CalibrationError(f"{where} is not a JSON object: write one step a line")
    return entry


def _step(where: str, row: dict[str, Any], synchronous: bool) -> MeasuredStep | None:
    """The step of a row; None for a step without tokens.

    A synchronous engine schedules, executes and updates one after the other, so a step lasts for
    all three; an asynchronous one hides the scheduler's work behind the step before.
    """
    requests = row["reqs"]
    if not isinstance(requests, list):
        raise CalibrationError(f"{where}: reqs={requests!r} must be a list of rows")
    if not requests:
        return None
    seconds = _duration(where, row, "exec_s")
    if synchronous:
        seconds += sum(_duration(where, row, name) for name in ("sched_s", "upd_s") if name in row)
    if seconds <= 0:
        raise CalibrationError(f"{where}: exec_s={row['exec_s']!r} must be above 0")
    prefill: list[tuple[int, int]] = []
    decode: list[int] = []
    for request in requests:
        computed, scheduled, is_prefill = _request(where, request)
        if is_prefill:
            prefill.append((computed, scheduled))
        else:
            decode.append(computed + scheduled)
    return MeasuredStep(
        chunks=tuple(prefill),
        contexts=tuple(decode),
        sampled_seqs=_sampled(where, row, len(requests)),
        seconds=seconds,
    )


def _request(where: str, request: Any) -> tuple[int, int, bool]:
    whole = isinstance(request, list) and len(request) == 4
    if not whole or not all(type(value) is int for value in request[1:]):
        raise CalibrationError(
            f"{where}: reqs holds {request!r}: a row is [request, computed, scheduled, prefill]"
        )
    _, computed, scheduled, is_prefill = request
    if computed < 0 or scheduled < 1 or is_prefill not in (0, 1):
        raise CalibrationError(
            f"{where}: reqs holds {request!r}: computed must be 0 or more, scheduled 1 or more, "
            "prefill 0 or 1"
        )
    return computed, scheduled, bool(is_prefill)


def _sampled(where: str, row: dict[str, Any], requests: int) -> int:
    """Requests that were given a token; every one where the log does not say."""
    out = row.get("out")
    if out is None:
        return requests
    try:
        sampled = sum(1 for tokens, _ in out.values() if tokens)
    except (AttributeError, TypeError, ValueError):
        sampled = requests + 1
    if sampled > requests:
        raise CalibrationError(
            f"{where}: out={out!r} must give [tokens, finished] for requests of the step"
        )
    return sampled


def _duration(where: str, row: dict[str, Any], name: str) -> float:
    if name not in row:
        raise CalibrationError(f"{where}: {name} is missing: add the seconds of the step")
    value = row[name]
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise CalibrationError(f"{where}: {name}={value!r} must be seconds, 0 or more")
    return float(value)


def _warm_up_of(header: dict[str, Any], steps: int, path: Path) -> int:
    given = header.get("warm_up_steps")
    if given is None:
        return round(WARM_UP_SHARE * steps)
    if type(given) is not int or given < 0:
        raise CalibrationError(
            f"step log {path}: warm_up_steps={given!r} must be a whole number, 0 or more"
        )
    return given


def _engine_of(header: dict[str, Any], path: Path) -> MeasuredEngine:
    settings = {ours: header[theirs] for theirs, ours in _SETTINGS.items() if theirs in header}
    try:
        return MeasuredEngine.parse(settings, source=f"step log {path} header")
    except ConfigError as error:
        raise CalibrationError(str(error)) from None


def _octave(value: int) -> int:
    return value.bit_length()
