"""What a request spends its time in, from the columns of a result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PHASES = ("queued", "prefill", "handover", "transfer", "decode")
"""In order of time; hand-over and transfer only where prefill and decode engines are apart.

Hand-over: from the first token at the client until the decode engine has room and the first bytes
of the keys and values are there. Transfer: until all of them are. Decode: until the last token.
"""


def request_phases(
    requests: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(start, end) in ns of each phase of the requests ``rows``, all of which were answered.

    The phases follow one another without a gap from arrival to answer, so they add up to the time
    between the two exactly. A phase that a request did not have, or that lies wholly inside an
    earlier one (keys and values sent during the prefill), has length 0.
    """
    arrival, answered = requests["arrival_ns"][rows], requests["finished_ns"][rows]
    ends = [_reached(requests["admitted_ns"][rows]), _reached(requests["first_token_ns"][rows])]
    if "transfer_end_ns" in requests:
        # What was not transferred (one token, or given up before) has no such phases.
        moved = requests["transfer_end_ns"][rows] >= 0
        ends += [
            np.where(moved, requests[name][rows], ends[-1])
            for name in ("transfer_start_ns", "transfer_end_ns")
        ]
    else:
        ends += [ends[-1], ends[-1]]
    ends.append(answered)
    phases, start = {}, arrival
    for name, end in zip(PHASES, ends, strict=True):
        phases[name] = (start, np.clip(end, start, answered))
        start = phases[name][1]
    return phases


def _reached(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """What never happened lasts until the request is given up."""
    return np.where(times >= 0, times, np.iinfo(np.int64).max)
