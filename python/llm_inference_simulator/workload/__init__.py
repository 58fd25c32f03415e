"""Which requests arrive, and when: arrivals, lengths and traces become request columns."""

from llm_inference_simulator.workload.classes import build_workload
from llm_inference_simulator.workload.columns import Workload

__all__ = ["Workload", "build_workload"]
