"""The lines of a decision trace, from what a vLLM scheduler is asked and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llm_inference_simulator.errors import ConfigError


class BlockNumbers:
    """Numbers for full blocks, equal exactly if all tokens up to the block's end are."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    def of(self, tokens: Sequence[int]) -> list[int]:
        """Number the full blocks of a prompt."""
        numbers: list[int] = []
        size = self._block_size
        for start in range(0, len(tokens) - size + 1, size):
            key = (numbers[-1] if numbers else -1, tuple(tokens[start : start + size]))
            numbers.append(self._known.setdefault(key, len(self._known)))
        return numbers


class DecisionLog:
    """Writes what a vLLM scheduler does, as lines of a decision trace.

    Request ids are the requests' numbers; vLLM may append ``-`` and random characters to them.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        settings: dict[str, Any],
        *,
        vllm: str,
        kind: str,
    ) -> None:
        self._write = write
        self._settings = settings
        caching = settings["enable_prefix_caching"]
        self._numbers = BlockNumbers(settings["block_size"]) if caching else None
        self.schedules = 0
        self.executed = 0
        """Steps with tokens whose output was processed: the virtual clock counts these."""
        self.idle_schedules = 0
        """Schedules without tokens since the last one that had some."""
        write({"header": {"vllm": vllm, "kind": kind, **settings}})

    def attached(self, scheduler: Any) -> None:
        """Check that the scheduler runs with the settings that the header tells."""
        for name, value in _settings_of(scheduler).items():
            if value != self._settings[name]:
                flag = name.replace("_", "-")
                raise ConfigError(
                    f"vLLM runs with {name}={value} instead of {self._settings[name]} on this "
                    f"device: change --{flag} or record with --engine scheduler"
                )

    def added(self, request: Any) -> None:
        """A request joins."""
        add = {
            "id": self._id(request.request_id),
            "prompt": request.num_prompt_tokens,
            "max_tokens": request.max_tokens,
            "priority": request.priority,
            "arrival": request.arrival_time,
        }
        if self._numbers is not None:
            add["blocks"] = self._numbers.of(request.prompt_token_ids)
        self._write({"add": add})

    def scheduled(self, scheduler: Any, output: Any) -> None:
        """``schedule()`` has returned ``output``."""
        cached = output.scheduled_cached_reqs
        computed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        computed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        tokens = output.num_scheduled_tokens
        running, waiting = scheduler.get_request_counts()
        self.schedules += 1
        self.idle_schedules = 0 if tokens else self.idle_schedules + 1
        self._write(
            {
                "schedule": [[self._id(name), computed[name], n] for name, n in tokens.items()],
                "preempted": sorted(map(self._id, output.preempted_req_ids or ())),
                "free": scheduler.kv_cache_manager.block_pool.get_num_free_blocks(),
                "waiting": waiting,
                "running": running,
            }
        )

    def updated(self, output: Any, results: dict[int, Any]) -> None:
        """``update_from_output()`` has processed the step ``output``."""
        told = [one for client in results.values() for one in client.outputs]
        finished = [one.request_id for one in told if one.finish_reason is not None]
        self.executed += bool(output.num_scheduled_tokens)
        self._write(
            {
                "update": {
                    "tokens": [self._id(one.request_id) for one in told if one.new_token_ids],
                    "finished": sorted(map(self._id, finished)),
                }
            }
        )

    @staticmethod
    def _id(name: str) -> int:
        return int(name.partition("-")[0])


def _settings_of(scheduler: Any) -> dict[str, Any]:
    config = scheduler.scheduler_config
    return {
        "block_size": scheduler.block_size,
        "num_gpu_blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
        "max_model_len": scheduler.max_model_len,
        "max_num_seqs": scheduler.max_num_active_reqs,
        "max_num_batched_tokens": scheduler.max_num_scheduled_tokens,
        "enable_prefix_caching": scheduler.kv_cache_manager.enable_caching,
        "scheduling_policy": scheduler.policy.value,
        "long_prefill_token_threshold": config.long_prefill_token_threshold,
        "long_prefill_token_threshold_adaptive": scheduler.adaptive_long_prefill_threshold,
        "scheduler_reserve_full_isl": scheduler.scheduler_reserve_full_isl,
        "watermark": config.watermark,
        "async_scheduling": bool(config.async_scheduling),
    }
