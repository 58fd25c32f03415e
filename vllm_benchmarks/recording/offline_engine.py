"""A whole vLLM engine that runs a model: what ``--engine offline`` records."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from llm_inference_simulator.errors import ConfigError
from vllm_benchmarks.recording.decision_log import DecisionLog
from vllm_benchmarks.recording.prompts import Prompts
from vllm_benchmarks.recording.recording_scheduler import engine_arguments, scheduler_class
from vllm_benchmarks.recording.workload import Row

LARGEST_VOCABULARY = 2**20


class OfflineEngine:
    """A real engine in this process that runs a model of random weights."""

    def __init__(
        self, model: Path, settings: dict[str, Any], prompts: Prompts, log: DecisionLog
    ) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = engine_arguments(model, settings, scheduler_class(settings, log))
        self._prompts = prompts
        self._engine = LLMEngine.from_engine_args(arguments)
        vocabulary = self._engine.model_config.get_vocab_size()
        if vocabulary < prompts.vocabulary:
            raise ConfigError(
                f"--model {model}: the workload needs {prompts.vocabulary} different tokens, the "
                f"model's vocab_size is {vocabulary}: leave out --model or shorten the workload"
            )

    @property
    def busy(self) -> bool:
        """Whether requests are unfinished."""
        return bool(self._engine.has_unfinished_requests())

    def add(self, index: int, row: Row) -> None:
        """Let a request join; it can only generate its own token."""
        from vllm.sampling_params import SamplingParams

        sampling = SamplingParams(
            max_tokens=row.output,
            ignore_eos=True,
            detokenize=False,
            allowed_token_ids=[self._prompts.own(index)],
        )
        self._engine.add_request(
            str(index),
            {"prompt_token_ids": self._prompts.tokens(index, row)},
            sampling,
            arrival_time=float(index),
            priority=row.priority,
        )

    def step(self) -> None:
        """One step of the engine."""
        self._engine.step()


def check_offline(arguments: argparse.Namespace, prompts: Prompts) -> None:
    """Refuse what only a whole engine cannot do."""
    if prompts.vocabulary > LARGEST_VOCABULARY:
        raise ConfigError(
            f"workload {arguments.workload} needs {prompts.vocabulary} different tokens, more "
            f"than the {LARGEST_VOCABULARY} of --engine offline: shorten it or take --engine "
            "scheduler"
        )
    cached = (arguments.num_gpu_blocks - 1) * arguments.block_size
    if cached < arguments.max_model_len:
        raise ConfigError(
            f"--max-model-len {arguments.max_model_len} exceeds the {cached} tokens of the cache, "
            "which vLLM's engine refuses: lower it, raise --num-gpu-blocks, or take --engine "
            "scheduler"
        )
