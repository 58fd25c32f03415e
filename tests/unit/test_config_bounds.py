"""Every count and time has an upper bound that the core can hold."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from llm_inference_simulator import simulate
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError, SimulatorError
from llm_inference_simulator.sections import (
    LARGEST_COUNT,
    LONGEST_MS,
    LONGEST_S,
    MOST_ENGINES,
    MOST_STAGES,
    Section,
)

BASE = {"model": "llama-3.1-8b", "xpu": "h100"}
SECTIONS = {
    name: field.annotation
    for name, field in SimulatorConfig.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def holds(annotation: Any, kind: type) -> bool:
    return annotation is kind or any(holds(part, kind) for part in get_args(annotation))


FIELDS = [
    (section, name, field.annotation)
    for section, annotation in SECTIONS.items()
    for name, field in annotation.model_fields.items()
]
COUNTS = [(section, name) for section, name, kind in FIELDS if holds(kind, int)]
TIMES = [
    (section, name)
    for section, name, kind in FIELDS
    if holds(kind, float) and (name.endswith("_ms") or name in ("duration", "warm_up"))
]


def test_the_fields_are_found() -> None:
    assert len(COUNTS) >= 20
    assert ("engine", "num_gpu_blocks_override") in COUNTS
    assert ("front_end", "response_latency_ms") in TIMES
    assert ("workload", "duration") in TIMES


@pytest.mark.parametrize(("section", "name"), COUNTS)
def test_counts_are_bounded(section: str, name: str) -> None:
    own = {"data_parallel_size": MOST_ENGINES, "pipeline_parallel_size": MOST_STAGES}
    largest = own.get(name, LARGEST_COUNT)
    with pytest.raises(ConfigError, match=f"{section}.{name}={largest + 1}: .*{largest}"):
        SimulatorConfig.from_dict({**BASE, section: {name: largest + 1}})


@pytest.mark.parametrize(("section", "name"), TIMES)
def test_times_are_bounded(section: str, name: str) -> None:
    longest = LONGEST_MS if name.endswith("_ms") else LONGEST_S
    with pytest.raises(ConfigError, match=f"{section}.{name}=.*less than or equal to"):
        SimulatorConfig.from_dict({**BASE, section: {name: 1.001 * longest}})


@pytest.mark.parametrize("name", ["avg_input_length", "avg_output_length"])
def test_mean_lengths_are_bounded(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        SimulatorConfig.from_dict({**BASE, "workload": {name: 1e300}})


def test_engines_that_follow_from_the_nodes_are_bounded() -> None:
    with pytest.raises(ConfigError, match="200000 engines of tensor_parallel_size=1"):
        SimulatorConfig.from_dict({**BASE, "cluster": {"n_nodes": 25_000, "n_xpus_per_node": 8}})


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("engine", {"max_num_seqs": LARGEST_COUNT, "long_prefill_token_threshold": LARGEST_COUNT}),
        ("engine", {"num_gpu_blocks_override": LARGEST_COUNT, "max_batch_size": LARGEST_COUNT}),
        ("engine", {"batch_window_ms": LONGEST_MS, "batching_strategy": "windowed"}),
        ("engine", {"scheduling_overhead_ms": LONGEST_MS, "async_scheduling": False}),
        ("front_end", {"request_latency_ms": LONGEST_MS, "response_latency_ms": LONGEST_MS}),
    ],
)
def test_the_core_takes_the_largest_values(section: str, values: dict[str, Any]) -> None:
    workload = {"num_prompts": 3, "random_output_len": 10, "random_input_len": 20}
    run = SimulatorConfig.from_dict({**BASE, "workload": workload, section: values})
    assert simulate(run).summary()["completed"] == 3


def test_sums_beyond_the_core_are_named() -> None:
    workload = {"num_prompts": 1, "random_prefix_len": LARGEST_COUNT}
    with pytest.raises(SimulatorError, match="prompt_tokens=1073742848"):
        simulate(SimulatorConfig.from_dict({**BASE, "workload": workload}))


@pytest.mark.parametrize("data", [[1], "text", None])
def test_a_configuration_is_a_mapping(data: Any) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        SimulatorConfig.from_dict(data)
    with pytest.raises(ConfigError, match=r"engine=\[1\]: must be a mapping"):
        SimulatorConfig.from_dict({**BASE, "engine": [1]})
