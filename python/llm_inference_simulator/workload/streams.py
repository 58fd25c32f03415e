"""Named random streams: what one part of a workload draws never shifts another part."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """The streams; the number is part of every result, so none is ever reused or renumbered."""

    ARRIVALS = 0
    INPUT_LENGTHS = 1
    OUTPUT_LENGTHS = 2
    LENGTH_PAIRS = 3
    TRACE_SAMPLING = 4
    PREFIXES = 5
    THINNING = 6
    SESSIONS = 7
    CLASSES = 8


def stream(seed: int, name: Stream, *index: int) -> np.random.Generator:
    """Return the generator of one stream of a seed, or of a numbered part of it.

    Equal to child ``name`` of ``numpy.random.SeedSequence(seed)`` (and its child ``index``):
    independent of the others, and the same whether or not they are used.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(name), *index)))
