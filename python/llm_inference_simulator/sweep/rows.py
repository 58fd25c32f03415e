"""What a finished configuration becomes: one row, its metrics or the reason why it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llm_inference_simulator.errors import CapacityError, SimulatorError
from llm_inference_simulator.many import Outcome
from llm_inference_simulator.results import SimulationResult

Status = Literal["ok", "does not fit", "refused", "failed"]

NOT_METRICS = ("schema_version", "complete", "burstiness", "max_concurrency", "request_rate")
"""Numbers of a summary that its configuration has already."""

SECTIONS = ("measurement", "capacity", "utilisation", "kv_transfer", "failures")
"""Parts of a summary whose numbers become columns, named ``section.key``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finished configuration."""

    index: int
    status: Status
    reason: str | None = None
    """Why there are no metrics; None: there are."""
    metrics: Mapping[str, Any] = field(default_factory=dict)


def row_of(outcome: Outcome[dict[str, Any]], index: int) -> Row:
    """Turn an outcome that kept :func:`metrics_of` into the row of point ``index``."""
    error = outcome.error
    if error is None:
        return Row(index=index, status="ok", metrics=outcome.unwrap())
    return refused_row(index, error)


def refused_row(index: int, error: Exception) -> Row:
    """The row of a configuration without a result."""
    if isinstance(error, CapacityError):
        return Row(index=index, status="does not fit", reason=str(error))
    if isinstance(error, SimulatorError):
        return Row(index=index, status="refused", reason=str(error))
    return Row(
        index=index,
        status="failed",
        reason=f"internal error: {type(error).__name__}: {error}",
    )


def metrics_of(result: SimulationResult) -> dict[str, Any]:
    """Every number of a result's summary by a flat name, its warnings and its trace hash."""
    summary = result.summary()
    flat: dict[str, Any] = {
        name: value
        for name, value in summary.items()
        if name not in NOT_METRICS and (value is None or isinstance(value, int | float))
    }
    for section in SECTIONS:
        flat |= {f"{section}.{name}": value for name, value in summary.get(section, {}).items()}
    engines = summary["engines"]
    for name in ("steps", "preemptions", "prefix_cache_queries", "prefix_cache_hits"):
        flat[name] = sum(engine[name] for engine in engines)
    flat["engines"] = len(engines)
    flat["xpus"] = summary["energy_and_cost"]["xpus"]
    flat["mean_power_w"] = summary["energy_and_cost"]["mean_power_w"]
    flat["warnings"] = "\n".join(summary["warnings"])
    flat["trace_hash"] = summary["provenance"]["trace_hash"]
    return flat
