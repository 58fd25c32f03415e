"""Calibrate from kernels that were measured one by one."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from itertools import product
from pathlib import Path

from llm_inference_simulator.calibration import CalibrationFile
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.kernel_profile_rows import import_kernel_profiles
from llm_inference_simulator.calibration.op_table_rows import ImportedTables, import_op_tables
from llm_inference_simulator.calibration.step_data import MeasuredStep
from llm_inference_simulator.calibration.step_fit import fit_steps
from llm_inference_simulator.capacity import resolve_quantization
from llm_inference_simulator.catalog import XpuSpec, load_xpu
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from llm_inference_simulator.performance_models.weight_formats import activation_dtype

DECODE_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DECODE_CONTEXTS = (128, 512, 2048, 8192)
PROMPT_TOKENS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
CACHED_TOKENS = (0, 1024, 4096)


def calibrate_from_op_tables(folder: Path, xpu: str) -> KernelCalibration:
    """Import aiconfigurator-core's tables of one accelerator."""
    device = load_xpu(xpu)
    source = "kernel tables in the layout of aiconfigurator-core"
    return _calibration(device, import_op_tables(folder, device), source)


def calibrate_from_kernel_profiles(folder: Path, xpu: str) -> KernelCalibration:
    """Import LLMServingSim's whole-layer profiles of one accelerator."""
    device = load_xpu(xpu)
    source = "layer profiles in the layout of LLMServingSim"
    return _calibration(device, import_kernel_profiles(folder, device), source)


def _calibration(device: XpuSpec, found: ImportedTables, source: str) -> KernelCalibration:
    return KernelCalibration(
        xpu=device.name,
        tables=found.tables,
        provenance={
            "source": source,
            "date": _today(),
            "versions": found.versions,
            "files_sha256": found.files,
            "notes": list(found.notes),
        },
    )


def derive_roofline(
    kernels: KernelCalibration,
    *,
    model: str,
    tensor_parallel_size: int = 1,
    engine: EngineConfig | None = None,
    bootstrap_samples: int,
    progress: Callable[[str], None] = lambda _: None,
) -> CalibrationFile:
    """Effective rates of one model: a roofline fitted to the steps that the kernels add up to."""
    engine = engine or EngineConfig()
    pricing = OpTablePerformanceModel(
        model,
        kernels.xpu,
        tensor_parallel_size,
        calibration=kernels,
        engine=_with_room(engine),
        max_model_len=max(PROMPT_TOKENS) + max(CACHED_TOKENS),
    )
    fit = fit_steps(
        _steps(pricing),
        pricing.breakdown_step,
        window=pricing.attention_window,
        bootstrap_samples=bootstrap_samples,
        progress=progress,
    )
    quantization = resolve_quantization(pricing.model, engine)
    return CalibrationFile(
        model=pricing.model.name,
        xpu=pricing.xpu.name,
        dtype=activation_dtype(pricing.model, engine),
        quantization="none" if quantization is None else quantization.format,
        tensor_parallel_size=tensor_parallel_size,
        roofline_params=fit.parameters,
        confidence=fit.confidence,
        intervals=fit.intervals,
        assumed=fit.assumed,
        knees_flop_per_byte=fit.knees_flop_per_byte,
        calibrated_range=fit.calibrated_range,
        held_out_error=fit.held_out_error,
        front_end=kernels.front_end,
        provenance={
            "source": f"kernel tables of {kernels.xpu}: steps added up, not measured whole",
            "date": _today(),
            "kernels": kernels.provenance,
        },
    )


def _with_room(engine: EngineConfig) -> EngineConfig:
    """The engine with room for the largest prompt of the grid."""
    most = max(engine.max_num_batched_tokens, *PROMPT_TOKENS)
    return engine.model_copy(update={"max_num_batched_tokens": most})


def _steps(pricing: OpTablePerformanceModel) -> list[MeasuredStep]:
    """A grid of decode steps and of prompts, each as long as the kernels say."""

    def step(chunks: tuple[tuple[int, int], ...], contexts: tuple[int, ...]) -> MeasuredStep:
        made = MeasuredStep(
            chunks=chunks,
            contexts=contexts,
            sampled_seqs=len(chunks) + len(contexts),
            seconds=0.0,
        )
        seconds = pricing.estimate_step_time(made.shape(pricing.attention_window))
        return dataclasses.replace(made, seconds=seconds)

    decode = [
        step((), (context,) * batch) for batch, context in product(DECODE_BATCHES, DECODE_CONTEXTS)
    ]
    prefill = [
        step(((cached, tokens),), ()) for tokens, cached in product(PROMPT_TOKENS, CACHED_TOKENS)
    ]
    return decode + prefill


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
