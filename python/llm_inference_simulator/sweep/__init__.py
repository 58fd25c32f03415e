"""Sweeps: many configurations of one base, one row each, in a folder that a sweep resumes from."""

from llm_inference_simulator.sweep.run import SweepInterrupted, SweepResult, run_sweep
from llm_inference_simulator.sweep.spec import SweepSpec

__all__ = ["SweepInterrupted", "SweepResult", "SweepSpec", "run_sweep"]
