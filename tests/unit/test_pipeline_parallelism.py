"""Pipelines: closed forms of their time, how layers and memory are divided, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import llm_inference_simulator._core as core
from llm_inference_simulator import SimulatorConfig, simulate
from llm_inference_simulator.capacity import plan_memory
from llm_inference_simulator.catalog import load_model, load_xpu
from llm_inference_simulator.catalog.pipeline import pipeline_stages
from llm_inference_simulator.cluster import EngineSettings
from llm_inference_simulator.config import EngineConfig, PoolConfig
from llm_inference_simulator.errors import CapacityError, ConfigError
from llm_inference_simulator.performance_models import RooflinePerformanceModel
from llm_inference_simulator.performance_models.base import decode_step, prefill_step

STAGE_NS = 1000
NO_LINK = (0, 0, 1)
BUDGET = 64


def run(prompts: list[int], outputs: list[int], stages: int, **settings: Any) -> core.Simulation:
    """Every stage of every step takes ``STAGE_NS``."""
    links = settings.pop("stage_links", (NO_LINK,) * (stages - 1))
    engine = EngineSettings(
        max_num_seqs=64,
        max_num_batched_tokens=BUDGET,
        max_model_len=4096,
        block_size=16,
        num_gpu_blocks=4096,
        pipeline_parallel_size=stages,
        stage_links=links,
        **settings,
    )
    simulation = core.Simulation(
        pools=[(engine, [core.CostModel.fixed(STAGE_NS, 0, 0, 0)] * stages, 1)],
        router="round_robin",
        arrival_ns=np.zeros(len(prompts), dtype=np.int64),
        prompt_tokens=np.array(prompts, dtype=np.int64),
        output_tokens=np.array(outputs, dtype=np.int64),
        record_steps=True,
    )
    assert simulation.run_slice(10**7).done
    return simulation


@pytest.mark.parametrize("stages", [2, 3, 4, 8])
@pytest.mark.parametrize("batches", [1, 2, 5, 16])
@pytest.mark.parametrize("one_prompt", [True, False])
def test_bubbles_of_one_prefill_wave(stages: int, batches: int, one_prompt: bool) -> None:
    """m equal micro-batches leave (p - 1) / (m + p - 1) of the stages' time unused.

    They may be the chunks of one prompt, or a prompt each.
    """
    prompts = [BUDGET * batches] if one_prompt else [BUDGET] * batches
    simulation = run(prompts, [1] * len(prompts), stages)
    end = int(simulation.step_columns()["end_ns"].max())
    (engine,) = simulation.engine_stats()
    bubbles = 1 - Fraction(engine.busy_ns, end)
    assert bubbles == Fraction(stages - 1, batches + stages - 1)


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("async_scheduling", [True, False])
def test_a_lone_request_gets_a_token_every_pass(stages: int, async_scheduling: bool) -> None:
    simulation = run([10], [5], stages, async_scheduling=async_scheduling)
    times, _ = simulation.token_times(np.array([0]))
    assert times.tolist() == [stages * STAGE_NS * (token + 1) for token in range(5)]
    (engine,) = simulation.engine_stats()
    assert engine.busy_ns == 5 * STAGE_NS


@pytest.mark.parametrize("stages", [2, 4])
def test_as_many_batches_as_stages_leave_no_bubbles(stages: int) -> None:
    """Prompts of a whole budget make one batch each; then every stage always works."""
    outputs = 50
    simulation = run([BUDGET] * stages, [outputs] * stages, stages)
    end = int(simulation.step_columns()["end_ns"].max())
    (engine,) = simulation.engine_stats()
    assert engine.steps == stages * outputs
    assert end == (engine.steps + stages - 1) * STAGE_NS


def test_links_delay_and_the_slowest_place_sets_the_pace() -> None:
    link = (50, 1, 10**9)  # 50 ns and 1 ns a token
    lone = run([10], [1], 3, stage_links=(link, link))
    assert lone.step_columns()["end_ns"].tolist() == [3 * STAGE_NS + 2 * (50 + 10)]
    slow = (50, 100, 10**9)
    wave = run([BUDGET] * 4, [1] * 4, 2, stage_links=(slow,))
    pace = 50 + 100 * BUDGET
    expected = [2 * STAGE_NS + pace * (batch + 1) for batch in range(2)]
    # The third and the fourth batch are decided when the first and the second have ended.
    assert wave.step_columns()["end_ns"].tolist()[:2] == expected


def test_layers_are_divided_as_vllm_does() -> None:
    model = load_model("llama-3.1-8b")
    assert model.num_layers == 32

    def counts(size: int) -> list[int]:
        stages = pipeline_stages(model, size)
        assert [layer for stage in stages for layer in stage.layers] == list(range(32))
        return [len(stage.layers) for stage in stages]

    # Figures of vLLM's get_pp_indices.
    assert counts(4) == [8, 8, 8, 8]
    assert counts(3) == [11, 11, 10]
    assert counts(5) == [6, 6, 7, 7, 6]
    with pytest.raises(ConfigError, match=r"pipeline_parallel_size=33 exceeds the 32 layers"):
        pipeline_stages(model, 33)


MODELS = ["llama-3.1-8b", "gpt-oss-20b", "gemma-2-9b", "deepseek-v3", "qwen3-30b-a3b"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [2, 3, 4])
def test_stages_hold_the_whole_model(name: str, size: int) -> None:
    model = load_model(name)
    parts = [stage.part_of(model) for stage in pipeline_stages(model, size)]
    shared = model.vocab_size * model.hidden_size if model.tie_word_embeddings else 0
    assert sum(part.parameter_count for part in parts) == model.parameter_count + shared
    assert sum(part.kv_bytes_per_token() for part in parts) == model.kv_bytes_per_token()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("step", [decode_step(16, 900), prefill_step(3, 700)])
def test_stages_do_the_work_of_the_whole_model(name: str, step: core.StepShape) -> None:
    """Operations and bytes add up to the engine's; so do the kernels' latencies."""
    model, xpu, tp = load_model(name), load_xpu("h100-sxm"), 2

    def work(stage: Any) -> tuple[float, float]:
        priced = RooflinePerformanceModel(model, xpu, tp, max_model_len=1024, stage=stage)
        parts = priced.breakdown_step(step)
        kernels = [part for part in parts.values() if "hidden_states" not in part.name]
        return sum(part.operations for part in kernels), sum(part.bytes for part in kernels)

    stages = [work(stage) for stage in pipeline_stages(model, 3)]
    for ours, whole in zip(map(sum, zip(*stages, strict=True)), work(None), strict=True):
        assert math.isclose(ours, whole, rel_tol=1e-9)


def test_the_scarcest_stage_counts() -> None:
    model, xpu, engine = load_model("llama-3.1-8b"), load_xpu("h100-sxm"), EngineConfig()
    whole, halves = (
        plan_memory(model, xpu, engine, 1, pipeline_parallel_size=stages) for stages in (1, 2)
    )
    # Half the layers: a block takes half the bytes, and more memory is left for blocks.
    assert halves.block_bytes == whole.block_bytes // 2
    assert 2 * whole.num_gpu_blocks < halves.num_gpu_blocks < 3 * whole.num_gpu_blocks
    assert halves.kv_bytes_per_token == whole.kv_bytes_per_token
    parts = [stage.part_of(model) for stage in pipeline_stages(model, 2)]
    blocks = [plan_memory(part, xpu, engine, 1).num_gpu_blocks for part in parts]
    assert abs(halves.num_gpu_blocks - min(blocks)) < 0.01 * min(blocks)
    with pytest.raises(CapacityError, match=r"stage 1 of pipeline_parallel_size=2 \(layers 0 to"):
        plan_memory(load_model("llama-3.1-405b"), xpu, engine, 1, pipeline_parallel_size=2)


BASE: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "xpu": "a100-80-sxm",
    "performance": {"performance_model": "roofline"},
    "workload": {"num_prompts": 40, "random_input_len": 400, "random_output_len": 20},
}


def configured(**cluster: Any) -> SimulatorConfig:
    return SimulatorConfig.from_dict({**BASE, "cluster": cluster})


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (
            {"n_xpus_per_node": 8, "tensor_parallel_size": 4, "pipeline_parallel_size": 4},
            "tensor_parallel_size=4 and pipeline_parallel_size=4 needs 16 accelerators",
        ),
        (
            {
                "n_nodes": 2,
                "n_xpus_per_node": 8,
                "tensor_parallel_size": 4,
                "pipeline_parallel_size": 4,
            },
            "give --inter-node-bandwidth",
        ),
        (
            {"pools": [{"n_xpus": 6, "tensor_parallel_size": 2, "pipeline_parallel_size": 4}]},
            "n_xpus=6 do not hold an engine of tensor_parallel_size=2 and pipeline_parallel_size=4",
        ),
        ({"pipeline_parallel_size": 0}, "pipeline_parallel_size=0"),
    ],
)
def test_layouts_that_do_not_fit(cluster: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(**cluster)


def test_stages_fill_nodes_in_order() -> None:
    cluster = configured(
        n_nodes=5,
        n_xpus_per_node=8,
        tensor_parallel_size=4,
        pipeline_parallel_size=4,
        inter_node_bandwidth_gb_s=50,
    ).cluster
    assert cluster.n_engines == 2
    assert cluster.named_pools[0].crosses_nodes == (False, True, False)
    in_one = PoolConfig(tensor_parallel_size=2, pipeline_parallel_size=4)
    assert in_one.crosses_nodes == (False, False, False)


def test_a_pipelined_run_from_a_configuration() -> None:
    def latencies(**cluster: Any) -> tuple[float, float]:
        summary = simulate(configured(**cluster)).summary()
        (pool,) = summary["pools"]
        assert summary["completed"] == 40
        return summary["mean_ttft_ms"], pool["n_xpus"]

    one, one_xpus = latencies()
    four, four_xpus = latencies(pipeline_parallel_size=4)
    assert (one_xpus, four_xpus) == (1, 4)
    # A wave of prompts is prefilled by four stages: faster than one, slower than a quarter.
    assert one / 4 < four < one
    near = latencies(pipeline_parallel_size=4, n_xpus_per_node=4)[0]
    spread = {"pipeline_parallel_size": 4, "n_xpus_per_node": 2, "n_nodes": 2}
    far = latencies(**spread, inter_node_bandwidth_gb_s=0.1)[0]
    assert near == four < far


def test_what_does_not_go_with_stages() -> None:
    config = configured(pipeline_parallel_size=2)
    with pytest.raises(ConfigError, match="recorded decisions know no stages"):
        simulate(config, record_decisions=True)
    model = RooflinePerformanceModel("llama-3.1-8b", "a100-80-sxm")
    with pytest.raises(ConfigError, match="performance_model= prices whole steps"):
        simulate(config, performance_model=model)
    engine = EngineSettings(
        max_num_seqs=1,
        max_num_batched_tokens=8,
        max_model_len=8,
        block_size=1,
        num_gpu_blocks=9,
        pipeline_parallel_size=2,
        stage_links=(NO_LINK,),
    )
    for settings, models in ((engine, 1), (replace(engine, stage_links=()), 2)):
        with pytest.raises(ConfigError, match="a cost model for each stage"):
            core.Simulation(
                pools=[(settings, [core.CostModel.fixed(1, 0, 0, 0)] * models, 1)],
                router="round_robin",
                arrival_ns=np.zeros(1, dtype=np.int64),
                prompt_tokens=np.ones(1, dtype=np.int64),
                output_tokens=np.ones(1, dtype=np.int64),
            )
