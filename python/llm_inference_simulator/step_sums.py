"""What a cost model sees of a step, by name: the fields of ``StepShape`` and of recorded steps."""

STEP_SUMS = (
    "prefill_seqs",
    "prefill_tokens",
    "prefill_attention_pairs",
    "prefill_context_tokens",
    "decode_seqs",
    "decode_context_tokens",
    "sampled_seqs",
    "prefill_window_pairs",
    "prefill_window_tokens",
    "decode_window_tokens",
)
