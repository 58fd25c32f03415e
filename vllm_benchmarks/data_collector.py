"""Points on disk, safe at every moment: one line a point, each on disk before the next begins.

A process that is killed loses the point it was measuring and nothing else; a rerun finishes the
plan without repeating what is there. A point whose requests all failed is noted, and measured again
by the rerun.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.files import atomic_path
from vllm_benchmarks.schema import BenchmarkData, BenchmarkHeader, BenchmarkPoint, PlannedPoint


class DataCollector:
    """Appends points to a file; open it with :func:`collect`."""

    def __init__(self, path: Path, descriptor: int, done: set[str]) -> None:
        self.path = path
        self._descriptor = descriptor
        self._done = done

    def missing(self, plan: list[PlannedPoint]) -> list[PlannedPoint]:
        """Points of a plan that have no data on disk yet."""
        return [point for point in plan if point.key not in self._done]

    def append(self, point: BenchmarkPoint) -> None:
        """Write a point; when this returns, it survives a crash of the machine."""
        _append_line(self._descriptor, self.path, point.model_dump(mode="json"))
        if point.has_data:
            self._done.add(point.point.key)


@contextmanager
def collect(path: Path, header: BenchmarkHeader) -> Iterator[DataCollector]:
    """Open a file of points to append to, new or begun before.

    A last line that a crash cut off is removed. Raises :class:`ConfigError` where the file holds
    measurements of something else.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise ConfigError(
            f"points file {path} cannot be written: {error.strerror}; give another --data-dir"
        ) from None
    try:
        whole = _cut_torn_line(descriptor)
        if whole == 0:
            _append_line(descriptor, path, header.model_dump(mode="json"))
            _sync_folder(path.parent)
            done: set[str] = set()
        else:
            data = read_points(path)
            different = data.header.same_subject(header)
            if different is not None:
                raise ConfigError(
                    f"points file {path} was measured with {different}="
                    f"{getattr(data.header, different)!r}, this run has "
                    f"{getattr(header, different)!r}: give another --data-dir"
                )
            done = {point.point.key for point in data.points if point.has_data}
        yield DataCollector(path, descriptor, done)
    finally:
        os.close(descriptor)


def read_points(path: Path) -> BenchmarkData:
    """Read a file of points; raises :class:`CalibrationError` naming line and field.

    A point that failed and was measured again has two lines: the later one counts.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CalibrationError(f"points file {path} cannot be read: {error.strerror}") from None
    header: BenchmarkHeader | None = None
    points: dict[str, BenchmarkPoint] = {}
    # What follows the last newline was not finished when its writer died.
    for number, line in enumerate(lines[:-1], start=1):
        where = f"points file {path} line {number}"
        try:
            data = json.loads(line)
        except ValueError:
            raise CalibrationError(f"{where} is not JSON: the file is damaged") from None
        try:
            if header is None:
                header = BenchmarkHeader.parse(data, source=where)
            else:
                point = BenchmarkPoint.parse(_tuples(data), source=where)
                points[point.point.key] = point
        except ConfigError as error:
            raise CalibrationError(str(error)) from None
    if header is None:
        raise CalibrationError(f"points file {path} is empty: measure first")
    return BenchmarkData(header=header, points=tuple(points.values()))


def write_step_log(data: BenchmarkData, path: Path) -> int:
    """Write the steps of all points as a step log (raw to processed); returns their number."""
    header = {
        "type": "header",
        **data.header.engine,
        # Warm-up was run before the first point and is not among the steps.
        "warm_up_steps": 0,
        "environment": data.header.environment,
    }
    rows = [row for point in data.points for row in point.steps]
    lines = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in (header, *rows))
    # No time in the gzip header: equal measurements are equal files.
    packed = gzip.compress(lines.encode(), mtime=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(packed)
    except OSError as error:
        raise ConfigError(
            f"step log {path} cannot be written: {error.strerror}; give another --data-dir"
        ) from None
    return len(rows)


def _append_line(descriptor: int, path: Path, data: dict[str, Any]) -> None:
    line = json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError as error:
        raise ConfigError(f"points file {path} cannot be written: {error.strerror}") from None


def _cut_torn_line(descriptor: int) -> int:
    """Remove what follows the last newline; returns the length that stays."""
    size = os.fstat(descriptor).st_size
    content = os.pread(descriptor, size, 0)
    whole = content.rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(descriptor, whole)
        os.fsync(descriptor)
    return whole


def _sync_folder(folder: Path) -> None:
    """A new file's name is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _tuples(data: Any) -> Any:
    """JSON's lists as the tuples of the schema; steps keep their lists, as step logs have them."""
    if isinstance(data, dict):
        return {
            key: tuple(value) if key == "steps" else _tuples(value) for key, value in data.items()
        }
    return tuple(map(_tuples, data)) if isinstance(data, list) else data
