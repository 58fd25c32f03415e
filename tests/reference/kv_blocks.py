"""Blocks of the KV cache with real ids: who holds them, what they contain, which goes next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

Content = tuple[object, ...]
"""What a full block contains: the labels of all blocks of its prefix, itself last."""


class BlockPool:
    """Usable blocks are numbered from 1; block 0 is vLLM's null block and never given out."""

    def __init__(self, num_gpu_blocks: int, *, caching: bool) -> None:
        self.all = set(range(1, num_gpu_blocks))
        self.caching = caching
        self.free: OrderedDict[int, None] = OrderedDict((block, None) for block in sorted(self.all))
        self.holders = dict.fromkeys(self.all, 0)
        self.content: dict[int, Content] = {}
        self.findable: dict[Content, list[int]] = {}

    def find(self, contents: Iterable[Content]) -> list[int]:
        """The longest run of findable blocks (9.2), of equal ones the first registered (9.4)."""
        found = []
        for content in contents:
            blocks = self.findable.get(content)
            if not blocks:
                break
            found.append(blocks[0])
        return found

    def hold_found(self, blocks: list[int]) -> None:
        """Take hit blocks, out of the free list where nobody holds them (10.3)."""
        for block in blocks:
            if self.holders[block] == 0:
                del self.free[block]
            self.holders[block] += 1

    def take_new(self, count: int) -> list[int]:
        """Take blocks from the head of the free list and forget what they contained (10.2)."""
        taken = []
        for _ in range(count):
            block, _ = self.free.popitem(last=False)
            self.forget(block)
            self.holders[block] = 1
            taken.append(block)
        return taken

    def forget(self, block: int) -> None:
        content = self.content.pop(block, None)
        if content is not None:
            self.findable[content].remove(block)
            if not self.findable[content]:
                del self.findable[content]

    def register(self, block: int, content: Content) -> None:
        """Make a full block findable, once (9.3)."""
        if block not in self.content:
            self.content[block] = content
            self.findable.setdefault(content, []).append(block)

    def give_back(self, blocks: list[int]) -> None:
        """Give up a request's blocks from last to first (10.1)."""
        for block in reversed(blocks):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                self.free[block] = None
                self.free.move_to_end(block, last=block in self.content)

    def check(self, held: list[list[int]]) -> None:
        """Every block is free or held by exactly as many requests as it counts."""
        counts = dict.fromkeys(self.all, 0)
        for blocks in held:
            assert len(set(blocks)) == len(blocks), "a request holds a block twice"
            for block in blocks:
                counts[block] += 1
        assert counts == self.holders
        assert set(self.free) == {block for block, count in counts.items() if count == 0}
        assert sorted(self.content) == sorted(b for bs in self.findable.values() for b in bs)
