"""Calibration files: what loads, what is refused, and what a run says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.calibration import RooflineParameters, load_calibration
from llm_inference_simulator.calibration.parameters import CalibrationFile
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import CalibrationError
from llm_inference_simulator.performance_models import VLLMRooflineModel

PARAMETERS = {
    "prefill_effective_tflops": 600,
    "prefill_effective_bandwidth_gbps": 2500.0,
    "decode_effective_tflops": 400.0,
    "decode_effective_bandwidth_gbps": 2000.0,
    "step_overhead_us": 900.0,
    "sequence_overhead_us": 2.0,
}


def write(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_parameters_load_nested_and_alone(tmp_path: Path) -> None:
    nested, _ = load_calibration(write(tmp_path / "a.json", {"roofline_params": PARAMETERS}))
    alone, _ = load_calibration(write(tmp_path / "b.json", {"xpu": "h100-sxm", **PARAMETERS}))
    assert nested.roofline_params == alone.roofline_params
    assert alone.xpu == "h100-sxm"
    assert nested.roofline_params.prefill_effective_tflops == 600.0


def test_one_overhead_stands_for_both_phases(tmp_path: Path) -> None:
    read, _ = load_calibration(write(tmp_path / "a.json", PARAMETERS))
    assert read.roofline_params.prefill_step_overhead_us == 900.0
    assert read.roofline_params.decode_step_overhead_us == 900.0


def test_a_written_file_reads_back(tmp_path: Path) -> None:
    calibration = CalibrationFile(
        xpu="h100-sxm",
        roofline_params=RooflineParameters.parse({**PARAMETERS, "prefill_effective_tflops": 1.0}),
    )
    calibration.write(tmp_path / "c.json")
    read, sha256 = load_calibration(tmp_path / "c.json")
    assert read == calibration
    assert len(sha256) == 64


def without(name: str) -> dict[str, float]:
    return {key: value for key, value in PARAMETERS.items() if key != name}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "prefill_effective_tflops is missing"),
        (without("decode_effective_tflops"), "decode_effective_tflops is missing: give it"),
        ({**PARAMETERS, "decode_step_overhed_us": 1.0}, "did you mean 'decode_step_overhead_us'"),
        ({**PARAMETERS, "decode_effective_tflops": -3.0}, "decode_effective_tflops=-3.0"),
        ({**PARAMETERS, "decode_effective_tflops": 1e300}, "decode_effective_tflops=1e+300"),
        ({**PARAMETERS, "step_overhead_us": 1e300}, "prefill_step_overhead_us=1e+300"),
        ({**PARAMETERS, "decode_step_overhead_us": 1.0}, "contradict each other: give one"),
        ({**PARAMETERS, "quantization": "int3"}, "quantization='int3'"),
        ({**PARAMETERS, "decode_effective_tflops": "400"}, "decode_effective_tflops='400'"),
        ({"roofline_params": PARAMETERS, "schema_version": 2}, "schema_version=2"),
        ({"roofline_params": PARAMETERS, "kind": "table"}, "kind='table'"),
        ([1], "holds a list"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match="calibration file") as caught:
        load_calibration(write(tmp_path / "bad.json", data))
    assert message in str(caught.value)


def test_another_accelerator_is_an_error_and_another_model_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "c.json", {"xpu": "h100-sxm", "model": "llama-3.1-8b", **PARAMETERS})
    assert VLLMRooflineModel("llama-3.1-8b", "h100", calibration=path).warnings == ()
    (warning,) = VLLMRooflineModel("llama2-7b", "h100", calibration=path).warnings
    assert "model=llama-3.1-8b" in warning
    with pytest.raises(CalibrationError, match="xpu=h100-sxm"):
        VLLMRooflineModel("llama-3.1-8b", "a100", calibration=path)


def test_a_memory_bound_step_takes_its_bytes_over_the_measured_bandwidth() -> None:
    measured = RooflineParameters.parse({**PARAMETERS, "prefill_effective_tflops": 600.0})
    model = VLLMRooflineModel("llama2-7b", "h100", calibration=measured)
    parts = model.breakdown_decode(1, 1)
    assert parts["mlp_up"].seconds == pytest.approx(parts["mlp_up"].bytes / 2000e9, rel=1e-12)
    assert parts["overhead"].seconds == pytest.approx(902e-6, rel=1e-12)
    prompt = model.breakdown_prefill(1, 8192)
    assert prompt["mlp_up"].seconds == pytest.approx(
        prompt["mlp_up"].operations / 600e12, rel=1e-12
    )


def test_aliases_name_what_they_stand_for(tmp_path: Path) -> None:
    names = {"xpu": "H100", "model": "meta-llama/Llama-3.1-8B"}
    path = write(tmp_path / "c.json", {**names, **PARAMETERS})
    assert VLLMRooflineModel("llama-3.1-8b", "h100-sxm", calibration=path).warnings == ()
    write(path, {"xpu": "a100", **PARAMETERS})
    with pytest.raises(CalibrationError, match="xpu=a100"):
        VLLMRooflineModel("llama-3.1-8b", "h100-sxm", calibration=path)


@pytest.mark.parametrize(
    ("measured", "run", "warning"),
    [
        ({}, {}, None),
        ({}, {"quantization": "fp8"}, "does not say which quantization"),
        ({"quantization": "none"}, {}, None),
        ({"quantization": "fp8"}, {"quantization": "fp8"}, None),
        ({"quantization": "none"}, {"quantization": "fp8"}, "this run has quantization=fp8"),
        ({"quantization": "fp8"}, {}, "this run has quantization=none"),
        ({"dtype": "bfloat16"}, {}, None),
        ({"dtype": "bfloat16"}, {"dtype": "float16"}, "this run has dtype=float16"),
    ],
)
def test_another_weight_format_is_a_warning(
    tmp_path: Path, measured: dict[str, str], run: dict[str, Any], warning: str | None
) -> None:
    path = write(tmp_path / "c.json", {**measured, **PARAMETERS})
    engine = EngineConfig(**run)
    found = VLLMRooflineModel("llama-3.1-8b", "h100", calibration=path, engine=engine).warnings
    if warning is None:
        assert found == ()
    else:
        (only,) = found
        assert warning in only
