"""The file of a recording."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.files import atomic_path


@contextmanager
def trace_writer(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Write lines to a file that appears only when the block ends well."""
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        # No name and no time in the gzip header: equal recordings are equal files.
        packed = gzip.GzipFile("", "wb", 9, raw, mtime=0) if path.suffix == ".gz" else None
        file = packed or raw

        def write(line: dict[str, Any]) -> None:
            with _disk_errors(path):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

        yield write
        with _disk_errors(path):
            if packed is not None:
                packed.close()
            raw.flush()


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--output {path} cannot be written: {error.strerror}") from None
