"""Parts of the recorder of vLLM's decisions, ``python -m vllm_benchmarks.record_decisions``."""
