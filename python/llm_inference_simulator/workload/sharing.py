"""What the requests of a workload have in common: prefixes, repeated prompts, sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_inference_simulator.workload.columns import Int64Array
from llm_inference_simulator.workload.identity import Segments, session_order, session_segments
from llm_inference_simulator.workload.sessions import Sessions
from llm_inference_simulator.workload.streams import Stream, stream
from llm_inference_simulator.workload_config import RequestsConfig

if TYPE_CHECKING:
    from llm_inference_simulator.workload.traces.trace import Marks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sharing:
    """Columns of a ``Workload``, None where nothing is shared."""

    segments: Segments | None = None
    priority: Int64Array | None = None
    after: Int64Array | None = None
    think_ns: Int64Array | None = None
    warnings: tuple[str, ...] = ()


def repeated_prompts(config: RequestsConfig, seed: int, n: int) -> Int64Array | None:
    """Draw which of the distinct prompts each request has; None where every prompt is new.

    There are ``random_num_prefixes`` times ``random_prompts_per_prefix`` of them: all equally
    likely, or each in turn as load generators send them that shuffle a list once (inference-perf);
    prompt p has prefix p // ``random_prompts_per_prefix``.
    """
    if config.random_prompts_per_prefix is None:
        return None
    distinct = config.random_num_prefixes * config.random_prompts_per_prefix
    generator = stream(seed, Stream.PREFIXES)
    if config.random_prompt_order == "cyclic":
        return np.resize(generator.permutation(distinct).astype(np.int64), n)
    return generator.integers(0, distinct, size=n, dtype=np.int64)


def share_generated(
    config: RequestsConfig, seed: int, prompt_tokens: Int64Array, prompts: Int64Array | None
) -> Sharing:
    """Segments of generated requests; ``prompt_tokens`` include the prefix.

    ``prompts`` are those of :func:`repeated_prompts`.
    """
    n, prefix = len(prompt_tokens), config.random_prefix_len
    groups = config.random_num_prefixes
    if prompts is not None:
        assert config.random_prompts_per_prefix is not None
        group = prompts // config.random_prompts_per_prefix
        if prefix == 0:
            return Sharing(segments=Segments.one_each(prompts, prompt_tokens))
        ids = np.stack([group, groups + prompts], axis=1).ravel()
        ends = np.stack([np.full(n, prefix), prompt_tokens], axis=1).ravel()
        offsets = np.arange(n + 1, dtype=np.int64) * 2
        return Sharing(segments=Segments(offsets=offsets, ids=ids, ends=ends))
    if prefix == 0:
        return Sharing()
    group = np.zeros(n, dtype=np.int64)
    if groups > 1:
        group = stream(seed, Stream.PREFIXES).integers(0, groups, size=n, dtype=np.int64)
    return Sharing(segments=Segments.one_each(group, np.full(n, prefix, dtype=np.int64)))


def share_sessions(
    config: RequestsConfig, seed: int, sessions: Sessions, said: Int64Array
) -> Sharing:
    """Segments and order of generated sessions.

    Each session begins with one of ``random_num_prefixes`` prefixes. ``said`` are the tokens of
    prompt, prefix included, and answer: the next turn begins with all of them.
    """
    n, prefix, groups = len(said), config.random_prefix_len, config.random_num_prefixes
    own = Segments.one_each(groups + sessions.number, said)
    if prefix:
        count = int(sessions.number[-1]) + 1
        group = np.zeros(count, dtype=np.int64)
        if groups > 1:
            group = stream(seed, Stream.PREFIXES).integers(0, groups, size=count, dtype=np.int64)
        own = Segments(
            offsets=np.arange(n + 1, dtype=np.int64) * 2,
            ids=np.stack([group[sessions.number], own.ids], axis=1).ravel(),
            ends=np.stack([np.full(n, prefix), own.ends], axis=1).ravel(),
        )
    think_ns = sessions.think_ns
    return Sharing(
        segments=own,
        after=session_order(sessions.number),
        think_ns=think_ns if think_ns.any() else None,
    )


def share_traced(
    config: RequestsConfig,
    marks: Marks | None,
    prompt_tokens: Int64Array,
    output_tokens: Int64Array,
) -> Sharing:
    """Segments, order and priorities of a trace's requests; lengths are without the prefix."""
    n, prefix = len(prompt_tokens), config.random_prefix_len
    if marks is None:
        segments = Segments.none(n).behind_prefix(prefix)
        return Sharing(segments=segments if prefix else None)
    warnings: list[str] = []
    after = session_order(marks.session)
    if any(marks.hash_ids):
        segments = Segments.of_hash_ids(marks.hash_ids, prompt_tokens, config.trace_block_size)
        warnings += _coverage(config, segments, marks, prompt_tokens)
    else:
        segments, rewritten = session_segments(marks.session, prompt_tokens, output_tokens)
        if rewritten:
            warnings.append(
                f"{rewritten:,} turns have prompts shorter than the conversation before them: they "
                "are taken to share nothing with it"
            )
    think_ns = np.rint(marks.think_ns / config.trace_speedup).astype(np.int64)
    first = int(((after < 0) & (think_ns > 0)).sum())
    if first:
        warnings.append(f"{first:,} think_time are of first turns: they have no effect")
    return Sharing(
        segments=segments.behind_prefix(prefix),
        priority=marks.priority if marks.priority.any() else None,
        after=after if (after >= 0).any() else None,
        think_ns=think_ns if think_ns.any() else None,
        warnings=tuple(warnings),
    )


def _coverage(
    config: RequestsConfig, segments: Segments, marks: Marks, prompt_tokens: Int64Array
) -> list[str]:
    """Warn where the number of hash ids does not fit the prompts' lengths."""
    given = np.array([len(ids) for ids in marks.hash_ids], dtype=np.int64)
    expected = -(-prompt_tokens // config.trace_block_size)
    wrong = int(((given > 0) & (np.abs(given - expected) > 1)).sum())
    if wrong * 100 <= len(segments):
        return []
    return [
        f"{wrong:,} requests have another number of hash_ids than their prompts have blocks of "
        f"trace_block_size={config.trace_block_size} tokens: check --trace-block-size"
    ]
