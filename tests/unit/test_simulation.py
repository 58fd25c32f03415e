"""The sliced loop: it ends, it adapts, it can be interrupted, it says what is not used."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from llm_inference_simulator.aggregated_cluster import engine_settings
from llm_inference_simulator.config import EngineConfig, SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.simulation import (
    FIRST_SLICE_EVENTS,
    MOST_SLICE_EVENTS,
    SLICE_SECONDS,
    next_slice,
    run_to_end,
    unused_xpus_warning,
)


class Countdown:
    """A simulation of ``events`` events that each take ``event_seconds``."""

    def __init__(self, events: int, event_seconds: float = 0.0) -> None:
        self.left = events
        self.event_seconds = event_seconds
        self.slices: list[int] = []
        self.longest_seconds = 0.0

    def run_slice(self, max_events: int) -> Any:
        events = min(max_events, self.left)
        seconds = events * self.event_seconds
        time.sleep(seconds)
        self.left -= events
        self.slices.append(events)
        self.longest_seconds = max(self.longest_seconds, seconds)
        return SimpleNamespace(done=self.left == 0, answered=self.left)


def test_every_event_is_processed_and_reported_once() -> None:
    simulation = Countdown(1_000_000)
    reports: list[Any] = []
    run_to_end(simulation, reports.append)
    assert sum(simulation.slices) == 1_000_000
    assert len(reports) == len(simulation.slices)
    assert [report.done for report in reports] == [False] * (len(reports) - 1) + [True]


def test_slices_stay_short_with_a_slow_cost_model() -> None:
    simulation = Countdown(400, event_seconds=0.001)
    run_to_end(simulation)
    assert simulation.slices[0] == FIRST_SLICE_EVENTS
    assert simulation.longest_seconds < 0.2


@pytest.mark.parametrize(
    ("events", "elapsed_s", "expected"),
    [
        (1000, SLICE_SECONDS, 1000),
        (1000, 10 * SLICE_SECONDS, 100),  # shrinks at once
        (1000, SLICE_SECONDS / 100, 8000),  # grows eightfold at most
        (1000, 0.0, 8000),  # a clock too coarse to see it
        (1, 5.0, 1),  # never nothing
        (MOST_SLICE_EVENTS, 0.0, MOST_SLICE_EVENTS),
    ],
)
def test_next_slice_follows_the_measured_speed(
    events: int, elapsed_s: float, expected: int
) -> None:
    assert next_slice(events, elapsed_s) == expected


def test_settings_take_the_smaller_bound_on_running_requests() -> None:
    engine = EngineConfig(max_num_seqs=256, max_batch_size=8, batch_window_ms=1.5)
    settings = engine_settings(engine, max_model_len=100, num_gpu_blocks=50)
    assert settings.max_num_seqs == 8
    assert settings.batch_window_ns == 1_500_000
    assert (settings.max_model_len, settings.num_gpu_blocks) == (100, 50)


def test_whole_prompts_must_fit_a_step_of_the_resolved_context() -> None:
    engine = EngineConfig(enable_chunked_prefill=False, max_num_batched_tokens=2048)
    with pytest.raises(
        ConfigError, match="max_num_batched_tokens=2048 is below max_model_len=4096"
    ):
        engine_settings(engine, max_model_len=4096, num_gpu_blocks=50)


def test_unused_accelerators_are_named() -> None:
    def layout(**cluster: int) -> tuple[str, ...]:
        data = {"model": "llama-7b", "xpu": "gb10", "cluster": cluster}
        return unused_xpus_warning(SimulatorConfig.from_dict(data))

    assert layout() == ()
    assert layout(n_xpus_per_node=8, tensor_parallel_size=4) == ()
    (warning,) = layout(n_xpus_per_node=8, tensor_parallel_size=3)
    assert warning.startswith("2 of 8 accelerators are not used")
