"""How many KV blocks an engine has, or why the model does not fit and what would make it fit.

As in vLLM 0.15: memory · ``gpu_memory_utilization`` - weights - peak of the profiling run - what
lies outside PyTorch's pool, divided into blocks. :mod:`.memory` has the terms, :mod:`.kv_cache`
the blocks, :mod:`.plan` the verdict.
"""

from llm_inference_simulator.capacity.kv_cache import (
    KvLayout,
    kv_bytes_per_token_per_rank,
    kv_dtype_bytes,
    kv_layout,
)
from llm_inference_simulator.capacity.memory import (
    DTYPE_BYTES,
    activation_bytes,
    resolve_quantization,
    weight_bytes_per_rank,
)
from llm_inference_simulator.capacity.parallelism import (
    check_tensor_parallel_size,
    valid_tensor_parallel_sizes,
)
from llm_inference_simulator.capacity.plan import (
    MemoryPlan,
    fits,
    longest_sequence,
    plan_memory,
)

__all__ = [
    "DTYPE_BYTES",
    "KvLayout",
    "MemoryPlan",
    "activation_bytes",
    "check_tensor_parallel_size",
    "fits",
    "kv_bytes_per_token_per_rank",
    "kv_dtype_bytes",
    "kv_layout",
    "longest_sequence",
    "plan_memory",
    "resolve_quantization",
    "valid_tensor_parallel_sizes",
    "weight_bytes_per_rank",
]
