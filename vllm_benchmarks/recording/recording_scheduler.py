"""vLLM's scheduler, recording, and the arguments of an engine that takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm_benchmarks.decision_traces import SETTINGS
from vllm_benchmarks.recording.decision_log import DecisionLog


def recording_class(base: Any, log: DecisionLog) -> Any:
    """A subclass of a vLLM scheduler that tells ``log`` what it does."""

    def start(self: Any, *arguments: Any, **options: Any) -> None:
        base.__init__(self, *arguments, **options)
        log.attached(self)

    def add_request(self: Any, request: Any) -> None:
        log.added(request)
        base.add_request(self, request)

    def schedule(self: Any, *arguments: Any, **options: Any) -> Any:
        output = base.schedule(self, *arguments, **options)
        log.scheduled(self, output)
        return output

    def update_from_output(self: Any, output: Any, model_output: Any) -> Any:
        results = base.update_from_output(self, output, model_output)
        log.updated(output, results)
        return results

    methods = {
        "__init__": start,
        "add_request": add_request,
        "schedule": schedule,
        "update_from_output": update_from_output,
    }
    return type(f"Recording{base.__name__}", (base,), methods)


def scheduler_class(settings: dict[str, Any], log: DecisionLog) -> Any:
    """The recording subclass of the scheduler that vLLM would take."""
    if settings["async_scheduling"]:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        return recording_class(AsyncScheduler, log)
    from vllm.v1.core.sched.scheduler import Scheduler

    return recording_class(Scheduler, log)


def engine_arguments(model: Path, settings: dict[str, Any], scheduler: Any) -> Any:
    """The settings as vLLM's ``EngineArgs``."""
    from vllm.engine.arg_utils import EngineArgs

    same = {name: settings[name] for name in SETTINGS if name != "num_gpu_blocks"}
    return EngineArgs(
        model=str(model),
        **same,
        num_gpu_blocks_override=settings["num_gpu_blocks"],
        scheduler_cls=scheduler,
        load_format="dummy",
        dtype="bfloat16",
        enforce_eager=True,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
