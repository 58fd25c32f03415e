"""vLLM's scheduler without a device: what ``--engine scheduler`` records."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from vllm_benchmarks.recording.decision_log import DecisionLog
from vllm_benchmarks.recording.prompts import Prompts
from vllm_benchmarks.recording.recording_scheduler import engine_arguments, scheduler_class
from vllm_benchmarks.recording.workload import Row


class SchedulerEngine:
    """The real scheduler and KV-cache manager; a step's tokens come from nowhere."""

    def __init__(
        self, model: Path, settings: dict[str, Any], prompts: Prompts, log: DecisionLog
    ) -> None:
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.structured_output import StructuredOutputManager

        scheduler = scheduler_class(settings, log)
        config = engine_arguments(model, settings, scheduler).create_engine_config()
        # CPUs switch it off; without a device to run on, both orders are possible everywhere.
        config.scheduler_config.async_scheduling = settings["async_scheduling"]
        config.cache_config.num_gpu_blocks = settings["num_gpu_blocks"]
        self._prompts = prompts
        self._hasher = None
        if settings["enable_prefix_caching"]:
            function = get_hash_fn_by_name(config.cache_config.prefix_caching_hash_algo)
            init_none_hash(function)
            self._hasher = get_request_block_hasher(settings["block_size"], function)
        self._scheduler = scheduler(
            vllm_config=config,
            kv_cache_config=_one_full_attention_layer(settings, config.model_config.dtype),
            structured_output_manager=StructuredOutputManager(config),
            block_size=settings["block_size"],
        )
        self._depth = 2 if settings["async_scheduling"] else 1
        self._in_flight: deque[tuple[Any, Any]] = deque()

    @property
    def busy(self) -> bool:
        """Whether vLLM's engine would step."""
        return bool(self._in_flight) or self._scheduler.has_requests()

    def add(self, index: int, row: Row) -> None:
        """Let a request join."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        request = Request(
            str(index),
            self._prompts.tokens(index, row),
            SamplingParams(max_tokens=row.output, ignore_eos=True),
            None,
            arrival_time=float(index),
            priority=row.priority,
            block_hasher=self._hasher,
        )
        self._scheduler.add_request(request)

    def step(self) -> None:
        """As ``EngineCore.step`` or, two deep, ``EngineCore.step_with_batch_queue``."""
        scheduler = self._scheduler
        if scheduler.has_requests():
            output = scheduler.schedule()
            self._in_flight.append((output, self._execute(output)))
            executed = bool(output.num_scheduled_tokens)
            if len(self._in_flight) < self._depth and (executed or scheduler.has_requests()):
                return
        scheduler.update_from_output(*self._in_flight.popleft())

    def _execute(self, output: Any) -> Any:
        """One token for each request whose last known token was in the step."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        requests = self._scheduler.requests
        tokens = [
            [] if requests[name].is_prefill_chunk else [self._prompts.own(int(name))]
            for name in names
        ]
        places = {name: place for place, name in enumerate(names)}
        return ModelRunnerOutput(names, places, sampled_token_ids=tokens)


def _one_full_attention_layer(settings: dict[str, Any], dtype: Any) -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    layer = FullAttentionSpec(
        block_size=settings["block_size"], num_kv_heads=1, head_size=32, dtype=dtype
    )
    return KVCacheConfig(settings["num_gpu_blocks"], [], [KVCacheGroupSpec(["layer"], layer)])
