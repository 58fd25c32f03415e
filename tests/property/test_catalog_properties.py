"""Properties of the memory plan and of the configuration reader."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_inference_simulator.capacity import MemoryPlan, plan_memory, valid_tensor_parallel_sizes
from llm_inference_simulator.catalog.model_config import parse_model_config
from llm_inference_simulator.catalog.models import list_models, load_model
from llm_inference_simulator.catalog.xpus import list_xpus
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CapacityError, ConfigError

MODELS = st.sampled_from([entry.name for entry in list_models()])
XPUS = st.sampled_from(list_xpus())
ENGINES = st.builds(
    EngineConfig,
    max_num_seqs=st.integers(1, 1024),
    max_num_batched_tokens=st.integers(1, 32_768),
    gpu_memory_utilization=st.floats(0.1, 1.0),
    block_size=st.sampled_from([1, 8, 16, 32, 128]),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]),
)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 10), st.floats(), st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=3), st.dictionaries(st.text(max_size=3), st.none()),
)  # fmt: skip


def blocks(name: str, xpu: Any, engine: EngineConfig, size: int) -> MemoryPlan | None:
    try:
        return plan_memory(load_model(name), xpu, engine, size)
    except CapacityError:
        return None


@settings(deadline=None)  # big models have thousands of weights to add up
@given(MODELS, XPUS, ENGINES, st.integers(0, 2**38), st.data())
def test_more_memory_never_gives_fewer_blocks(
    name: str, xpu: Any, engine: EngineConfig, more: int, data: st.DataObject
) -> None:
    size = data.draw(st.sampled_from(valid_tensor_parallel_sizes(load_model(name))))
    larger = replace(xpu, usable_memory_bytes=xpu.usable_memory_bytes + more)
    before, after = (blocks(name, each, engine, size) for each in (xpu, larger))
    if before is not None:
        assert after is not None
        assert after.num_gpu_blocks >= before.num_gpu_blocks
        assert after.max_model_len >= before.max_model_len


@settings(deadline=None)  # big models have thousands of weights to add up
@given(MODELS, XPUS, ENGINES)
def test_a_plan_stays_within_the_memory(name: str, xpu: Any, engine: EngineConfig) -> None:
    result = blocks(name, xpu, engine, 1)
    if result is not None:
        used = result.weight_bytes_per_rank + result.activation_bytes + result.runtime_bytes
        used += result.pool_blocks * result.block_bytes
        assert used <= result.usable_bytes <= result.total_bytes
        assert 1 <= result.max_model_len <= result.cache_tokens


@settings(deadline=None)
@given(MODELS, st.data())
def test_a_damaged_configuration_is_read_or_refused_but_never_breaks(
    name: str, data: st.DataObject
) -> None:
    entry = next(entry for entry in list_models() if entry.name == name)
    config: dict[str, Any] = json.loads(entry.config_file.read_text())
    inner = config.get("text_config", config)
    key = data.draw(st.sampled_from(sorted({*config, *inner})))
    target = config if key in config and data.draw(st.booleans()) else inner
    target[key] = data.draw(JUNK)
    try:
        spec = parse_model_config(config, name=name, source=name)
    except ConfigError:
        return
    assert spec.parameter_count > 0
    assert spec.kv_bytes_per_token() > 0
