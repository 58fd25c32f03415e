"""Op tables from PyTorch: their columns and shapes; and what is said without PyTorch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from llm_inference_simulator.catalog import load_model
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


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_of_a_ranks_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown, "TorchDevice", Device)
    words = ["--model", "llama-3.1-8b", "--output", str(tmp_path / "t"), "--format", "csv"]
    assert breakdown.main([*words, "-tp", "2", "--max-tokens", "4096"]) == 0
    for name, columns in COLUMNS.items():
        assert set(read(tmp_path / "t" / f"{name}.csv")[0]) == ORIGIN | columns, name
    shapes = {(int(row["n"]), int(row["k"])) for row in read(tmp_path / "t" / "gemm_perf.csv")}
    # 32 heads and 8 key-value heads of 128, MLP of 14,336, vocabulary of 128,256, over two ranks.
    assert shapes == {(3072, 4096), (4096, 2048), (14336, 4096), (4096, 7168), (64128, 4096)}
    attention = read(tmp_path / "t" / "generation_attention_perf.csv")
    assert {(row["isl"], row["num_heads"], row["num_key_value_heads"]) for row in attention} == {
        ("1", "16", "4")
    }
    # A decode of context c has c - 1 tokens in the cache.
    assert {int(row["step"]) + 1 for row in attention} == set(breakdown.CONTEXTS)
    nccl = read(tmp_path / "t" / "nccl_perf.csv")
    assert {row["num_gpus"] for row in nccl} == {"2", "4"}


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
    words = ["--model", "llama-3.2-1b", "--max-tokens", "256", "--format", "csv"]
    assert breakdown.main([*words, "--output", str(tmp_path)]) == 0
    times: dict[tuple[int, int], list[float]] = {}
    for row in read(tmp_path / "gemm_perf.csv"):
        times.setdefault((int(row["n"]), int(row["k"])), []).append(float(row["latency"]))
    hidden = load_model("llama-3.2-1b").hidden_size
    assert all(shape[1] >= hidden for shape in times)
    assert all(values[-1] > values[0] > 0 for values in times.values())
