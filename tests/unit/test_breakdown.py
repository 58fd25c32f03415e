"""Op tables from PyTorch: their columns and shapes; and what is said without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from llm_inference_simulator.calibration.kernel_calibration import KernelCalibration
from llm_inference_simulator.catalog import load_model
from llm_inference_simulator.cli import main
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.performance_models import OpTablePerformanceModel
from vllm_benchmarks import breakdown

ORIGIN = {"framework", "version", "device", "op_name", "kernel_source", "latency"}
COLUMNS = {
    "gemm_perf": {"gemm_dtype", "m", "n", "k"},
    "context_attention_perf": {
        "batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "beam_width",
        "attn_dtype", "kv_cache_dtype", "step", "window_size",
    },
    "nccl_perf": {"nccl_dtype", "num_gpus", "message_size"},
}  # fmt: skip
"""Of the tables that others publish (tests/golden knows their README)."""


class Device:
    """Gives the work of an operation as its time."""

    dtype_name = "bfloat16"
    count = 4

    def columns(self, operation: str, source: str = "torch") -> dict[str, str]:
        return {
            "framework": "torch",
            "version": "0",
            "device": "none",
            "op_name": operation,
            "kernel_source": source,
        }

    def gemm_ms(self, m: int, n: int, k: int) -> float:
        return float(m * n * k)

    def attention_ms(self, batch: int, length: int, cached: int, **_: int) -> float:
        return float(batch * length * (cached + length))

    def norm_ms(self, tokens: int, hidden: int) -> float:
        return float(tokens * hidden)

    def all_reduce_ms(self, ranks: int, sizes: tuple[int, ...]) -> list[tuple[int, float]]:
        return [(size, float(ranks * size)) for size in sizes]


class H100(Device):
    """An H100 at half of its peak of 989 TFLOPS, or 2.5 TB/s; sums at 100 GB/s."""

    def columns(self, operation: str, source: str = "torch") -> dict[str, str]:
        return super().columns(operation, source) | {"device": "NVIDIA H100 80GB HBM3"}

    def gemm_ms(self, m: int, n: int, k: int) -> float:
        return 1e3 * max(4 * m * n * k / 989e12, 2 * n * k / 2.5e12)

    def attention_ms(self, batch: int, length: int, cached: int, **_: int) -> float:
        return 0.01 + 2e-6 * batch * length * (cached + length)

    def norm_ms(self, tokens: int, hidden: int) -> float:
        return 0.002 + 1e3 * 4 * tokens * hidden / 2.5e12

    def all_reduce_ms(self, ranks: int, sizes: tuple[int, ...]) -> list[tuple[int, float]]:
        return [(size, 0.005 * ranks + 1e3 * size / 1e11) for size in sizes]


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_tables_of_a_ranks_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "TorchDevice", Device)
    words = ["--model", "llama-3.1-8b", "--output", str(tmp_path / "t")]
    assert breakdown.main([*words, "-tp", "2", "--max-tokens", "4096"]) == 0
    for name, columns in COLUMNS.items():
        assert set(read(tmp_path / "t" / f"{name}.parquet")[0]) == ORIGIN | columns, name
    shapes = {(int(row["n"]), int(row["k"])) for row in read(tmp_path / "t" / "gemm_perf.parquet")}
    # 32 heads and 8 key-value heads of 128, MLP of 14,336, vocabulary of 128,256, over two ranks.
    assert shapes == {(3072, 4096), (4096, 2048), (14336, 4096), (4096, 7168), (64128, 4096)}
    attention = read(tmp_path / "t" / "generation_attention_perf.parquet")
    assert {(row["isl"], row["num_heads"], row["num_key_value_heads"]) for row in attention} == {
        (1, 16, 4)
    }
    # A decode of context c has c - 1 tokens in the cache.
    assert {int(row["step"]) + 1 for row in attention} == set(breakdown.CONTEXTS)
    nccl = read(tmp_path / "t" / "nccl_perf.parquet")
    assert {row["num_gpus"] for row in nccl} == {2, 4}


def test_a_step_is_priced_by_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakdown, "TorchDevice", H100)
    tables, output = tmp_path / "t", tmp_path / "kernels.json"
    words = ["--model", "llama-3.1-8b", "--output", str(tables), "-tp", "2"]
    assert breakdown.main(words) == 0
    words = ["calibrate", "--from-op-tables", str(tables), "--xpu", "h100-sxm"]
    assert main([*words, "--output", str(output)]) == 0
    calibration = KernelCalibration.read(output)
    assert calibration.provenance["notes"] == []
    engine = EngineConfig(max_model_len=8192)
    model = OpTablePerformanceModel(
        "llama-3.1-8b", "h100-sxm", 2, calibration=calibration, engine=engine
    )
    parts = model.breakdown_decode(64, 512)
    for name, n, k in (
        ("qkv_projection", 3072, 4096), ("output_projection", 4096, 2048),
        ("mlp_up", 14336, 4096), ("mlp_down", 4096, 7168), ("lm_head", 64128, 4096),
    ):  # fmt: skip
        layers = 1 if name == "lm_head" else 32
        seconds = layers * H100().gemm_ms(64, n, k) / 1e3
        assert parts[name].seconds == pytest.approx(seconds, rel=1e-3), name
        assert parts[name].provenance == "measured"
    attention = 32 * H100().attention_ms(64, 1, 511) / 1e3
    assert parts["attention_decode"].seconds == pytest.approx(attention, rel=1e-3)
    # vLLM's norm adds the residual too: as many numbers as 128 tokens have without.
    assert parts["norms"].seconds == pytest.approx(65 * H100().norm_ms(128, 4096) / 1e3, rel=0.01)
    assert parts["norms"].provenance == "interpolated"
    # After the embedding, and twice a layer: 64 tokens of 4,096 numbers in 16 bits.
    sums = 65 * dict(H100().all_reduce_ms(2, (64 * 4096 * 2,)))[64 * 4096 * 2] / 1e3
    for priced in (parts, model.breakdown_prefill(1, 64)):
        assert priced["all_reduce"].seconds == pytest.approx(sums, rel=0.01)
        assert priced["all_reduce"].provenance == "measured"


@pytest.mark.parametrize(
    ("model", "part"), [("deepseek-v3", "latent attention"), ("qwen3-30b-a3b", "routed experts")]
)
def test_models_with_other_kernels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    model: str, part: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(breakdown, "TorchDevice", Device)
    assert breakdown.main(["--model", model, "--output", str(tmp_path / "t")]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: --model {model} has {part}")
    assert told.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_one_device_reduces_nothing() -> None:
    device: Any = Device()
    device.count = 1
    assert list(breakdown.all_reduces(device)) == []


def test_without_torch_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert breakdown.main(["--model", "llama-7b", "--output", str(tmp_path / "t")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: PyTorch is not installed")
    assert not (tmp_path / "t").exists()


@pytest.mark.vllm
def test_times_on_this_machine_grow_with_work(tmp_path: Path) -> None:
    words = ["--model", "llama-3.2-1b", "--max-tokens", "256"]
    assert breakdown.main([*words, "--output", str(tmp_path)]) == 0
    times: dict[tuple[int, int], list[float]] = {}
    for row in read(tmp_path / "gemm_perf.parquet"):
        times.setdefault((int(row["n"]), int(row["k"])), []).append(float(row["latency"]))
    hidden = load_model("llama-3.2-1b").hidden_size
    assert all(shape[1] >= hidden for shape in times)
    assert all(values[-1] > values[0] > 0 for values in times.values())
