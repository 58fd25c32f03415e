"""A vLLM scheduler that logs every engine step: composition, and seconds of each part."""

from __future__ import annotations

import time
from collections import deque
from typing import Any


class StepLog:
    """Rows of a step log (design of the format: calibration.step_data), from two calls a step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {}
        self._pending: deque[tuple[dict[str, Any], float]] = deque()
        self._last_output_s = 0.0
        self._asynchronous = False

    def attached(self, scheduler: Any) -> None:
        """Note the settings that the engine really runs with."""
        config = scheduler.scheduler_config
        self._asynchronous = bool(config.async_scheduling)
        self.settings = {
            "block_size": scheduler.block_size,
            "num_gpu_blocks": scheduler.kv_cache_manager.block_pool.num_gpu_blocks,
            "max_num_seqs": scheduler.max_num_active_reqs,
            "max_num_batched_tokens": scheduler.max_num_scheduled_tokens,
            "max_model_len": scheduler.max_model_len,
            "prefix_caching": scheduler.kv_cache_manager.enable_caching,
            "async": self._asynchronous,
        }

    def scheduled(self, scheduler: Any, output: Any, began_s: float) -> None:
        """``schedule()``, called at ``began_s``, has returned."""
        ended_s = time.perf_counter()
        cached = output.scheduled_cached_reqs
        computed = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        computed.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        rows = []
        for name, tokens in output.num_scheduled_tokens.items():
            prompt = scheduler.requests[name].num_prompt_tokens
            decodes = tokens == 1 and computed[name] >= prompt
            rows.append([name, computed[name], tokens, 0 if decodes else 1])
        row = {"t_sched": began_s, "sched_s": ended_s - began_s, "reqs": rows}
        self._pending.append((row, ended_s))

    def updated(self, output: Any, results: dict[int, Any], began_s: float) -> None:
        """``update_from_output()``, called at ``began_s``, has processed the oldest step."""
        del output
        row, scheduled_s = self._pending.popleft()
        # An asynchronous step can start only when the device is done with the one before.
        start_s = max(scheduled_s, self._last_output_s) if self._asynchronous else scheduled_s
        self._last_output_s = began_s
        row["exec_s"] = began_s - start_s
        row["upd_s"] = time.perf_counter() - began_s
        told = [one for client in results.values() for one in client.outputs]
        row["out"] = {
            one.request_id: [len(one.new_token_ids), one.finish_reason is not None] for one in told
        }
        if row["reqs"]:
            self.rows.append(row)

    def drain(self) -> list[dict[str, Any]]:
        """The rows since the last call."""
        rows, self.rows = self.rows, []
        return rows


def logging_class(base: Any, log: StepLog) -> Any:
    """A subclass of a vLLM scheduler that tells ``log`` about every step."""

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, **options)
        log.attached(self)

    def schedule(self: Any, *arguments: Any, **options: Any) -> Any:
        began_s = time.perf_counter()
        output = base.schedule(self, *arguments, **options)
        log.scheduled(self, output, began_s)
        return output

    def update_from_output(self: Any, output: Any, model_output: Any) -> Any:
        began_s = time.perf_counter()
        results = base.update_from_output(self, output, model_output)
        log.updated(output, results, began_s)
        return results

    methods = {
        "__init__": start,
        "schedule": schedule,
        "update_from_output": update_from_output,
    }
    return type(f"Logging{base.__name__}", (base,), methods)
