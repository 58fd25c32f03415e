"""Prompts made up from what a workload says is equal."""

from __future__ import annotations

from collections.abc import Sequence

from vllm_benchmarks.recording.workload import Row


class Prompts:
    """Token ids for prompts: every content (a hash id, a request's own) is one repeated number.

    A block is then equal to another exactly if both repeat the same numbers at the same places, and
    a number is a token id that a tiny model's vocabulary can hold.
    """

    def __init__(self, rows: Sequence[Row], trace_block_size: int) -> None:
        named = dict.fromkeys(hash_id for row in rows for hash_id in row.hash_ids)
        self._named = {hash_id: number for number, hash_id in enumerate(named, start=1)}
        self._trace_block_size = trace_block_size
        self.vocabulary = 1 + len(self._named) + len(rows)

    def own(self, index: int) -> int:
        """The token id of request ``index`` that no other request has."""
        return 1 + len(self._named) + index

    def tokens(self, index: int, row: Row) -> list[int]:
        """The prompt of request ``index``."""
        tokens: list[int] = []
        for hash_id in row.hash_ids:
            tokens += [self._named[hash_id]] * self._trace_block_size
        del tokens[row.prompt :]
        return tokens + [self.own(index)] * (row.prompt - len(tokens))
