"""Whether a run stays within what a calibration was measured on."""

from __future__ import annotations

from llm_inference_simulator.calibration.parameters import CalibratedRange


def beyond_range(
    measured: CalibratedRange | None,
    *,
    max_num_batched_tokens: int,
    max_num_seqs: int,
    max_model_len: int,
) -> str | None:
    """Say which steps an engine may run that were not measured; None where there are none.

    The arguments are the engine's limits: what it will really run depends on the load.
    """
    if measured is None:
        return None
    # A step holds no more requests than tokens, and no context is longer than max_model_len.
    requests = min(max_num_seqs, max_num_batched_tokens)
    limits = [
        (
            max_num_batched_tokens,
            measured.prefill_tokens,
            "tokens a step",
            "max-num-batched-tokens",
        ),
        (requests, measured.sequences, "requests a step", "max-num-seqs"),
        (max_model_len, measured.context_tokens, "tokens of context", "max-model-len"),
    ]
    beyond = [
        f"{limit:,} {what} (measured: {largest:,}; --{flag})"
        for limit, largest, what, flag in limits
        if limit > largest
    ]
    if not beyond:
        return None
    return (
        f"the engine may run up to {', '.join(beyond)}: such steps are extrapolated, measure them "
        "or lower the limits"
    )
