"""The compiled kernel tables against a naive look-up of the same tables, and what must hold."""

from __future__ import annotations

import functools
from itertools import product

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from llm_inference_simulator._core import StepShape
from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.calibration.kernel_tables import KernelTable, KernelTables
from llm_inference_simulator.calibration.overheads import HostOverheads
from llm_inference_simulator.calibration.shipped import open_calibration, shipped_names
from llm_inference_simulator.catalog import load_model
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from llm_inference_simulator.performance_models.interpolation import monotone
from tests.property import naive_kernels as naive

# Of Llama-3.1-8B on one accelerator: (n, k) of its matrices, heads of its attention.
MATRICES = {
    "qkv_projection": (6144, 4096),
    "output_projection": (4096, 4096),
    "mlp_up": (28672, 4096),
    "mlp_down": (4096, 14336),
    "lm_head": (128256, 4096),
}
HEADS = (32, 8)
TOKENS = (1, 2, 7, 16, 64, 65, 128, 512, 1024, 4096, 8192)
BATCHES = (1, 2, 4, 16, 64, 256)
CONTEXTS = (2, 8, 64, 512, 4096, 32768)


@st.composite
def calibrations(draw: st.DrawFn) -> KernelCalibration:
    """Random tables of every kernel that the model needs, noisy and not monotone."""
    noise = np.random.default_rng(draw(st.integers(0, 2**32)))
    bumpy = draw(st.floats(0, 0.6))

    def bumps(shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        return np.asarray(np.exp(noise.normal(0, bumpy, shape)))

    shapes = tuple(sorted(MATRICES.values()))
    tokens, batch, context = map(np.array, (TOKENS, BATCHES, CONTEXTS))
    size = np.array([n * k for n, k in shapes], dtype=float)
    gemm = size[:, None] * (1e-3 + 1e-5 * tokens[None, :])
    decode = 5000.0 + 2.0 * batch[:, None] * context[None, :]
    prefill = 5000.0 + 1e-2 * batch[:, None] * context[None, :] ** 1.8
    return KernelCalibration(
        xpu="h100-sxm",
        overheads=HostOverheads(
            kernel_latency_us=draw(st.floats(0, 5)), step_overhead_us=draw(st.floats(0, 2000))
        ),
        tables=KernelTables(
            [
                KernelTable("gemm", ("bfloat16",), (shapes, TOKENS), gemm * bumps(gemm.shape)),
                KernelTable(
                    "decode_attention",
                    ("bfloat16", 128, 0),
                    ((HEADS,), BATCHES, CONTEXTS),
                    (decode * bumps(decode.shape))[None],
                ),
                KernelTable(
                    "prefill_attention",
                    ("bfloat16", 128, 0),
                    ((HEADS,), BATCHES, CONTEXTS, (0,)),
                    (prefill * bumps(prefill.shape))[None, :, :, None],
                ),
            ]
        ),
    )


@given(calibrations(), st.integers(1, 255), st.integers(1, 32000))
def test_a_compiled_decode_step_is_the_naive_sum(
    calibration: KernelCalibration, seqs: int, context: int
) -> None:
    model = OpTablePerformanceModel(
        "llama-3.1-8b", "h100-sxm", calibration=calibration, max_model_len=40000
    )
    step = StepShape.decode(seqs, context)
    layers, hidden = 32, 4096
    matrices = {
        name: naive.gemm_seconds(calibration.tables, n, k, seqs)
        for name, (n, k) in MATRICES.items()
    }
    attention = naive.decode_seconds(calibration.tables, HEADS, seqs, naive.mean_context(step))
    expected = matrices.pop("lm_head") + layers * (sum(matrices.values()) + attention)
    # The elementwise kernels, which no table here has: bytes at 0.8 of 3,350 GB/s, and the latency.
    moved = 2 * (2 * hidden + 65 * 4 * hidden + layers * (2 * 5120 + 2 * 2 * 1024 + 3 * 14336))
    expected += seqs * moved / (0.8 * 3350e9)
    overheads = calibration.overheads
    kernels = 1 + 65 + 3 * layers
    expected += kernels * overheads.kernel_latency_us / 1e6 + overheads.step_overhead_us / 1e6
    assert model.estimate_step_time(step) == pytest.approx(expected, rel=1e-9)


@given(calibrations(), st.integers(1, 300), st.integers(1, 40000), st.integers(1, 8192))
def test_more_work_never_takes_less(
    calibration: KernelCalibration, seqs: int, context: int, tokens: int
) -> None:
    model = OpTablePerformanceModel(
        "llama-3.1-8b", "h100-sxm", calibration=calibration, max_model_len=60000
    )
    decode = model.estimate_decode_time(seqs, context) * (1 - 1e-12)
    assert model.estimate_decode_time(seqs + 1, context) >= decode
    assert model.estimate_decode_time(seqs, context + 1) >= decode
    prefill = model.estimate_prefill_time(2, tokens) * (1 - 1e-12)
    assert model.estimate_prefill_time(2, tokens + 1) >= prefill


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=40))
def test_the_rising_fit_is_the_least_squares_one(values: list[float]) -> None:
    assert monotone(np.array(values)) == pytest.approx(naive.rising(values), rel=1e-9)


