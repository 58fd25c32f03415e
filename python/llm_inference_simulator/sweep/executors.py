"""Who runs the configurations of a sweep: threads of this process, or a Ray cluster."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.many import check_jobs, simulate_many
from llm_inference_simulator.shared_inputs import SharedInputs
from llm_inference_simulator.sweep.rows import Row, metrics_of, refused_row, row_of
from llm_inference_simulator.sweep.spec import SweepSpec

AT_ONCE = 1000
"""Configurations that are built before they run; a million of them would fill the memory."""

OnRow = Callable[[Row], None]


Executor = Callable[[SweepSpec, Sequence[int], OnRow], None]
"""Runs points of a sweep and gives the row of each, as they come, in the calling thread."""


def local_executor(jobs: int | None = None) -> Executor:
    """Threads: most of the time is spent in the core, which needs no interpreter lock.

    They share models, prices and requests, which processes would each make for themselves.
    """
    workers = check_jobs(jobs)
    inputs = SharedInputs()

    def run(spec: SweepSpec, indices: Sequence[int], on_row: OnRow) -> None:
        for chunk in _chunks(indices, AT_ONCE):
            run_points(spec, chunk, on_row, jobs=workers, inputs=inputs)

    return run


def run_points(
    spec: SweepSpec, indices: Sequence[int], on_row: OnRow, *, jobs: int, inputs: SharedInputs
) -> None:
    """Run points on threads of this process."""
    configs, places = [], []
    for index in indices:
        try:
            configs.append(spec.config(index))
            places.append(index)
        except ConfigError as error:
            on_row(refused_row(index, error))
    simulate_many(
        configs,
        jobs=jobs,
        keep=metrics_of,
        inputs=inputs,
        on_finished=lambda outcome: on_row(row_of(outcome, places[outcome.index])),
    )


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield list(itertools.islice(indices, start, start + size))
