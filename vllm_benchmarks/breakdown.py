"""Time the operations of a model with PyTorch on whatever device is there, as op tables.

    python -m vllm_benchmarks breakdown --model llama-7b --output tables/

Writes ``gemm_perf``, ``context_attention_perf``, ``generation_attention_perf``, ``norm_perf`` and,
where there are several GPUs, ``nccl_perf``; latencies are milliseconds, the median of repeats.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_inference_simulator.capacity import check_tensor_parallel_size
from llm_inference_simulator.catalog import ModelSpec, load_model
from llm_inference_simulator.cli.arguments import Parser, whole_number
from llm_inference_simulator.errors import ConfigError, SimulatorError
from llm_inference_simulator.tables import check_table_path, write_table
from vllm_benchmarks.runners.torch_device import TorchDevice

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
PREFILLS = ((1, 128), (1, 512), (1, 2048), (1, 8192), (4, 512), (4, 2048))
CACHED = (0, 2048, 8192)
DECODE_BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (64, 512, 2048, 8192)
MESSAGES = tuple(2**power for power in range(10, 28, 2))

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = Parser(prog="python -m vllm_benchmarks breakdown", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="catalogue name, config.json or its folder")
    add("--output", required=True, type=Path, metavar="DIR", help="folder for the tables")
    add("--tensor-parallel-size", "-tp", type=whole_number, default=1, metavar="N",
        help="measure a rank's share of the model (default: 1)")  # fmt: skip
    text = "most tokens of a product or key-value pairs of a step (default: 8192)"
    add("--max-tokens", type=whole_number, default=8192, metavar="N", help=text)
    add("--format", choices=("parquet", "csv"), default="parquet", help="default: parquet")
    try:
        return _breakdown(parser.parse_all(sys.argv[1:] if argv is None else argv))
    except SimulatorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: finished tables are kept", file=sys.stderr)
        return 130
    except SystemExit as exit_:  # argparse's --help
        return exit_.code if isinstance(exit_.code, int) else 0


def _breakdown(arguments: argparse.Namespace) -> int:
    if arguments.max_tokens < 1:
        raise ConfigError(f"--max-tokens {arguments.max_tokens} must be at least 1")
    model = load_model(arguments.model)
    ranks = arguments.tensor_parallel_size
    check_tensor_parallel_size(model, ranks)
    folder: Path = arguments.output
    check_table_path(folder / f"gemm_perf.{arguments.format}", "--output")
    device = TorchDevice()
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "gemm_perf": gemms(device, model, ranks, arguments.max_tokens),
        "context_attention_perf": prefill_attention(device, model, ranks, arguments.max_tokens),
        "generation_attention_perf": decode_attention(device, model, ranks, arguments.max_tokens),
        "norm_perf": norms(device, model, arguments.max_tokens),
        "nccl_perf": all_reduces(device),
    }
    for name, rows in tables.items():
        measured = list(rows)
        if not measured:
            continue
        path = folder / f"{name}.{arguments.format}"
        columns = {key: np.array([row[key] for row in measured]) for key in measured[0]}
        write_table(columns, path, name)
        print(f"{path}: {len(measured)} rows")
    return 0


def gemms(device: TorchDevice, model: ModelSpec, ranks: int, most: int) -> Iterator[Row]:
    """Every matrix product of a layer and the LM head, by tokens: (m, k) times (k, n)."""
    query = model.num_attention_heads // ranks * model.head_dim
    key = max(1, model.num_key_value_heads // ranks) * model.head_dim
    hidden, width = model.hidden_size, model.intermediate_size // ranks
    shapes = {
        (query + 2 * key, hidden),
        (hidden, query),
        ((2 if model.gated_mlp else 1) * width, hidden),
        (hidden, width),
        (model.vocab_size // ranks, hidden),
    }
    for n, k in sorted(shapes):
        for m in TOKENS:
            if m <= most and n > 0 and k > 0:
                yield {
                    **device.columns("gemm"),
                    "gemm_dtype": device.dtype_name,
                    "m": m,
                    "n": n,
                    "k": k,
                    "latency": device.gemm_ms(m, n, k),
                }


def prefill_attention(
    device: TorchDevice, model: ModelSpec, ranks: int, most: int
) -> Iterator[Row]:
    """Causal attention of ``isl`` new tokens a sequence on ``step`` cached ones."""
    for batch, length in PREFILLS:
        for cached in CACHED:
            if batch * (length + cached) <= most:
                yield _attention(device, model, ranks, batch=batch, length=length, cached=cached)


def decode_attention(device: TorchDevice, model: ModelSpec, ranks: int, most: int) -> Iterator[Row]:
    """Attention of one new token a sequence."""
    for batch in DECODE_BATCHES:
        for context in CONTEXTS:
            if batch * context <= 16 * most:
                yield _attention(device, model, ranks, batch=batch, length=1, cached=context - 1)


def _attention(
    device: TorchDevice, model: ModelSpec, ranks: int, *, batch: int, length: int, cached: int
) -> Row:
    heads = model.num_attention_heads // ranks
    shared = max(1, model.num_key_value_heads // ranks)
    return {
        **device.columns("generation_attention" if length == 1 else "context_attention"),
        "batch_size": batch,
        "isl": length,
        "num_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": model.head_dim,
        "beam_width": 1,
        "attn_dtype": device.dtype_name,
        "kv_cache_dtype": device.dtype_name,
        "step": cached,
        "window_size": 0,
        "latency": device.attention_ms(
            batch, length, cached, heads=heads, shared=shared, head_dim=model.head_dim
        ),
    }


def norms(device: TorchDevice, model: ModelSpec, most: int) -> Iterator[Row]:
    """RMS normalisation of every token's hidden state."""
    for tokens in TOKENS:
        if tokens <= most:
            yield {
                **device.columns("rms_norm"),
                "norm_dtype": device.dtype_name,
                "num_tokens": tokens,
                "hidden_size": model.hidden_size,
                "latency": device.norm_ms(tokens, model.hidden_size),
            }


def all_reduces(device: TorchDevice) -> Iterator[Row]:
    """NCCL all-reduces over 2, 4, … of the machine's GPUs; nothing where there is one device."""
    ranks = 2
    while ranks <= device.count:
        for size, latency in device.all_reduce_ms(ranks, MESSAGES):
            yield {
                **device.columns("all_reduce", source="NCCL"),
                "nccl_dtype": "half",
                "num_gpus": ranks,
                "message_size": size,
                "latency": latency,
            }
        ranks *= 2
