"""Traces that come with the package."""

from __future__ import annotations

import os
from pathlib import Path

from llm_inference_simulator.errors import WorkloadError, unknown_name

SHIPPED = {
    "azure-conv-2023": "azure-conv-2023.csv.gz",
    "azure-code-2023": "azure-code-2023.csv.gz",
}
"""Name -> file under ``data/``; see the README there for sources and licences."""


def resolve(trace: str) -> Path:
    """Turn a shipped name or a path into a path that exists.

    A shipped name goes before a file of that name (write ``./azure-conv-2023`` for the file).
    """
    if trace in SHIPPED:
        return Path(__file__).parent / "data" / SHIPPED[trace]
    path = Path(trace)
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises for names the system refuses
        return path
    shipped = ", ".join(SHIPPED)
    if path.name == trace and not path.suffix:
        raise WorkloadError(
            unknown_name("trace", trace, SHIPPED, remedy=f"(no file either; shipped: {shipped})")
        )
    raise WorkloadError(f"trace {trace} does not exist: check the path (shipped traces: {shipped})")
