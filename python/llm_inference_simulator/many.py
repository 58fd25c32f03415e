"""Run many simulations on all cores, sharing what they have in common."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.results import SimulationResult
from llm_inference_simulator.shared_inputs import SharedInputs
from llm_inference_simulator.simulation import simulate

if TYPE_CHECKING:
    from llm_inference_simulator._core import Progress
    from llm_inference_simulator.config import SimulatorConfig
    from llm_inference_simulator.workload import Workload

AHEAD = 4
"""Configurations handed to each thread beyond the one that it runs: enough to keep it busy."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What became of one configuration: a result or the error that refused it."""

    index: int
    """Its place among the configurations."""
    config: SimulatorConfig
    result: T | None = None
    error: Exception | None = None

    def unwrap(self) -> T:
        """The result; raises the error where there is none."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result


class ManyInterrupted(KeyboardInterrupt):
    """Ctrl-C in :func:`simulate_many`; ``outcomes`` holds what had finished, by input order."""

    def __init__(self, outcomes: Sequence[Outcome[Any]], configurations: int) -> None:
        super().__init__(f"interrupted after {len(outcomes)} of {configurations} configurations")
        self.outcomes = tuple(outcomes)


class _StoppedError(Exception):
    """Ends a simulation of a worker between two slices."""


@overload
def simulate_many(
    configs: Iterable[SimulatorConfig],
    *,
    workload: Workload | None = ...,
    jobs: int | None = ...,
    keep: None = ...,
    progress: bool | Callable[[int, int], None] = ...,
    on_finished: Callable[[Outcome[SimulationResult]], None] | None = ...,
    inputs: SharedInputs | None = ...,
) -> list[Outcome[SimulationResult]]: ...


@overload
def simulate_many(
    configs: Iterable[SimulatorConfig],
    *,
    workload: Workload | None = ...,
    jobs: int | None = ...,
    keep: Callable[[SimulationResult], T],
    progress: bool | Callable[[int, int], None] = ...,
    on_finished: Callable[[Outcome[T]], None] | None = ...,
    inputs: SharedInputs | None = ...,
) -> list[Outcome[T]]: ...


def simulate_many(
    configs: Iterable[SimulatorConfig],
    *,
    workload: Workload | None = None,
    jobs: int | None = None,
    keep: Callable[[SimulationResult], Any] | None = None,
    progress: bool | Callable[[int, int], None] = False,
    on_finished: Callable[[Outcome[Any]], None] | None = None,
    inputs: SharedInputs | None = None,
) -> list[Outcome[Any]]:
    """Simulate every configuration and return the outcomes in the order of ``configs``.

    ``jobs`` threads (None: as many as there are cores) run the core with the interpreter lock
    released. ``workload`` replaces the one that each configuration describes; without it,
    configurations with equal ``workload`` and ``seed`` get the same requests, drawn once. Results
    are those of :func:`simulate`, whatever ``jobs`` is.

    A result of 2,000 requests holds about a third of a megabyte: ``keep`` says what to keep of each
    instead (``SimulationResult.summary``, say). ``progress=True`` shows a bar with the time left on
    a terminal; a callable gets (finished, all). ``on_finished`` gets each outcome as it comes, in
    the calling thread. ``inputs`` carries what is shared over to a later call.

    What goes wrong with a configuration is its outcome's ``error``. Raises :class:`ConfigError` for
    ``jobs`` below 1 and :class:`ManyInterrupted` on Ctrl-C.
    """
    listed = list(configs)
    workers = min(check_jobs(jobs), max(1, len(listed)))
    shared = inputs or SharedInputs()
    stop = threading.Event()

    def between_slices(_: Progress) -> None:
        if stop.is_set():
            raise _StoppedError

    def run(index: int) -> Outcome[Any]:
        config = listed[index]
        try:
            # One thread each: the configurations are what runs in parallel.
            result = simulate(
                config, workload=workload, progress=between_slices, inputs=shared, threads=1
            )
            return Outcome(index, config, result if keep is None else keep(result))
        except Exception as error:  # one configuration must not end the others
            return Outcome(index, config, error=error)

    outcomes: dict[int, Outcome[Any]] = {}
    with _reporter(progress, len(listed)) as report:
        try:
            for outcome in _completed(run, len(listed), workers, stop):
                outcomes[outcome.index] = outcome
                if on_finished is not None:
                    on_finished(outcome)
                report(len(outcomes), len(listed))
        except KeyboardInterrupt:
            finished = [outcomes[index] for index in sorted(outcomes)]
            raise ManyInterrupted(finished, len(listed)) from None
    return [outcomes[index] for index in range(len(listed))]


def _completed(
    run: Callable[[int], Outcome[Any]], count: int, workers: int, stop: threading.Event
) -> Iterator[Outcome[Any]]:
    """Outcomes as they come; a few more than there are threads are under way."""
    todo = iter(range(count))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="simulate")
    try:
        running: set[Future[Outcome[Any]]] = {
            pool.submit(run, index) for index in itertools.islice(todo, workers * (1 + AHEAD))
        }
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                running |= {pool.submit(run, index) for index in itertools.islice(todo, 1)}
                yield future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def check_jobs(jobs: int | None) -> int:
    """Threads or processes to use: ``jobs``, or the cores that this process may run on."""
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    if jobs < 1:
        raise ConfigError(f"jobs={jobs}: give at least 1")
    return jobs


@contextlib.contextmanager
def _reporter(
    progress: bool | Callable[[int, int], None], count: int
) -> Iterator[Callable[[int, int], None]]:
    if progress is not True:
        yield progress or (lambda _done, _all: None)
        return
    from llm_inference_simulator.progress_bar import configurations_bar

    with configurations_bar(count) as show:
        yield show or (lambda _done, _all: None)
