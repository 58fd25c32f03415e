"""Discrete-event simulator of LLM serving clusters."""
