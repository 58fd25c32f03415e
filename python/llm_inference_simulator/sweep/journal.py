"""The file of a sweep's finished rows: appended line by line, so that a killed sweep goes on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.results import strict_json
from llm_inference_simulator.sweep.rows import Row

NAME = "journal.jsonl"
FORMAT = 1


class Journal:
    """Rows by index; :meth:`append` makes one survive whatever happens to the process.

    A line is written with one call to the end of the file. One that a crash cut short lacks its
    newline and is dropped when the file is opened again; its configuration runs once more.
    """

    def __init__(self, descriptor: int, rows: dict[int, Row]) -> None:
        self._descriptor = descriptor
        self.rows = rows

    def append(self, row: Row) -> None:
        """Keep a finished row."""
        os.write(self._descriptor, _line(asdict(row)))
        self.rows[row.index] = row


@contextlib.contextmanager
def open_journal(folder: Path, fingerprint: str) -> Iterator[Journal]:
    """Open the journal of a sweep, new or begun.

    Raises :class:`ConfigError` where the folder holds another sweep's, or one that runs now.
    """
    path = folder / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise ConfigError(
            f"--output {folder}: {NAME} cannot be written: {error.strerror}"
        ) from None
    try:
        _lock(descriptor, folder)
        rows = _read(descriptor, path, fingerprint)
        if rows is None:
            os.write(descriptor, _line({"format": FORMAT, "sweep": fingerprint}))
        yield Journal(descriptor, rows or {})
    finally:
        os.close(descriptor)


def _line(data: dict[str, Any]) -> bytes:
    return (json.dumps(strict_json(data), separators=(",", ":")) + "\n").encode()


def _lock(descriptor: int, folder: Path) -> None:
    """Refuse a second sweep in the same folder; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(
            f"--output {folder}: another sweep writes there now: wait, or give another folder"
        ) from None


def _read(descriptor: int, path: Path, fingerprint: str) -> dict[int, Row] | None:
    """Rows so far, None of a new file; cuts off a line that was not finished."""
    with path.open("rb") as file:
        content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.ftruncate(descriptor, whole)
    lines = content[:whole].splitlines()
    if not lines:
        return None
    try:
        header, *entries = [json.loads(line) for line in lines]
        if header.get("format") != FORMAT:
            raise ConfigError(
                f"{path} has format {header.get('format')}, this version writes {FORMAT}: give "
                "another folder"
            )
        if header["sweep"] != fingerprint:
            raise ConfigError(
                f"{path} belongs to another sweep (other values, base, files or version): give "
                "another --output, or remove the folder to start anew"
            )
        return {entry["index"]: Row(**entry) for entry in entries}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error}): remove the folder to start anew") from None
