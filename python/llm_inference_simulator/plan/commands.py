"""The ``vllm serve`` command lines that start a candidate."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from llm_inference_simulator.catalog import list_models, load_xpu
from llm_inference_simulator.config import EngineConfig, SimulatorConfig
from llm_inference_simulator.plan.candidates import Candidate, Layout
from llm_inference_simulator.plan.request import NODE_SIZE

FIRST_PORT = 8000
FIRST_SIDE_PORT = 5600
"""Of NIXL's handshake, one an engine on a node."""

FLAGS = {
    "dtype": "--dtype",
    "quantization": "--quantization",
    "kv_cache_dtype": "--kv-cache-dtype",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "max_model_len": "--max-model-len",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "block_size": "--block-size",
    "num_gpu_blocks_override": "--num-gpu-blocks-override",
    "long_prefill_token_threshold": "--long-prefill-token-threshold",
    "scheduling_policy": "--scheduling-policy",
    "generation_config": "--generation-config",
}
SWITCHES = {
    "enable_prefix_caching": "--enable-prefix-caching",
    "enable_chunked_prefill": "--enable-chunked-prefill",
    "async_scheduling": "--async-scheduling",
    "enable_expert_parallel": "--enable-expert-parallel",
}
ALWAYS = ("max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization")
"""Said even where they are our defaults: vLLM's own depend on the accelerator and the version."""

KV_CONNECTOR = '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'


def serve_commands(candidate: Candidate, config: SimulatorConfig) -> list[str]:
    """One command an engine, filling nodes of eight accelerators in order.

    A comment names the node where there are several, and what stands in front of the engines.
    """
    lines = [f"# {candidate.count_words} {candidate.family.xpu}; {_front(candidate, config)}"]
    node = used = place = 0
    several = candidate.n_xpus > NODE_SIZE
    for layout, engine in _engines(candidate, config):
        if used + layout.xpus > NODE_SIZE:
            node, used, place = node + 1, 0, 0
        if several and used == 0:
            lines.append(f"# node {node}")
        devices = ",".join(str(used + index) for index in range(layout.xpus))
        lines.append(_command(candidate, config, layout, engine, devices=devices, place=place))
        used += layout.xpus
        place += 1
    return lines


def _engines(
    candidate: Candidate, config: SimulatorConfig
) -> Iterator[tuple[Layout, EngineConfig]]:
    for (layout, count), pool in zip(candidate.pools, config.cluster.named_pools, strict=True):
        for _ in range(count):
            yield layout, config.engine_of(pool)


def _front(candidate: Candidate, config: SimulatorConfig) -> str:
    if candidate.family.mode == "disaggregated":
        return (
            "in front of them a proxy that sends a request to a prefill engine and then to a "
            f"decode engine ({config.cluster.router})"
        )
    if candidate.n_xpus == candidate.family.layouts[0].xpus:
        return "one engine needs no router"
    return f"in front of them a router ({config.cluster.router})"


def _command(
    candidate: Candidate,
    config: SimulatorConfig,
    layout: Layout,
    engine: EngineConfig,
    *,
    devices: str,
    place: int,
) -> str:
    xpu = load_xpu(candidate.family.xpu)
    variable = "HIP_VISIBLE_DEVICES" if xpu.vendor.casefold() == "amd" else "CUDA_VISIBLE_DEVICES"
    words = [f"{variable}={devices}"]
    if layout.role != "aggregated":
        words.append(f"VLLM_NIXL_SIDE_CHANNEL_PORT={FIRST_SIDE_PORT + place}")
    words += ["vllm", "serve", shlex.quote(huggingface_name(config.model))]
    for flag, size in (
        ("--tensor-parallel-size", layout.tensor_parallel_size),
        ("--pipeline-parallel-size", layout.pipeline_parallel_size),
    ):
        if size > 1:
            words += [flag, str(size)]
    words += _settings(engine)
    if layout.role != "aggregated":
        words += ["--kv-transfer-config", shlex.quote(KV_CONNECTOR)]
    return " ".join([*words, "--port", str(FIRST_PORT + place)])


def _settings(engine: EngineConfig) -> list[str]:
    """Flags of settings that are not vLLM's defaults."""
    defaults = EngineConfig()
    words: list[str] = []
    for field, flag in FLAGS.items():
        value: Any = getattr(engine, field)
        if value is not None and (field in ALWAYS or value != getattr(defaults, field)):
            words += [flag, str(value)]
    for field, flag in SWITCHES.items():
        value = getattr(engine, field)
        if value != getattr(defaults, field):
            words.append(flag if value else flag.replace("--", "--no-", 1))
    return words


def huggingface_name(model: str) -> str:
    """What ``vllm serve`` calls a model: its Hugging Face id, or the path as it is."""
    for entry in list_models():
        if model.casefold() in {name.casefold() for name in entry.names}:
            return entry.huggingface
    return model
