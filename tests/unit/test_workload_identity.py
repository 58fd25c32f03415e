"""What requests share, and how it becomes KV blocks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_inference_simulator.workload import Workload, build_workload
from llm_inference_simulator.workload.identity import (
    Segments,
    session_order,
    session_segments,
)
from llm_inference_simulator.workload_config import WorkloadConfig


def column(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def blocks_of(segments: Segments, block_size: int) -> list[list[int]]:
    offsets, ids = segments.blocks(block_size)
    return [ids[start:end].tolist() for start, end in itertools.pairwise(offsets)]


def test_blocks_that_span_two_hash_ids_belong_to_the_later_one() -> None:
    """Ids of 10 tokens, blocks of 4: block 2 (tokens 8 to 11) needs both ids."""
    segments = Segments.of_hash_ids([[7, 8], [7, 9], [7]], column(20, 20, 10), 10)
    first, second, third = blocks_of(segments, 4)
    assert len(first) == len(second) == 5
    assert len(third) == 2
    assert first[:2] == second[:2] == third
    assert not set(first[2:]) & set(second[2:])


def test_ids_beyond_the_prompt_are_left_out_and_the_last_ends_with_it() -> None:
    segments = Segments.of_hash_ids([[1, 2, 3]], column(15), 10)
    assert segments.ids.tolist() == [1, 2]
    assert segments.ends.tolist() == [10, 15]


def test_a_prefix_is_shared_by_all_and_moves_what_follows() -> None:
    segments = Segments.of_hash_ids([[5], [], [5]], column(8, 3, 8), 8).behind_prefix(4)
    first, second, third = blocks_of(segments, 4)
    assert first == third
    assert first[:1] == second


def test_sessions_grow_one_sequence_with_their_answers() -> None:
    session, prompts, outputs = (
        column(0, 1, 0, -1, 0),
        column(8, 8, 16, 8, 12),
        column(4, 4, 4, 4, 1),
    )
    assert session_order(session).tolist() == [-1, -1, 0, -1, 2]
    segments, rewritten = session_segments(session, prompts, outputs)
    first, other, second, alone, third = blocks_of(segments, 4)
    assert second[:3] == first  # the earlier prompt and its answer
    assert len(second) == 5
    assert alone == []
    assert not set(other) & set(first)
    assert rewritten == 1  # 12 tokens do not continue 20
    assert not set(third) & set(second)


@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_blocks_are_equal_exactly_where_all_tokens_are(
    paths: list[list[int]], tokens_per_id: int, block_size: int
) -> None:
    """Ids are made chained, as prefix hashes are; tokens are written out and compared."""
    numbers: dict[tuple[int, ...], int] = {}
    chained = [
        [numbers.setdefault(tuple(path[: k + 1]), len(numbers)) for k in range(len(path))]
        for path in paths
    ]
    lengths = column(*(len(path) * tokens_per_id for path in paths))
    named = blocks_of(Segments.of_hash_ids(chained, lengths, tokens_per_id), block_size)
    tokens = [[each for each in path for _ in range(tokens_per_id)] for path in paths]
    for mine, my_tokens in zip(named, tokens, strict=True):
        assert len(mine) == len(my_tokens) // block_size
        for other, other_tokens in zip(named, tokens, strict=True):
            for place, (a, b) in enumerate(zip(mine, other, strict=False)):
                end = (place + 1) * block_size
                # A block is named by the id that covers its end, which says more than its tokens.
                cover = -(-end // tokens_per_id) * tokens_per_id
                assert (a == b) == (my_tokens[:cover] == other_tokens[:cover])


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6),
    st.data(),
)
def test_take_and_cut_keep_what_belongs_to_a_request(
    paths: list[list[int]], data: st.DataObject
) -> None:
    lengths = column(*(10 * len(path) for path in paths))
    segments = Segments.of_hash_ids(paths, lengths, 10)
    order = data.draw(st.permutations(range(len(paths))))
    taken = segments.take(column(*order))
    assert blocks_of(taken, 5) is not None
    for place, index in enumerate(order):
        own = slice(taken.offsets[place], taken.offsets[place + 1])
        assert taken.ids[own].tolist() == paths[index]
    shorter = lengths // 2
    cut = segments.cut(shorter)
    for index, length in enumerate(shorter):
        ends = cut.ends[cut.offsets[index] : cut.offsets[index + 1]]
        assert ends.max(initial=0) == length


def build(**given: object) -> Workload:
    return build_workload(WorkloadConfig.model_validate(given), 0)


def test_repeated_prompts_have_one_length_and_one_content_each() -> None:
    workload = build(
        num_prompts=2000,
        random_input_len=300,
        random_range_ratio=0.5,
        random_prefix_len=100,
        random_num_prefixes=3,
        random_prompts_per_prefix=4,
    )
    assert workload.segments is not None
    own = blocks_of(workload.segments, 10)
    kinds = {tuple(blocks) for blocks in own}
    assert len(kinds) == 12
    assert len({kind[:10] for kind in kinds}) == 3
    by_kind = {
        tuple(blocks): length for blocks, length in zip(own, workload.prompt_tokens, strict=True)
    }
    for blocks, length in zip(own, workload.prompt_tokens, strict=True):
        assert by_kind[tuple(blocks)] == length


def test_a_trace_keeps_its_identity_through_sorting_counting_and_cutting(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 5, "input_length": 20, "output_length": 1, "hash_ids": [1, 2]},
        {"timestamp": 1, "input_length": 20, "output_length": 1, "hash_ids": [1, 3], "priority": 4},
        {"timestamp": 9, "input_length": 20, "output_length": 1, "hash_ids": [1, 2]},
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    workload = build(trace=str(path), trace_block_size=10, num_prompts=2, max_input_length=15)
    assert workload.segments is not None
    assert workload.segments.ids.tolist() == [1, 3, 1, 2]
    assert workload.segments.ends.tolist() == [10, 15, 10, 15]
    assert workload.priority is not None
    assert workload.priority.tolist() == [4, 0]
