"""The offline runner: its log of steps without vLLM, and with it a whole calibration."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_inference_simulator.calibration import load_calibration
from llm_inference_simulator.calibration.step_data import read_step_logs
from vllm_benchmarks.calibrate import main
from vllm_benchmarks.runners.statistics import repeated
from vllm_benchmarks.runners.step_log import StepLog, logging_class

DATA = Path(__file__).parents[2] / "benchmark_data" / "raw" / "vllm_cpu_avx2"


class Scheduler:
    """As much of vLLM's as the log looks at; sleeps where the real one works."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.scheduler_config = SimpleNamespace(async_scheduling=asynchronous)
        self.block_size, self.max_model_len = 16, 512
        self.max_num_active_reqs, self.max_num_scheduled_tokens = 8, 64
        pool = SimpleNamespace(num_gpu_blocks=100)
        self.kv_cache_manager = SimpleNamespace(block_pool=pool, enable_caching=False)
        self.requests = {"a": SimpleNamespace(num_prompt_tokens=30)}

    def schedule(self, *steps: tuple[int, int]) -> Any:
        time.sleep(0.01)
        ((computed, tokens),) = steps
        new = [SimpleNamespace(req_id="a", num_computed_tokens=computed)]
        return SimpleNamespace(
            scheduled_new_reqs=new,
            scheduled_cached_reqs=SimpleNamespace(req_ids=[], num_computed_tokens=[]),
            num_scheduled_tokens={"a": tokens},
        )

    def update_from_output(self, output: Any, model_output: Any) -> Any:
        del output, model_output
        told = SimpleNamespace(request_id="a", new_token_ids=[7], finish_reason=None)
        return {0: SimpleNamespace(outputs=[told])}


def test_rows_tell_prompts_from_decodes() -> None:
    log = StepLog()
    scheduler = logging_class(Scheduler, log)(asynchronous=False)
    for computed, tokens in ((0, 29), (29, 1), (30, 1)):
        scheduler.update_from_output(scheduler.schedule((computed, tokens)), None)
    rows = log.drain()
    assert [row["reqs"] for row in rows] == [
        [["a", 0, 29, 1]],
        [["a", 29, 1, 1]],  # the prompt's last token
        [["a", 30, 1, 0]],
    ]
    assert rows[0]["out"] == {"a": [1, False]}
    assert log.settings["num_gpu_blocks"] == 100
    assert log.drain() == []


def test_an_asynchronous_step_starts_when_the_one_before_has_ended() -> None:
    log = StepLog()
    scheduler = logging_class(Scheduler, log)(asynchronous=True)
    first = scheduler.schedule((30, 1))
    second = scheduler.schedule((31, 1))
    time.sleep(0.05)
    scheduler.update_from_output(first, None)
    time.sleep(0.02)
    scheduler.update_from_output(second, None)
    rows = log.drain()
    # The first ran while the second was scheduled (10 ms) and the device worked on (50 ms).
    assert rows[0]["exec_s"] >= 0.06
    # The second waited for the first: since its own schedule more than 70 ms passed.
    assert 0.02 <= rows[1]["exec_s"] < rows[0]["exec_s"]


def test_repeats_give_median_spread_and_outliers() -> None:
    assert repeated([]) is None
    assert repeated([3.0]) == (3.0, 0.0, 0)
    # Quartiles of 1..9 are 3 and 7; 100 lies far outside.
    told = repeated([1.0, 2, 3, 4, 5, 6, 7, 8, 9])
    assert told == (5.0, 0.8, 0)
    disturbed = repeated([10.0, 10.1, 10.2, 10.1, 100.0])
    assert disturbed is not None
    assert tuple(disturbed) == pytest.approx((10.1, 0.1 / 10.1, 1))


@pytest.mark.vllm
@pytest.mark.filterwarnings("default")  # PyTorch and vLLM warn of their own deprecations
def test_a_calibration_of_the_tiny_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text((DATA / "model_config.json").read_text())
    output = tmp_path / "calibration.json"
    words = ["--model", str(model), "--xpu", "cpu", "--output", str(output), "--enforce-eager"]
    words += ["--sparse", "--sparse-points", "24", "--repeats", "2", "--max-context", "256"]
    words += ["--max-num-seqs", "16", "--max-num-batched-tokens", "512", "--max-model-len", "1024"]
    assert main(words) == 0
    calibration, _ = load_calibration(output)
    assert calibration.environment["vllm"]
    assert calibration.held_out_error is not None
    assert calibration.held_out_error.mean_absolute_percent < 25
    log = tmp_path / "calibration_data" / "processed" / "steps.jsonl.gz"
    assert len(read_step_logs([log]).steps) > 100
    page = (tmp_path / "calibration_data" / "summary.html").read_text()
    assert "prefill_effective_tflops" in page
    points = (tmp_path / "calibration_data" / "raw" / "points.jsonl").read_text()
    assert main(words) == 0, "a rerun resumes"
    again = (tmp_path / "calibration_data" / "raw" / "points.jsonl").read_text()
    assert json.loads(again.splitlines()[0])["runner"] == "offline"
    assert again == points
