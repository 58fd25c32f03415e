"""The text of a trace file, and errors that name the file and the row."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from llm_inference_simulator.errors import WorkloadError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A trace that was read but not yet understood."""

    path: Path
    text: str
    rows_before: int = 0
    lines_before: int = 0
    """Of the file, where the text is a part of it."""

    def error(
        self, problem: str, *, row: int | None = None, line: int | None = None
    ) -> WorkloadError:
        """Word a problem. ``row`` counts requests from 1, ``line`` lines of the file from 1."""
        row = None if row is None else row + self.rows_before
        line = None if line is None else line + self.lines_before
        return WorkloadError(f"trace {self.path}{_place(row, line)}: {problem}")


def _place(row: int | None, line: int | None) -> str:
    if row is None:
        return "" if line is None else f", line {line}"
    return f", row {row}" if line in (None, row) else f", row {row} (line {line})"


def read_source(path: Path) -> TraceSource:
    """Read a plain or gzipped UTF-8 file; raises :class:`WorkloadError` for anything else."""
    data = _read_bytes(path)
    if data[:2] == GZIP_MAGIC:
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error):
            raise WorkloadError(
                f"trace {path} is gzip data that is truncated or damaged: fetch it again"
            ) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        line = data.count(b"\n", 0, cause.start) + 1
        raise WorkloadError(
            f"trace {path}, line {line}: not UTF-8 text (byte {cause.start} of the file): save it "
            "as UTF-8"
        ) from None
    text = text.removeprefix(BYTE_ORDER_MARK)
    if not text.strip():
        raise WorkloadError(f"trace {path} is empty: it must hold at least one request")
    return TraceSource(path, text)


def open_text(path: Path) -> IO[str]:
    """Open a plain or gzipped UTF-8 file to be read piece by piece; :class:`WorkloadError`."""
    with _readable(path):
        with path.open("rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
        opened = gzip.open(path, "rb") if is_gzip else path.open("rb")  # noqa: SIM115
        return io.TextIOWrapper(opened, encoding="utf-8-sig", newline="")


def next_lines(file: IO[str], path: Path, count: int) -> list[str]:
    """The next lines of a file of :func:`open_text`; :class:`WorkloadError` where it is damaged."""
    try:
        return list(itertools.islice(file, count))
    except UnicodeDecodeError:
        raise WorkloadError(f"trace {path} is not UTF-8 text: save it as UTF-8") from None
    except (EOFError, OSError, zlib.error):
        raise WorkloadError(
            f"trace {path} is gzip data that is truncated or damaged: fetch it again"
        ) from None


def _read_bytes(path: Path) -> bytes:
    with _readable(path):
        return path.read_bytes()


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Word what keeps a trace from being read."""
    try:
        yield
    except FileNotFoundError:
        raise WorkloadError(f"trace {path} does not exist: check the path") from None
    except IsADirectoryError:
        raise WorkloadError(f"trace {path} is a folder: give a file") from None
    except OSError as cause:
        raise WorkloadError(f"trace {path} cannot be read: {cause.strerror}") from None
    except ValueError as cause:
        raise WorkloadError(f"trace {str(path)!r} cannot be read: {cause}") from None
