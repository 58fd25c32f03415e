"""Runs the configurations of a sweep on a Ray cluster: one of this machine, or one by address."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from llm_inference_simulator.errors import ConfigError, SimulationError
from llm_inference_simulator.many import check_jobs
from llm_inference_simulator.shared_inputs import SharedInputs
from llm_inference_simulator.sweep.executors import Executor, OnRow, run_points
from llm_inference_simulator.sweep.rows import Row
from llm_inference_simulator.sweep.spec import SweepSpec
from llm_inference_simulator.tables import require

MOST_IN_A_TASK = 50
"""Configurations of a task: about a second of work, which a lost worker loses at most."""
TASKS_A_CPU = 4
"""Of a small sweep, so that no CPU waits long for the last one."""


def ray_executor(address: str | None = None, jobs: int | None = None) -> Executor:
    """Tasks on a Ray cluster, each of which runs a few configurations on one CPU.

    ``address`` as Ray takes it (None: a cluster of ``jobs`` CPUs on this machine, for as long as
    the sweep runs). Its workers need this version of the simulator, and the files that
    configurations name under the same paths. Raises :class:`ConfigError` where Ray is missing or
    the address does not answer.
    """
    ray = require("ray", "sweeps on a cluster")

    def run(spec: SweepSpec, indices: Sequence[int], on_row: OnRow) -> None:
        if not indices:
            return
        with _cluster(ray, address, jobs) as cpus:
            _run_tasks(ray, spec, indices, on_row, cpus=cpus)

    return run


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None, jobs: int | None) -> Iterator[int]:
    """Connect, and yield how many CPUs there are."""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        options |= {"num_cpus": check_jobs(jobs), "include_dashboard": False}
    try:
        # "local": a new cluster even where one runs on this machine.
        ray.init(address=address or "local", **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--ray-address {address}: no Ray cluster answers: {error}") from None
    try:
        yield max(1, int(ray.cluster_resources().get("CPU", 1)))
    finally:
        ray.shutdown()


def _run_tasks(
    ray: Any, spec: SweepSpec, indices: Sequence[int], on_row: OnRow, *, cpus: int
) -> None:
    """Keep every CPU busy and take rows as tasks end."""
    from llm_inference_simulator._core import __version__

    size = min(MOST_IN_A_TASK, max(1, len(indices) // (TASKS_A_CPU * cpus)))
    todo = (indices[start : start + size] for start in range(0, len(indices), size))
    task = ray.remote(num_cpus=1)(_rows_of)
    running: list[Any] = []
    try:
        while True:
            while len(running) < 2 * cpus and (part := next(todo, None)) is not None:
                running.append(task.remote(_part(spec, part), list(part), __version__))
            if not running:
                return
            done, running = ray.wait(running, num_returns=1)
            for row in ray.get(done[0]):
                on_row(row)
    except ray.exceptions.RayError as error:
        # The text of a task's own error is a traceback of the worker.
        cause = getattr(error, "cause", None) or error
        raise SimulationError(f"a task on the Ray cluster failed: {cause}") from None
    finally:
        for left in running:
            ray.cancel(left, force=True)


def _part(spec: SweepSpec, indices: Sequence[int]) -> SweepSpec:
    """Some points of a sweep: a worker need not unpack a million for each task."""
    return replace(spec, points=tuple(spec.points[index] for index in indices))


def _rows_of(part: SweepSpec, indices: Sequence[int], version: str) -> list[Row]:
    """Run a part of a sweep in a worker; ``indices`` are the places of its points in the whole."""
    from llm_inference_simulator._core import __version__

    if __version__ != version:
        raise SimulationError(
            f"the worker has version {__version__} of the simulator, the sweep {version}: install "
            "the same on all machines"
        )
    rows: list[Row] = []
    run_points(part, range(len(part)), rows.append, jobs=1, inputs=_inputs())
    return [replace(row, index=indices[row.index]) for row in rows]


@functools.cache
def _inputs() -> SharedInputs:
    """What the tasks of a worker have in common."""
    return SharedInputs()
