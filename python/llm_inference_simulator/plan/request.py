"""What a plan is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from llm_inference_simulator.errors import ConfigError

Objective = Literal["cost", "xpus", "energy"]
Method = Literal["exhaustive", "optuna"]

NODE_SIZE = 8
"""Accelerators of a node; an engine lies inside one."""

DEFAULT_REQUESTS = 2000
"""Of a simulation where the load flags give no number: p99 rests on 20 of them."""

DEFAULT_TRIALS = 200
"""Candidates that a sampled search simulates where none are given."""

DEFAULT_MAX_XPUS = 64
"""Accelerators of a candidate at most, where a rate is given."""

TRANSFER_GB_S = 50.0
"""Of a disaggregated engine's link: one 400 Gbit/s network card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A workload, its objectives, and the space to search."""

    base: Mapping[str, Any]
    """Plain configuration that candidates complete: model, workload, engine settings, goodput."""
    xpus: tuple[str, ...]
    request_rate: float | None = None
    """Requests per second to hold as cheaply as possible; None: find each candidate's highest."""
    attainment: float = 0.99
    """Share of the requests that must meet every objective."""
    objective: Objective = "cost"
    max_xpus: int = DEFAULT_MAX_XPUS
    """Most accelerators of a candidate."""
    tensor_parallel_sizes: tuple[int, ...] = (1, 2, 4, 8)
    pipeline_parallel_sizes: tuple[int, ...] = (1, 2)
    modes: tuple[str, ...] = ("aggregated", "disaggregated")
    settings: Mapping[str, tuple[Any, ...]] = field(
        default_factory=lambda: {"max_num_batched_tokens": (2048, 8192)}
    )
    """Engine settings to search, by field of the engine's configuration."""
    tolerance: float = 0.02
    """Of the highest rate: the next higher rate that was tried and missed is at most so much
    higher."""
    search: Method = "exhaustive"
    """Simulate all that bounds leave, or those that Optuna's sampler chooses."""
    trials: int | None = None
    """Candidates that a sampled search simulates; None: :data:`DEFAULT_TRIALS`."""

    def __post_init__(self) -> None:
        if not self.xpus:
            raise ConfigError(
                "--xpus missing: name the accelerators to choose from, as in h100,l40s"
            )
        if not self.objectives_ms:
            raise ConfigError(
                "--goodput missing: give objectives, as in --goodput ttft:1000 tpot:50"
            )
        if not 0 < self.attainment <= 1:
            raise ConfigError(
                f"--attainment {self.attainment:g}: give a share above 0 and at most 1, as in 0.99"
            )
        if not 0.001 <= self.tolerance <= 0.5:
            raise ConfigError(f"--tolerance {self.tolerance:g}: give a share from 0.001 to 0.5")
        if self.trials is not None and self.search != "optuna":
            raise ConfigError(
                f"--trials {self.trials} needs --search optuna: an exhaustive search has no limit"
            )
        workload = self.base.get("workload", {})
        for field_ in ("rate_stages", "rate_schedule", "max_concurrency"):
            if workload.get(field_) is not None:
                raise ConfigError(
                    f"{field_}: a plan needs one rate of an open load: leave it out and give "
                    "--request-rate, or neither to find the highest"
                )

    @property
    def objectives_ms(self) -> dict[str, float]:
        """Limits in milliseconds by metric: ttft, tpot, e2el."""
        return dict(self.base.get("measurement", {}).get("goodput", {}))

    def at_rate(self, rate: float, *, longer: int = 1) -> dict[str, Any]:
        """The base at a rate, with ``longer`` times as many requests."""
        workload = {**self.base.get("workload", {}), "request_rate": rate}
        if workload.get("duration") is not None:
            workload["duration"] = workload["duration"] * longer
        if workload.get("num_prompts") is not None or workload.get("duration") is None:
            requests = workload.get("num_prompts") or DEFAULT_REQUESTS
            workload["num_prompts"] = requests * longer
        return {**self.base, "workload": workload}

    def only(self, **changes: Any) -> PlanRequest:
        """The same with some fields changed."""
        return replace(self, **changes)
