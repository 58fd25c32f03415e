"""The flags of ``vllm bench serve`` 0.32.0, by what becomes of them here.

A test marked ``vllm`` holds the tables equal to vLLM's own parser.
"""

from __future__ import annotations

from llm_inference_simulator.vllm_words.flags import VllmFlag, read_table

_MAPPED = """
--model V -> model
--seed N -> seed
--num-prompts N -> workload.num_prompts
--request-rate REAL -> workload.request_rate
--burstiness REAL -> workload.burstiness
--max-concurrency N -> workload.max_concurrency
--goodput V... -> measurement.goodput
--metric-percentiles V -> measurement.metric_percentiles
--random-input-len N -> workload.random_input_len
--random-output-len N -> workload.random_output_len
--random-prefix-len N -> workload.random_prefix_len
--random-range-ratio V -> vllm.random_range_ratio
--input-len N -> vllm.input_len
--output-len N -> vllm.output_len
--dataset-name V -> vllm.dataset_name
--dataset-path V -> vllm.dataset_path
--prefix-repetition-prefix-len N -> vllm.prefix_len
--prefix-repetition-suffix-len N -> vllm.suffix_len
--prefix-repetition-num-prefixes N -> vllm.num_prefixes
--prefix-repetition-output-len N -> vllm.prefix_output_len
--custom-output-len N -> vllm.custom_output_len
--timed-trace-chunk-hash-size N -> vllm.hash_size
--timed-trace-sec-multiplier REAL -> vllm.sec_multiplier
--[no-]self-timed -> vllm.self_timed
--ramp-up-strategy V -> vllm.ramp_up_strategy
--ramp-up-start-rps N -> vllm.ramp_up_start
--ramp-up-end-rps N -> vllm.ramp_up_end
--backend V -> vllm.backend
--repetition-penalty REAL -> vllm.repetition_penalty
--extra-body JSON -> vllm.extra_body
"""

_REFUSED = {
    "output lengths come from the conversations themselves": """
--sharegpt-output-len N
""",
    "a timed trace has the names of Mooncake's: rename the keys of its rows": """
--timed-trace-label-timestamp V = timestamp
--timed-trace-label-input-length V = input_length
--timed-trace-label-output-length V = output_length
--timed-trace-label-hash-ids V = hash_ids
""",
    "what it adds to sampling is not modelled": """
--use-beam-search
--logprobs N
--frequency-penalty REAL = 0.0
--presence-penalty REAL = 0.0
""",
    "LoRA adapters are not modelled": """
--lora-modules V...
""",
    "probes beside the load are not modelled": """
--probe-request-rate REAL = 0.0
""",
    "only requests of one prompt are simulated": """
--random-batch-size N = 1
""",
}

_IGNORED = """
--trust-remote-code
--no-stream
--no-oversample
--skip-chat-template
--enable-multimodal-chat
--disable-shuffle
--custom-ensure-client-side-data
--spec-bench-output-len V
--spec-bench-category V
--blazedit-min-distance V
--blazedit-max-distance V
--asr-max-audio-len-sec V
--asr-min-audio-len-sec V
--no-reranker
--random-mm-base-items-per-request V
--random-mm-num-mm-items-range-ratio V
--random-mm-limit-mm-per-prompt V
--random-mm-bucket-config V
--hf-subset V
--hf-split V
--hf-name V
--hf-output-len V
--bfcl-categories V
--speed-bench-dataset-subset V
--speed-bench-output-len V
--speed-bench-category V
--label V
--base-url V
--host V
--port V
--endpoint V
--header [V...]
--tokenizer V
--tokenizer-mode V
--disable-tqdm
--num-warmups V
--profile
--save-result
--save-detailed
--append-result
--metadata [V...]
--result-dir V
--result-filename V
--ignore-eos
--percentile-metrics V
--request-id-prefix V
--top-p V
--top-k V
--min-p V
--temperature V
--served-model-name V
--lora-assignment V
--ready-check-timeout-sec V
--chat-template-kwargs V
--skip-tokenizer-init
--insecure
--plot-timeline
--timeline-itl-thresholds V
--plot-dataset-stats
"""


def bench_flags() -> tuple[VllmFlag, ...]:
    """All flags of ``vllm bench serve``."""
    refused = (flag for why, table in _REFUSED.items() for flag in read_table(table, refusal=why))
    return (*read_table(_MAPPED), *refused, *read_table(_IGNORED))
