"""The text of a trace file, and errors that name the file and the row."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

from llm_inference_simulator.errors import WorkloadError

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class TraceSource:
    """A trace that was read but not yet understood."""

    path: Path
    text: str

    def error(
        self, problem: str, *, row: int | None = None, line: int | None = None
    ) -> WorkloadError:
        """Word a problem. ``row`` counts requests from 1, ``line`` lines of the file from 1."""
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


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise WorkloadError(f"trace {path} does not exist: check the path") from None
    except IsADirectoryError:
        raise WorkloadError(f"trace {path} is a folder: give a file") from None
    except OSError as cause:
        raise WorkloadError(f"trace {path} cannot be read: {cause.strerror}") from None
    except ValueError as cause:
        raise WorkloadError(f"trace {str(path)!r} cannot be read: {cause}") from None
