"""ShareGPT conversations: lengths only, no times.

As in vLLM's benchmark the first turn is the prompt and the second the answer; conversations with
fewer turns are dropped, and so are prompts under 4 or over 1,024 tokens, answers under 4, and pairs
over 2,048 together (``is_valid_sequence``). Token counts are the entry's own ``prompt_tokens`` and
``output_tokens`` where it has them; otherwise they are estimated from the characters.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llm_inference_simulator.workload.traces import json_values
from llm_inference_simulator.workload.traces.source import TraceSource
from llm_inference_simulator.workload.traces.trace import Trace, recorded_trace

CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text and vocabularies of 32,000 tokens and more."""
SHORTEST = 4
LONGEST_PROMPT = 1024
LONGEST_PAIR = 2048


def read(source: TraceSource) -> Trace:
    """Read ShareGPT lengths; raises :class:`WorkloadError` naming file and row (entry from 1)."""
    entries = json_values.parse(source, source.text)
    if not isinstance(entries, list):
        raise source.error("it must be a JSON list of conversations")
    kept: list[tuple[int, int]] = []
    estimated = 0
    for row, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise source.error("it must be a JSON object", row=row)
        counted = "prompt_tokens" in entry or "output_tokens" in entry
        pair = _counted(source, entry, row) if counted else _estimated(source, entry, row)
        if pair is not None and _is_valid(*pair):
            kept.append(pair)
            estimated += not counted
    pairs = np.array(kept, dtype=np.int64).reshape(-1, 2)
    warnings = _warnings(len(entries), len(kept), estimated)
    return recorded_trace(source, None, pairs[:, 0].copy(), pairs[:, 1].copy(), warnings)


def _counted(source: TraceSource, entry: dict[str, Any], row: int) -> tuple[int, int]:
    return (
        json_values.token_count(source, entry, "prompt_tokens", row),
        json_values.token_count(source, entry, "output_tokens", row),
    )


def _estimated(source: TraceSource, entry: dict[str, Any], row: int) -> tuple[int, int] | None:
    turns = entry.get("conversations", [])
    if not isinstance(turns, list):
        raise source.error("'conversations' is not a list", row=row)
    if len(turns) < 2:
        return None
    lengths = []
    for turn in turns[:2]:
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise source.error("a turn has no text under 'value'", row=row)
        lengths.append(-(-len(turn["value"]) // CHARACTERS_PER_TOKEN))
    return lengths[0], lengths[1]


def _is_valid(prompt: int, output: int) -> bool:
    return (
        SHORTEST <= prompt <= LONGEST_PROMPT
        and output >= SHORTEST
        and prompt + output <= LONGEST_PAIR
    )


def _warnings(total: int, kept: int, estimated: int) -> list[str]:
    warnings = []
    if kept < total:
        warnings.append(
            f"{total - kept:,} of {total:,} conversations were dropped as vLLM's benchmark does: "
            f"fewer than 2 turns, under {SHORTEST} tokens, a prompt over {LONGEST_PROMPT:,} or a "
            f"pair over {LONGEST_PAIR:,}"
        )
    if estimated:
        warnings.append(
            f"token counts of {estimated:,} conversations are estimated at {CHARACTERS_PER_TOKEN} "
            "characters a token: give prompt_tokens and output_tokens in the file for exact ones"
        )
    return warnings
