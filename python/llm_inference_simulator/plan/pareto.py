"""Which candidates no other one beats in two measures at once."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(pairs: Sequence[tuple[float | None, float | None]]) -> list[int]:
    """Places of the pairs that none is better than in both measures, smaller being better.

    Sorted by the first measure. Pairs with an undefined measure are left out; of equal ones the
    first stays.
    """
    known = sorted(
        (first, second, place)
        for place, (first, second) in enumerate(pairs)
        if first is not None and second is not None
    )
    front: list[int] = []
    lowest = float("inf")
    for _, second, place in known:
        if second < lowest:
            front.append(place)
            lowest = second
    return front
