"""Traces of real services: one reader a format, detection, and the shipped ones."""

from llm_inference_simulator.workload.traces.registry import TraceLimits, load_trace
from llm_inference_simulator.workload.traces.shipped import resolve
from llm_inference_simulator.workload.traces.trace import Trace

__all__ = ["Trace", "TraceLimits", "load_trace", "resolve"]
