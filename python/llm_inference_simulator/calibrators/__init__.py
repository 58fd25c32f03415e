"""From measurements to calibration files: one module a kind of measurements."""

from llm_inference_simulator.calibrators.from_bench import calibrate_from_bench
from llm_inference_simulator.calibrators.from_steps import (
    StepCalibration,
    calibrate_from_step_data,
    calibrate_from_steps,
)

__all__ = [
    "StepCalibration",
    "calibrate_from_bench",
    "calibrate_from_step_data",
    "calibrate_from_steps",
]
