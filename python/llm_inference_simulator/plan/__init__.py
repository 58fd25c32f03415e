"""Plans: the cheapest configuration for a rate, or the highest rate of each, by simulation."""

from llm_inference_simulator.plan.planner import Plan, make_plan
from llm_inference_simulator.plan.request import PlanRequest

__all__ = ["Plan", "PlanRequest", "make_plan"]
