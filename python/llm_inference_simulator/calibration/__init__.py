"""Calibration files: effective rates that were measured, not assumed."""

from llm_inference_simulator.calibration.front_end import resolve_front_end
from llm_inference_simulator.calibration.parameters import (
    CalibrationFile,
    FrontEndLatency,
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
