"""What the performance models refuse or warn of, and what a result says of them."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator import simulate
from llm_inference_simulator.calibration.shipped import shipped_calibration
from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.performance_models import RooflinePerformanceModel
from llm_inference_simulator.results import strict_json
from llm_inference_simulator.workload import build_workload

PARAMETERS = {
    "prefill_effective_tflops": 600.0,
    "prefill_effective_bandwidth_gbps": 2500.0,
    "decode_effective_tflops": 400.0,
    "decode_effective_bandwidth_gbps": 2000.0,
}
WINDOWED = "mistral-7b-v0.1"


def config(**sections: Any) -> SimulatorConfig:
    data = {"model": "llama-3.1-8b", "xpu": "h100", "workload": {"num_prompts": 2}}
    return SimulatorConfig.from_dict(data | sections)


@pytest.mark.parametrize(
    ("model", "tensor_parallel_size", "message"),
    [
        ("llama2-70b", 3, "tensor_parallel_size=3 does not divide"),
        ("llama2-70b", 0, "tensor_parallel_size=0 does not divide"),
    ],
)
def test_the_constructor_refuses_what_it_would_misprice(
    model: str, tensor_parallel_size: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        RooflinePerformanceModel(model, "h200", tensor_parallel_size)


def test_decoding_reads_no_more_than_the_window() -> None:
    """Mistral-7B-v0.1 sees 4,096 keys: 32 layers of 8 x 128 keys and values in 16 bits."""
    model = RooflinePerformanceModel(WINDOWED, "h100")
    read = {
        length: model.breakdown_decode(8, length)["attention_decode_window"].bytes
        for length in (2048, 4096, 8192, 32768)
    }
    keys = 32 * 2 * 8 * 128 * 2 * 8
    assert read[4096] - read[2048] == 2048 * keys
    assert read[4096] == read[8192] == read[32768]


def test_latent_attention_is_priced() -> None:
    model = RooflinePerformanceModel("deepseek-v3", "h200", 8)
    assert model.estimate_decode_time(1, 1024) > 0


def test_a_group_beyond_the_link_is_a_warning() -> None:
    assert RooflinePerformanceModel("llama-7b", "h100", 8).warnings == ()
    assert RooflinePerformanceModel("llama-7b", "h100", 16).warnings == (
        "tensor_parallel_size=16 exceeds the 8 h100-sxm that NVLink joins: their collectives run "
        "over PCIe at 64 GB/s",
    )
    assert RooflinePerformanceModel("llama-7b", "l40s", 2).warnings == ()


@pytest.mark.parametrize(
    ("model", "xpu", "tensor_parallel_size", "message"),
    [
        ("llama2-7b", "h100", 1, "prices model=llama2-7b, .* model=llama-3.1-8b"),
        ("llama-3.1-8b", "a100", 1, "prices xpu=a100.*, .* xpu=h100-sxm"),
        ("llama-3.1-8b", "h100", 2, "prices tensor_parallel_size=2, .* tensor_parallel_size=1"),
    ],
)
def test_a_roofline_of_something_else_is_refused(
    model: str, xpu: str, tensor_parallel_size: int, message: str
) -> None:
    other = RooflinePerformanceModel(model, xpu, tensor_parallel_size)
    with pytest.raises(ConfigError, match=message):
        simulate(config(), performance_model=other)


def test_a_roofline_of_shorter_sequences_is_refused() -> None:
    short = RooflinePerformanceModel(WINDOWED, "h100", max_model_len=4096)
    with pytest.raises(ConfigError, match="max_model_len=32768"):
        simulate(config(model=WINDOWED), performance_model=short)
    limited = config(model=WINDOWED, engine={"max_model_len": 4096})
    assert simulate(limited, performance_model=short).summary()["completed"] == 2


def test_provenance_carries_the_calibration_file_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(PARAMETERS), encoding="utf-8")
    run = config(performance={"calibration_data": str(path)})
    provenance = simulate(run).summary()["provenance"]
    assert provenance["calibration_file"] == str(path)
    assert provenance["calibration_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    shipped = shipped_calibration("h100")
    assert shipped is not None
    provenance = simulate(config()).summary()["provenance"]
    assert provenance["calibration_file"] == "h100-sxm"
    assert provenance["calibration_sha256"] == hashlib.sha256(shipped.read_bytes()).hexdigest()
    plain = config(performance={"performance_model": "roofline"})
    assert simulate(plain).summary()["provenance"]["calibration_file"] is None


def test_the_rate_of_requests_that_arrive_at_once_is_inf() -> None:
    summary = simulate(config()).summary()
    assert summary["request_rate"] == math.inf
    assert strict_json(summary)["request_rate"] == "inf"
    given = build_workload(config().workload, 0)
    assert simulate(config(), workload=given).summary()["request_rate"] is None
    traced = {"trace": "azure-conv-2023", "num_prompts": 2}
    assert simulate(config(workload=traced)).summary()["request_rate"] is None


def test_the_result_names_whose_bytes_it_gives() -> None:
    run = config(model="llama-3.1-70b", cluster={"tensor_parallel_size": 4})
    capacity = simulate(run).summary()["capacity"]
    assert capacity["kv_bytes_per_token"] == 320 * 1024
    assert capacity["kv_bytes_per_token_per_rank"] == 80 * 1024
    assert capacity["runtime_bytes"] > 0
    assert "graph_bytes" not in capacity