@functools.cache
def shipped_model(xpu: str, model: str, ranks: int) -> OpTablePerformanceModel:
    calibration = open_calibration(xpu)
    assert isinstance(calibration, KernelCalibration)
    return OpTablePerformanceModel(model, xpu, ranks, calibration=calibration, max_model_len=16384)


SHIPPED = [
    (xpu, model, ranks)
    for xpu, (model, ranks) in product(
        ("a100-80-sxm", "h100-sxm", "l40s", "rtx-pro-6000"),
        (
            ("llama-3.1-8b", 1),
            ("llama-3.1-70b", 8),
            ("mixtral-8x7b", 4),
            ("deepseek-v3", 8),
            ("gpt-oss-120b", 2),
            ("gemma-3-27b", 2),
        ),
    )
]


@given(st.sampled_from(SHIPPED), st.integers(1, 500), st.integers(1, 16000), st.integers(1, 8192))
@hypothesis_settings(deadline=None)
def test_shipped_tables_give_steps_that_add_up(
    which: tuple[str, str, int], seqs: int, context: int, tokens: int
) -> None:
    model = shipped_model(*which)
    window = model.attention_window
    for step in (
        StepShape.decode(seqs, context, window),
        StepShape.prefill(1, tokens, context, window),
    ):
        seconds = model.estimate_step_time(step)
        parts = model.breakdown_step(step)
        assert sum(part.seconds for part in parts.values()) == pytest.approx(seconds, rel=1e-9)
        shares = model.provenance_shares(step)
        assert sum(shares.values()) == pytest.approx(1)
    decode = model.estimate_decode_time(seqs, context) * (1 - 1e-9)
    assert model.estimate_decode_time(seqs + 1, context) >= decode
    assert model.estimate_decode_time(seqs, context + 1) >= decode


def test_every_shipped_calibration_prices_a_model() -> None:
    assert shipped_names() == [
        "a100-80-sxm",
        "h100-sxm",
        "h200-sxm",
        "l40s",
        "rtx-4090",
        "rtx-pro-6000",
    ]
    weights = 2 * (load_model("llama-3.1-8b").parameter_count - 128256 * 4096)
    for name in shipped_names():
        model = shipped_model(name, "llama-3.1-8b", 1)
        seconds = model.estimate_decode_time(1, 1024)
        bandwidth = weights / seconds
        peak = model.xpu.memory_bytes_per_s
        assert peak is not None
        # Decode at batch 1 is bound by reading the weights: 60 to 100 % of the peak bandwidth.
        assert 0.6 * peak < bandwidth < peak, name
