"""Measures and records real vLLM, and compares it with the simulator."""
