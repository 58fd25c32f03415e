"""Which performance model a configuration gets, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator import simulate
from llm_inference_simulator.calibration.shipped import open_calibration, shipped_names
from llm_inference_simulator.cli import main
from llm_inference_simulator.config import EngineConfig, PerformanceModelConfig, SimulatorConfig
from llm_inference_simulator.errors import CalibrationError, ConfigError
from llm_inference_simulator.performance_models import (
    BasePerformanceModel,
    OpTablePerformanceModel,
    RooflinePerformanceModel,
    VLLMRooflineModel,
    create_performance_model,
)

MODEL = "llama-3.1-8b"
RATES = {
    "prefill_effective_tflops": 600.0,
    "prefill_effective_bandwidth_gbps": 2500.0,
    "decode_effective_tflops": 400.0,
    "decode_effective_bandwidth_gbps": 2000.0,
}


def create(xpu: str, *, quantization: Any = None, **performance: Any) -> BasePerformanceModel:
    return create_performance_model(
        PerformanceModelConfig.parse(performance, source=""),
        MODEL,
        xpu,
        engine=EngineConfig(quantization=quantization),
    )


@pytest.fixture
def rates(tmp_path: Path) -> str:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(RATES), encoding="utf-8")
    return str(path)


@pytest.fixture
def tables(tmp_path: Path) -> str:
    path = tmp_path / "tables.json.gz"
    calibration = open_calibration("rtx-4090")
    calibration.write(path)
    return str(path)


@pytest.mark.parametrize("xpu", shipped_names())
def test_measured_kernels_are_the_default_where_they_come_along(xpu: str) -> None:
    model = create(xpu)
    assert type(model) is OpTablePerformanceModel
    assert (model.name, model.calibration_file) == ("op_table", xpu)
    assert model.description.startswith(f"measured kernels: {xpu}, ")


@pytest.mark.parametrize("xpu", ["gb10", "b200", "a10", "mi300x"])
def test_the_roofline_is_the_default_elsewhere(xpu: str) -> None:
    assert xpu not in shipped_names()  # else name another here
    model = create(xpu)
    assert type(model) is RooflinePerformanceModel
    assert (model.name, model.calibration_file, model.front_end) == ("roofline", None, None)
    assert "not calibrated" in model.description


@pytest.mark.parametrize(
    ("xpu", "line"),
    [
        ("h100-sxm", "op_table: measured kernels: h100-sxm, 280,"),
        ("gb10", "roofline: analytic, not calibrated"),
    ],
)
def test_the_summary_says_which(capsys: pytest.CaptureFixture[str], xpu: str, line: str) -> None:
    assert main(["--model", MODEL, "--xpu", xpu, "--num-prompts", "1"]) == 0
    out = capsys.readouterr().out
    assert line in next(row for row in out.splitlines() if row.strip().startswith("performance"))


def test_the_result_says_which() -> None:
    def summary(xpu: str, **performance: Any) -> dict[str, Any]:
        data = {"model": MODEL, "xpu": xpu, "workload": {"num_prompts": 1}}
        config = SimulatorConfig.from_dict(data | {"performance": performance})
        return simulate(config).summary()

    assert summary("h100")["provenance"]["calibration_file"] == "h100-sxm"
    asked = summary("h100", performance_model="roofline")
    assert asked["provenance"]["calibration_file"] is None
    # Two different sources of times: nobody could mistake one for the other.
    assert asked["mean_e2el_ms"] != summary("h100")["mean_e2el_ms"]


def test_a_file_chooses_its_model(rates: str, tables: str) -> None:
    assert type(create("h100", calibration_data=rates)) is VLLMRooflineModel
    assert type(create("rtx-4090", calibration_data=tables)) is OpTablePerformanceModel
    assert type(create("h100", calibration_data="H100")) is OpTablePerformanceModel
    assert type(create("h100", performance_model="roofline")) is RooflinePerformanceModel


def refusal(xpu: str, **performance: Any) -> str:
    with pytest.raises((ConfigError, CalibrationError)) as caught:
        create(xpu, **performance)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_effective_rates_must_be_given(tables: str) -> None:
    for xpu in ("h100", "gb10"):
        message = refusal(xpu, performance_model="vllm_roofline")
        assert message.startswith("performance_model=vllm_roofline needs calibration_data")
    message = refusal("rtx-4090", performance_model="vllm_roofline", calibration_data=tables)
    assert (
        f"calibration_data={tables} holds kernel tables: use performance_model=op_table" in message
    )


def test_kernel_tables_must_be_there(rates: str) -> None:
    message = refusal("gb10", performance_model="op_table")
    assert "none come along for xpu=gb10" in message
    assert ", ".join(shipped_names()) in message
    message = refusal("h100", performance_model="op_table", calibration_data=rates)
    assert f"calibration_data={rates} holds effective rates: use performance_model=vllm" in message
    message = refusal("h100", performance_model="op_table", calibration_data="h101-sxm")
    assert "unknown calibration 'h101-sxm'; did you mean 'h100-sxm'?" in message


def test_the_roofline_takes_no_calibration(rates: str) -> None:
    assert "is not used by performance_model=roofline" in refusal(
        "h100", performance_model="roofline", calibration_data=rates
    )


def test_tables_of_another_accelerator_are_refused() -> None:
    message = refusal("h200", calibration_data="h100-sxm")
    assert "measured on xpu=h100-sxm, not on h200-sxm" in message


def test_fp8_weights_on_an_a100_save_bytes_and_no_operations() -> None:
    """Without FP8 units kernels widen the weights: half of the traffic, all of the arithmetic."""
    wide, narrow = create("a100"), create("a100", quantization="fp8")
    (warning,) = [text for text in narrow.warnings if "matrix units" in text]
    assert warning.startswith("a100-80-sxm has no fp8 matrix units: weights are fp8")
    assert not any("matrix units" in text for text in wide.warnings)
    # One sequence reads the weights; the LM head and the cache keep 16 bits.
    share = narrow.estimate_decode_time(1, 512) / wide.estimate_decode_time(1, 512)
    assert 0.5 < share < 0.75
    share = narrow.estimate_prefill_time(1, 8192) / wide.estimate_prefill_time(1, 8192)
    assert share == pytest.approx(1.0, abs=0.02)


def test_fp8_weights_on_an_h100_save_both() -> None:
    wide, narrow = create("h100"), create("h100", quantization="fp8")
    assert not any("matrix units" in text for text in narrow.warnings)
    assert 0.5 < narrow.estimate_decode_time(1, 512) / wide.estimate_decode_time(1, 512) < 0.8
    assert narrow.estimate_prefill_time(1, 8192) < 0.85 * wide.estimate_prefill_time(1, 8192)


def test_extrapolation_is_a_warning() -> None:
    """No table of an A100 has FP8 products: their times are derived, and the run says so."""
    narrow = create("a100", quantization="fp8")
    assert any("lies beyond the measured kernels" in text for text in narrow.warnings)
    assert create("a100").warnings == ()
