"""Calibration files: effective rates that were measured, not assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm_inference_simulator.calibration.front_end import FrontEndLatency, resolve_front_end

if TYPE_CHECKING:
    from llm_inference_simulator.calibration.parameters import (
        CalibrationFile,
        RooflineParameters,
        load_calibration,
    )

__all__ = [
    "CalibrationFile",
    "FrontEndLatency",
    "RooflineParameters",
    "load_calibration",
    "resolve_front_end",
]


def __getattr__(name: str) -> Any:
    # Imported on first use: most runs have kernel tables or no calibration.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llm_inference_simulator.calibration import parameters

    return getattr(parameters, name)
