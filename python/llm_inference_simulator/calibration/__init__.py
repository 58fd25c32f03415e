"""Calibration files: effective rates that were measured, not assumed."""

from llm_inference_simulator.calibration.parameters import RooflineParameters, load_calibration

__all__ = ["RooflineParameters", "load_calibration"]
