"""Several kinds of requests in one workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.build import DEFAULT_NUM_PROMPTS, build_requests
from llm_inference_simulator.workload.columns import MAX_REQUESTS, Int64Array, Workload
from llm_inference_simulator.workload.identity import Segments
from llm_inference_simulator.workload.streams import Stream
from llm_inference_simulator.workload_config import LOAD_FIELDS, WorkloadClass, WorkloadConfig

if TYPE_CHECKING:
    from llm_inference_simulator.workload.build import LoadTrace


def build_workload(config: WorkloadConfig, seed: int, load: LoadTrace | None = None) -> Workload:
    """Make the requests that ``config`` asks for; equal arguments give equal requests.

    Classes are drawn independently, each as a workload of its own, and merged by arrival (of one
    nanosecond in the order of the classes). The first has the seed itself, so one class is the
    workload that it describes. ``load`` stands in for ``traces.load_trace``, where traces have been
    read already. Raises :class:`WorkloadError`; what was dropped, cut or estimated is in the
    ``warnings``.
    """
    make = _merged if config.classes else build_requests
    workload = make(config, seed, load)
    return replace(workload, max_concurrency=config.max_concurrency)


def _merged(config: WorkloadConfig, seed: int, load: LoadTrace | None) -> Workload:
    parts = []
    for index, each in enumerate(_loads(config)):
        try:
            parts.append(build_requests(each, _seed(seed, index), load))
        except WorkloadError as error:
            raise WorkloadError(f"class {each.name}: {error}") from None
    if sum(map(len, parts)) > MAX_REQUESTS:
        raise WorkloadError(
            f"classes make {sum(map(len, parts)):,} requests together, more than {MAX_REQUESTS:,}: "
            "lower a rate"
        )
    order = np.argsort(np.concatenate([part.arrival_ns for part in parts]), kind="stable")
    names = [each.name for each in config.classes]
    lengths = [len(part) for part in parts]
    return Workload(
        arrival_ns=np.concatenate([part.arrival_ns for part in parts])[order],
        prompt_tokens=np.concatenate([part.prompt_tokens for part in parts])[order],
        output_tokens=np.concatenate([part.output_tokens for part in parts])[order],
        segments=_segments(parts, order),
        priority=_optional(_priorities(config, parts), lengths, order),
        after=_after(parts, order),
        think_ns=_optional([part.think_ns for part in parts], lengths, order),
        class_index=np.repeat(np.arange(len(parts), dtype=np.int64), lengths)[order],
        duration_ns=max(part.duration_ns for part in parts),
        description="; ".join(
            f"{name}: {part.description}" for name, part in zip(names, parts, strict=True)
        ),
        warnings=tuple(
            f"class {name}: {warning}"
            for name, part in zip(names, parts, strict=True)
            for warning in part.warnings
        ),
    )


def _seed(seed: int, index: int) -> int:
    if index == 0:
        return seed
    sequence = np.random.SeedSequence(seed, spawn_key=(int(Stream.CLASSES), index))
    return int(sequence.generate_state(1, np.uint64)[0])


def _loads(config: WorkloadConfig) -> list[WorkloadClass]:
    """Give classes with a share that part of the workload's load; others have their own."""
    shares = [each.share for each in config.classes if each.share is not None]
    if not shares:
        return list(config.classes)
    load = {field: getattr(config, field) for field in LOAD_FIELDS}
    counts: list[int] | list[None] = [None] * len(shares)
    if config.num_prompts is not None or config.arrival_seconds is None:
        counts = _apportioned(config.num_prompts or DEFAULT_NUM_PROMPTS, shares)
    loads = []
    for each, count in zip(config.classes, counts, strict=True):
        assert each.share is not None
        if count == 0:
            raise WorkloadError(
                f"class {each.name}: its share={each.share:g} of num_prompts is no request: raise "
                "one of them"
            )
        own = each.model_copy(update={**load, "num_prompts": count})
        loads.append(own.with_load_times(each.share / sum(shares)))
    return loads


def _apportioned(total: int, shares: Sequence[float]) -> list[int]:
    """Divide a whole number by largest remainders; the earlier class among equals."""
    exact = [total * share / sum(shares) for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for index in by_remainder[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _priorities(config: WorkloadConfig, parts: Sequence[Workload]) -> list[Int64Array | None]:
    """A class's own, else its trace's."""
    return [
        part.priority if each.priority is None else np.full(len(part), each.priority, np.int64)
        for each, part in zip(config.classes, parts, strict=True)
    ]


def _optional(
    columns: Sequence[Int64Array | None], lengths: Sequence[int], order: Int64Array
) -> Int64Array | None:
    """Columns that some classes do not have; 0 stands for what is missing."""
    if all(column is None for column in columns):
        return None
    filled = [
        np.zeros(length, dtype=np.int64) if column is None else column
        for column, length in zip(columns, lengths, strict=True)
    ]
    return np.concatenate(filled)[order]


def _after(parts: Sequence[Workload], order: Int64Array) -> Int64Array | None:
    """Predecessors by their places in the merged workload."""
    if all(part.after is None for part in parts):
        return None
    joined, start = [], 0
    for part in parts:
        own = np.full(len(part), -1, dtype=np.int64) if part.after is None else part.after
        joined.append(np.where(own < 0, -1, own + start))
        start += len(part)
    place = np.empty(start, dtype=np.int64)
    place[order] = np.arange(start, dtype=np.int64)
    after = np.concatenate(joined)[order]
    merged: Int64Array = np.where(after < 0, -1, place[after])
    return merged


def _segments(parts: Sequence[Workload], order: Int64Array) -> Segments | None:
    """Classes share nothing with one another: each gets numbers of its own."""
    if all(part.segments is None for part in parts):
        return None
    offsets, ids, ends = [np.zeros(1, dtype=np.int64)], [], []
    first_id, first_row = 0, 0
    for part in parts:
        own = Segments.none(len(part)) if part.segments is None else part.segments
        # Numbers of traces may take the whole 64 bits.
        names, number = np.unique(own.ids, return_inverse=True)
        ids.append(number.astype(np.int64) + first_id)
        ends.append(own.ends)
        offsets.append(own.offsets[1:] + first_row)
        first_id, first_row = first_id + len(names), first_row + len(own.ids)
    joined = Segments(
        offsets=np.concatenate(offsets), ids=np.concatenate(ids), ends=np.concatenate(ends)
    )
    return joined.take(order)
