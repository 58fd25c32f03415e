"""Sweeps: many configurations of one base, one row each, in a folder that a sweep resumes from."""

from llm_inference_simulator.sweep.run import SweepResult, run_sweep
from llm_inference_simulator.sweep.spec import SweepSpec

__all__ = ["SweepResult", "SweepSpec", "run_sweep"]
