"""A plain Python event loop of the common workload: what one writes first, without any trick.

Continuous batching with a token budget on one engine, chunked prefill, no cache limits: each step
loops over the running requests. It is a yardstick for speed, not an oracle: that is
tests/reference, which checks invariants at every step and is slower by orders of magnitude.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence


def run_naive(
    arrivals_ns: Sequence[int],
    prompt: int,
    output: int,
    *,
    max_num_seqs: int,
    budget: int,
    costs_ns: tuple[int, int, int],
) -> tuple[int, int]:
    """Run all requests; returns (steps, sum of the times at which they finished).

    ``costs_ns``: of a step, of a prefill token, of a decoding request.
    """
    step_ns, prefill_ns, decode_ns = costs_ns
    waiting: deque[list[int]] = deque()
    running: list[
        list[int]
    ] = []  # [tokens computed, tokens to compute before the next token, left]
    now = steps = finished = arrived = 0
    while arrived < len(arrivals_ns) or waiting or running:
        if not running and not waiting:
            now = max(now, arrivals_ns[arrived])
        while arrived < len(arrivals_ns) and arrivals_ns[arrived] <= now:
            waiting.append([0, prompt, output])
            arrived += 1
        left, prefill, decode = budget, 0, 0
        scheduled = []
        for request in running:
            tokens = min(request[1] - request[0], left)
            if tokens > 0:
                left -= tokens
                scheduled.append((request, tokens))
        while waiting and left > 0 and len(running) < max_num_seqs:
            request = waiting.popleft()
            running.append(request)
            tokens = min(request[1], left)
            left -= tokens
            scheduled.append((request, tokens))
        for request, tokens in scheduled:
            if request[0] >= prompt:
                decode += 1
            else:
                prefill += tokens
        now += step_ns + prefill_ns * prefill + decode_ns * decode
        steps += 1
        for request, tokens in scheduled:
            request[0] += tokens
            if request[0] == request[1]:
                request[1] += 1
                request[2] -= 1
                if request[2] == 0:
                    running.remove(request)
                    finished += now
    return steps, finished
