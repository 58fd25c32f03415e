"""What the accelerators' memory holds."""

from __future__ import annotations

from collections.abc import Sequence

from llm_inference_simulator.report import numbers
from llm_inference_simulator.report.charts import Axis, Chart, Series
from llm_inference_simulator.report.page import Item, Table
from llm_inference_simulator.report.saved import Capacity, NamedResult

PARTS = (
    ("Weights", "weights", "weight_bytes_per_rank"),
    ("Activations", "activations", "activation_bytes"),
    ("Runtime", "runtime", "runtime_bytes"),
    ("KV cache", "kv", "kv_cache_bytes"),
)


def capacity_items(named: Sequence[NamedResult]) -> list[Item]:
    """The memory of an accelerator of each pool, as bars and in numbers."""
    rows = [
        (_label(each, pool.name, len(named) > 1), pool)
        for each in named
        for pool in each.result.pools
    ]
    capacities = [pool.capacity for _, pool in rows]
    chart = Chart(
        identity="capacity",
        title="Memory of an accelerator, GiB",
        x=Axis(low=0),
        y=Axis(categories=tuple(label for label, _ in rows)),
        series=[
            *(
                Series(
                    name=title,
                    y=[_in_gib(getattr(capacity, name)) for capacity in capacities],
                    kind="bar",
                    stack="memory",
                    color=role,
                )
                for title, role, name in PARTS
            ),
            Series(
                name="Left free",
                y=[_in_gib(_left(capacity)) for capacity in capacities],
                kind="bar",
                stack="memory",
                color="unused",
            ),
        ],
        height=90 + 40 * len(rows),
        wide=True,
        flip=True,
    )
    table = Table(
        title="Capacity of an engine",
        header=("", "KV tokens", "blocks", "context", "weights", "KV cache", "usable", "in all"),
        rows=[
            [
                label,
                numbers.count(pool.capacity.kv_cache_tokens),
                f"{pool.capacity.num_gpu_blocks:,} x {pool.capacity.block_size}",
                numbers.count(pool.capacity.max_model_len),
                numbers.gib(pool.capacity.weight_bytes_per_rank),
                numbers.gib(pool.capacity.kv_cache_bytes),
                numbers.gib(pool.capacity.usable_bytes),
                numbers.gib(pool.capacity.total_bytes),
            ]
            for label, pool in rows
        ],
        caption="Sizes are per accelerator, tokens and blocks per engine; context: the longest "
        "prompt and output together.",
    )
    return [chart, table]


def _label(each: NamedResult, pool: str, several: bool) -> str:
    if not several:
        return pool
    return f"{each.name} · {pool}" if len(each.result.pools) > 1 else each.name


def _left(capacity: Capacity) -> int:
    held: int = sum(getattr(capacity, name) for _, _, name in PARTS)
    return max(0, capacity.total_bytes - held)


def _in_gib(size_bytes: float) -> float:
    return round(size_bytes / numbers.GIB, 3)
