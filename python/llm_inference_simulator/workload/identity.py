"""Which requests begin with the same tokens, and which wait for the answer to another.

A prompt is named piece by piece: a segment's number stands for **all** tokens from the start of the
sequence to the segment's end, so two requests share a prefix exactly as far as their numbers agree.
Tokens that no segment names are a request's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segments:
    """Named beginnings of token sequences.

    Request i has the segments ``offsets[i]:offsets[i + 1]``, in order; ``ids`` are their numbers
    and ``ends`` the tokens from the start of the sequence to their ends, rising within a request.
    """

    offsets: Int64Array
    ids: Int64Array
    ends: Int64Array

    @classmethod
    def none(cls, requests: int) -> Self:
        """Requests that share nothing."""
        empty = np.zeros(0, dtype=np.int64)
        return cls(offsets=np.zeros(requests + 1, dtype=np.int64), ids=empty, ends=empty)

    @classmethod
    def one_each(cls, ids: Int64Array, ends: Int64Array) -> Self:
        """One segment a request."""
        return cls(offsets=np.arange(len(ids) + 1, dtype=np.int64), ids=ids, ends=ends)

    @classmethod
    def of_hash_ids(
        cls, hash_ids: list[list[int]], prompt_tokens: Int64Array, tokens_per_id: int
    ) -> Self:
        """Segments of traces that name each ``tokens_per_id`` tokens of a prompt by a number.

        Ids beyond the prompt's end are left out; the last one ends with the prompt.
        """
        counts = np.array([len(ids) for ids in hash_ids], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        ids = np.array([each for ids in hash_ids for each in ids], dtype=np.int64)
        place = np.arange(len(ids), dtype=np.int64) - np.repeat(offsets[:-1], counts)
        prompts = np.repeat(prompt_tokens, counts)
        segments = cls(
            offsets=offsets, ids=ids, ends=np.minimum((place + 1) * tokens_per_id, prompts)
        )
        return segments._keep(place * tokens_per_id < prompts)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int64Array:
        """Segments of each request."""
        return np.diff(self.offsets)

    def _keep(self, kept: NDArray[np.bool_]) -> Self:
        """Drop segments."""
        before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])
        return type(self)(offsets=before[self.offsets], ids=self.ids[kept], ends=self.ends[kept])

    def take(self, order: Int64Array) -> Self:
        """Segments of the requests ``order``, in that order."""
        counts = self.counts[order]
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        within = np.arange(offsets[-1], dtype=np.int64) - np.repeat(offsets[:-1], counts)
        source = np.repeat(self.offsets[order], counts) + within
        return type(self)(offsets=offsets, ids=self.ids[source], ends=self.ends[source])

    def cut(self, prompt_tokens: Int64Array) -> Self:
        """Segments of prompts that were cut to these lengths."""
        longest = np.repeat(prompt_tokens, self.counts)
        start = np.concatenate([np.zeros(1, dtype=np.int64), self.ends[:-1]])[: len(self.ends)]
        start[self.offsets[:-1][self.counts > 0]] = 0
        cut = type(self)(offsets=self.offsets, ids=self.ids, ends=np.minimum(self.ends, longest))
        return cut._keep(start < longest)

    def behind_prefix(self, prefix_tokens: int) -> Self:
        """Put one prefix that all requests share before them; it takes the number -1."""
        if prefix_tokens == 0:
            return self
        ids = np.insert(self.ids, self.offsets[:-1], -1)
        ends = np.insert(self.ends + prefix_tokens, self.offsets[:-1], prefix_tokens)
        offsets = self.offsets + np.arange(len(self.offsets), dtype=np.int64)
        return type(self)(offsets=offsets, ids=ids, ends=ends)

    def blocks(self, block_size: int) -> tuple[Int64Array, Int64Array]:
        """(offsets, ids) of full KV blocks: equal ids exactly where all tokens so far are equal.

        A block that spans two segments is named by the later one, which stands for all tokens up
        to its end.
        """
        full = self.ends // block_size
        previous = np.concatenate([np.zeros(1, dtype=np.int64), full[:-1]])[: len(full)]
        previous[self.offsets[:-1][self.counts > 0]] = 0
        counts = full - previous
        first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
        place = np.arange(first[-1], dtype=np.int64) - np.repeat(first[:-1] - previous, counts)
        _, number = np.unique(self.ids, return_inverse=True)
        most = int(full.max(initial=0)) + 1
        ids = np.repeat(number.astype(np.int64), counts) * most + place
        return first[self.offsets], ids


def session_order(session: Int64Array) -> Int64Array:
    """For each request the one before it in its session; -1 for first turns and no session (-1)."""
    order = np.argsort(session, kind="stable")
    ordered = session[order]
    after = np.full(len(session), -1, dtype=np.int64)
    follows = (ordered[1:] == ordered[:-1]) & (ordered[1:] >= 0)
    after[order[1:][follows]] = order[:-1][follows]
    return after


def session_segments(
    session: Int64Array, prompt_tokens: Int64Array, output_tokens: Int64Array
) -> tuple[Segments, int]:
    """Segments of multi-turn sessions, and how many turns do not continue the one before.

    A turn's prompt is the earlier prompt and answer, then new tokens; so all turns of a session are
    beginnings of one growing sequence, answers included. A prompt shorter than what came before was
    rewritten: it starts a new sequence.
    """
    after = session_order(session)
    total = prompt_tokens + output_tokens
    rewritten = (after >= 0) & (prompt_tokens < total[after])
    ids = np.full(len(session), -1, dtype=np.int64)
    for index in np.flatnonzero(session >= 0):
        previous = after[index]
        ids[index] = ids[previous] if previous >= 0 and not rewritten[index] else index
    named = ids >= 0
    segments = Segments(
        offsets=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(named)]),
        ids=ids[named],
        ends=total[named],
    )
    return segments, int(rewritten.sum())
