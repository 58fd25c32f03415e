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
    limits = [
        (max_num_batched_tokens, measured.prefill_tokens, "tokens a step", "max_num_batched_tokens"),
        (min(max_num_seqs, max_num_batched_tokens), measured.sequences, "requests a step",
         "max_num_seqs"),
        (max_model_len, measured.context_tokens, "tokens of context", "max_model_len"),
    ]  # fmt: skip
    beyond = [
        f"{limit:,} {what} (measured: {largest:,}; --{setting.replace('_', '-')})"
        for limit, largest, what, setting in limits
        if limit > largest
    ]
    if not beyond:
        return None
    return (
        f"the engine may run up to {', '.join(beyond)}: such steps are extrapolated, measure them "
        "or lower the limits"
    )
