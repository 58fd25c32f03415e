"""Measure vLLM in this process: exact times of exact steps, with random weights and prompts."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm_benchmarks.recording.installed_vllm import import_vllm, vllm_errors
from vllm_benchmarks.runners.statistics import load_average, repeated
from vllm_benchmarks.runners.step_log import StepLog, logging_class
from vllm_benchmarks.schema import BenchmarkPoint, PlannedPoint

_FIRST_TOKEN_ID = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineSettings:
    """An engine's settings in vLLM's names; None: vLLM's default."""

    model: str
    """Folder with a config.json, or a Hugging Face id."""
    tensor_parallel_size: int = 1
    dtype: str = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    block_size: int | None = None
    async_scheduling: bool | None = None
    enforce_eager: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    def engine_arguments(self) -> dict[str, Any]:
        """Arguments of vLLM's ``EngineArgs`` that differ from its defaults."""
        named = {
            name: getattr(self, name)
            for name in (
                "model", "tensor_parallel_size", "dtype", "quantization", "kv_cache_dtype",
                "max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size",
                "async_scheduling",
            )
        }  # fmt: skip
        given = {name: value for name, value in named.items() if value is not None}
        return {
            **given,
            # Times do not depend on what the weights are.
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "enable_prefix_caching": False,
            "enforce_eager": self.enforce_eager,
            "disable_log_stats": True,
            **self.extra,
        }


class OfflineRunner:
    """A vLLM engine in this process."""

    def __init__(
        self, settings: OfflineSettings, *, repeats: int, decode_steps: int, seed: int = 0
    ) -> None:
        self.version = import_vllm()
        self._repeats = repeats
        self._decode_steps = decode_steps
        self._seed = seed
        self._log = StepLog()
        self._requests = 0
        with vllm_errors(self.version):
            self._engine = self._start(settings)
            self._vocabulary = int(self._engine.model_config.get_vocab_size())
        self.environment = _environment(self.version, settings.engine_arguments())

    @property
    def settings(self) -> dict[str, Any]:
        """What the engine really runs with, in the keys of step logs."""
        return dict(self._log.settings)

    def _start(self, settings: OfflineSettings) -> Any:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = EngineArgs(**settings.engine_arguments())
        config = arguments.create_engine_config()
        base = AsyncScheduler if config.scheduler_config.async_scheduling else Scheduler
        arguments.scheduler_cls = logging_class(base, self._log)
        return LLMEngine.from_engine_args(arguments)

    def warm_up(self, plan: Sequence[PlannedPoint]) -> None:
        """Nothing at once: each point warms up its own shapes."""

    def measure(self, point: PlannedPoint) -> BenchmarkPoint:
        """Run a point once to warm up, and then as often as wanted."""
        rows: list[dict[str, Any]] = []
        with vllm_errors(self.version):
            self._run(point, -1)
            self._log.drain()
            for repeat in range(self._repeats):
                self._run(point, repeat)
                rows += self._log.drain()
        told = repeated([1e3 * row["exec_s"] for row in rows if _is_of(point, row)])
        return BenchmarkPoint(
            point=point,
            steps=tuple(rows),
            median_ms=told and told.median,
            spread=told and told.spread,
            outliers=told.outliers if told else 0,
            load_average=load_average(),
        )

    def _run(self, point: PlannedPoint, repeat: int) -> None:
        dice = random.Random(f"{self._seed} {point.key} {repeat}")
        tokens = 1 if point.kind == "prefill" else self._decode_steps
        prompt = point.context_tokens + (point.prompt_tokens if point.kind == "prefill" else 0)
        for _ in range(point.batch_size):
            self._add(prompt, tokens, dice)
        if point.kind == "mixed":
            # The prompt joins when the others decode.
            while self._prefilling():
                self._engine.step()
            self._add(point.prompt_tokens, 1, dice)
        while self._engine.has_unfinished_requests():
            self._engine.step()

    def _prefilling(self) -> bool:
        """Whether the last step was not yet a pure decode step."""
        rows = self._log.rows
        return not rows or any(row[3] for row in rows[-1]["reqs"])

    def _add(self, prompt: int, tokens: int, dice: random.Random) -> None:
        from vllm.sampling_params import SamplingParams

        last = max(_FIRST_TOKEN_ID, self._vocabulary - 1)
        ids = [dice.randint(_FIRST_TOKEN_ID, last) for _ in range(prompt)]
        sampling = SamplingParams(
            max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=0, detokenize=False
        )
        self._engine.add_request(str(self._requests), {"prompt_token_ids": ids}, sampling)
        self._requests += 1


def _is_of(point: PlannedPoint, row: dict[str, Any]) -> bool:
    """Whether a step is what the point is about, not its run-up."""
    prefill: int = sum(request[3] for request in row["reqs"])
    if point.kind == "decode":
        return bool(prefill == 0 and len(row["reqs"]) == point.batch_size)
    if point.kind == "mixed":
        return bool(0 < prefill < len(row["reqs"]))
    return bool(prefill > 0)


def _environment(version: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Versions and device, as far as they can be asked without a shell."""
    import torch

    found: dict[str, Any] = {
        "vllm": version,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
        "engine_arguments": {
            name: str(value) for name, value in sorted(arguments.items()) if name != "model"
        },
    }
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name(0)
        found["devices"] = torch.cuda.device_count()
        found["cuda"] = str(torch.version.cuda)
    return found
