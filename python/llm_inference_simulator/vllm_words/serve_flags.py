"""The flags of ``vllm serve`` 0.32.0, by what becomes of them here.

A test marked ``vllm`` holds the tables equal to vLLM's own parser.
"""

from __future__ import annotations

from llm_inference_simulator.vllm_words.flags import VllmFlag, read_table
from llm_inference_simulator.vllm_words.ignored_serve_flags import IGNORED

VLLM_VERSION = "0.32.0"

_MAPPED = """
--model V -> model
--tensor-parallel-size -tp N -> cluster.tensor_parallel_size
--pipeline-parallel-size -pp N -> cluster.pipeline_parallel_size
--data-parallel-size -dp N -> cluster.data_parallel_size
--[no-]enable-expert-parallel -ep -> engine.enable_expert_parallel
--nnodes -n N -> cluster.n_nodes
--dtype V -> engine.dtype
--quantization -q V -> engine.quantization
--kv-cache-dtype V -> engine.kv_cache_dtype
--max-model-len V -> engine.max_model_len
--max-num-seqs N -> engine.max_num_seqs
--max-num-active-seqs N -> engine.max_batch_size
--max-num-batched-tokens TOKENS -> engine.max_num_batched_tokens
--gpu-memory-utilization --device-memory-utilization REAL -> engine.gpu_memory_utilization
--block-size N -> engine.block_size
--num-gpu-blocks-override N -> engine.num_gpu_blocks_override
--[no-]enable-prefix-caching -> engine.enable_prefix_caching
--[no-]enable-chunked-prefill -> engine.enable_chunked_prefill
--long-prefill-token-threshold N -> engine.long_prefill_token_threshold
--[no-]long-prefill-token-threshold-adaptive -> engine.long_prefill_token_threshold_adaptive
--scheduling-policy V -> engine.scheduling_policy
--[no-]scheduler-reserve-full-isl -> engine.scheduler_reserve_full_isl
--watermark REAL -> engine.watermark
--[no-]async-scheduling -> engine.async_scheduling
--generation-config V -> engine.generation_config
--override-generation-config JSON -> vllm.override_generation_config
--performance-mode V -> vllm.performance_mode
--optimization-level V -> vllm.optimization_level
--compilation-config -cc JSON -> vllm.compilation_config
--limit-mm-per-prompt JSON -> vllm.limit_mm_per_prompt
--data-parallel-rank -dpn N -> vllm.own_router
--[no-]data-parallel-hybrid-lb -dph -> vllm.own_router
--[no-]data-parallel-external-lb -dpe -> vllm.own_router
--data-parallel-multi-port-external-lb -dpm -> vllm.own_router
"""

_REFUSED = {
    "speculative decoding is not modelled": """
--speculative-config -sc V
--spec-method V
--spec-model V
--spec-tokens N
""",
    "LoRA adapters are not modelled": """
--[no-]enable-lora = off
--lora-modules V...
--default-mm-loras V
""",
    "only models that generate text are simulated": """
--runner V = auto generate
--convert V = auto none
--pooler-config V
--diffusion-config -dc V
--engram-config V
""",
    "its transfers are not taken from vLLM's line: describe the pools with --disaggregated": """
--kv-transfer-config V
--ec-transfer-config V
""",
    "keys, values and weights outside the accelerator's memory are not modelled": """
--kv-offloading-size V
--cpu-offload-gb REAL = 0.0
--offload-group-size N = 0
""",
    "context parallelism is not modelled": """
--decode-context-parallel-size -dcp N = 1
--prefill-context-parallel-size -pcp N = 1
""",
    "overlapped micro-batches are not modelled": """
--[no-]enable-dbo = off
--ubatch-size N = 0
""",
    "experts lie where vLLM puts them by default; skew is --expert-load-imbalance": """
--[no-]enable-eplb = off
--[no-]enable-elastic-ep = off
--expert-placement-strategy V = linear
--dp-sync-interval N = 16
""",
    "step times are those of the kernels and CUDA graphs that vLLM chooses itself": """
--[no-]enforce-eager = off
--cudagraph-capture-sizes N...
--max-cudagraph-capture-size N
--attention-backend V = auto
--attention-config -ac JSON = {}
--moe-backend V = auto
--linear-backend V = auto
--all2all-backend V = allgather_reducescatter
--sparse-indexer-topk-backend V = auto
--gdn-prefill-backend V
--kda-prefill-backend V = auto
--kda-decode-backend V = auto
--kernel-config JSON = {}
--ir-op-priority JSON = {}
--[no-]enable-flashinfer-autotune = on
--[no-]disable-custom-all-reduce = off
--[no-]enable-hc-sp = off
--[no-]kv-sharing-fast-prefill = off
--model-impl V = auto vllm
--worker-cls V = auto
""",
    "the blocks of the KV cache are planned as vLLM does by default": """
--kv-cache-memory-bytes V
--kv-cache-dtype-skip-layers V...
--[no-]disable-hybrid-kv-cache-manager = off
--[no-]disable-sliding-window = off
--prefix-match-unit N
--prefix-cache-retention-interval N = 0
--[no-]swa-bounded-replay = on
--[no-]language-model-only = off
--[no-]mm-encoder-only = off
--[no-]skip-mm-profiling = off
--mm-ipc-gpu-memory-gb REAL = 0.0
""",
    "this scheduling is not modelled": """
--scheduler-cls V
--max-num-scheduled-tokens TOKENS
--prefill-schedule-interval N = 1
--stream-interval N = 1
""",
    "it counts running requests and those of all engines; for waiting ones give --max-queue": """
--max-num-queued-reqs N
--max-num-queued-tokens TOKENS
""",
    "what it adds to sampling is not modelled": """
--logits-processors V...
--watermark-config V
--[no-]use-fp64-gumbel = off
--[no-]return-sampling-mask = off
--[no-]enable-return-routed-experts = off
--[no-]enable-trace-replay = off
--[no-]enable-batch-sharded-sampling = off
--aux-output-config JSON = {}
""",
    "it changes the model: name a config.json that says the same with --model": """
--quantization-config V
--hf-overrides V = {}
--hf-config-path V
--model-class-overrides JSON = {}
--additional-config V = {}
""",
}
"""Why → which flags."""


def serve_flags() -> tuple[VllmFlag, ...]:
    """All flags of ``vllm serve``."""
    refused = (flag for why, table in _REFUSED.items() for flag in read_table(table, refusal=why))
    return (
        *read_table(_MAPPED),
        *refused,
        *(flag for table in IGNORED.values() for flag in read_table(table)),
    )
