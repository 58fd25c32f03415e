"""Discrete-event simulator of LLM serving clusters.

>>> from llm_inference_simulator import SimulatorConfig, simulate
>>> result = simulate(SimulatorConfig(model="llama-7b", xpu="gb10"))  # doctest: +SKIP
>>> result.summary()["output_throughput"]  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_inference_simulator._core import __version__
    from llm_inference_simulator.config import SimulatorConfig
    from llm_inference_simulator.errors import (
        CalibrationError,
        CapacityError,
        ConfigError,
        SimulationError,
        SimulatorError,
        WorkloadError,
    )
    from llm_inference_simulator.many import ManyInterrupted, Outcome, simulate_many
    from llm_inference_simulator.results import SimulationResult
    from llm_inference_simulator.simulation import SimulationInterrupted, simulate
    from llm_inference_simulator.workload import Workload

__all__ = [
    "CalibrationError",
    "CapacityError",
    "ConfigError",
    "ManyInterrupted",
    "Outcome",
    "SimulationError",
    "SimulationInterrupted",
    "SimulationResult",
    "SimulatorConfig",
    "SimulatorError",
    "Workload",
    "WorkloadError",
    "__version__",
    "simulate",
    "simulate_many",
]

# Imported on first use: the command line's --help needs none of them, nor numpy or pydantic.
_HOMES = {
    "__version__": "_core",
    "ManyInterrupted": "many",
    "Outcome": "many",
    "SimulationInterrupted": "simulation",
    "SimulationResult": "results",
    "SimulatorConfig": "config",
    "Workload": "workload",
    "simulate": "simulation",
    "simulate_many": "many",
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
