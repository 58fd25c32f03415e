"""Replay a recorded trace of vLLM's scheduler and compare every line."""

from __future__ import annotations

import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from tests.reference.scheduler import Request, Scheduler, Settings


def settings_of(header: dict[str, Any]) -> Settings:
    names = {field.name for field in fields(Settings)} & header.keys()
    watermark = int(header["watermark"] * header["num_gpu_blocks"])
    return Settings(watermark_blocks=watermark, **{name: header[name] for name in names})


def replay(path: Path, scheduler_class: type[Scheduler] = Scheduler) -> dict[str, int]:
    """Raise AssertionError at the first line that differs; count what the trace exercised."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(text) for text in file]
    settings = settings_of(lines[0]["header"])
    scheduler = scheduler_class(settings)
    seen = {"steps": 0, "preemptions": 0, "hits": 0}
    for number, line in enumerate(lines[1:], 2):
        if "add" in line:
            add = line["add"]
            scheduler.add(
                Request(
                    add["id"],
                    add["prompt"],
                    min(add["max_tokens"], settings.max_model_len - add["prompt"]),
                    add["priority"],
                    add["arrival"],
                    tuple(add.get("blocks", ())),
                )
            )
            continue
        ours: dict[str, Any]
        if "schedule" in line:
            decision = scheduler.schedule()
            ours = {
                "schedule": [[request.number, c, n] for request, c, n in decision.rows],
                "preempted": sorted(request.number for request in decision.preempted),
                "free": decision.free,
                "waiting": decision.waiting,
                "running": decision.running,
            }
            seen["steps"] += 1
            seen["preemptions"] += len(decision.preempted)
            seen["hits"] += sum(request.cached > 0 for request in decision.admitted)
        else:
            tokens, finished = scheduler.update()
            ours = {
                "update": {
                    "tokens": [request.number for request in tokens],
                    "finished": sorted(request.number for request in finished),
                }
            }
        expected = {name: line[name] for name in ours}
        assert ours == expected, f"{path.name} line {number}: expected {expected}, got {ours}"
    return seen
