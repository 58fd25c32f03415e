"""Time the operations of a model with PyTorch on whatever device is there, as op tables.

    python -m vllm_benchmarks breakdown --model llama-7b --output tables/
    python -m llm_inference_simulator calibrate --from-op-tables tables/ --xpu h100 --output k.json

Writes ``gemm_perf``, ``context_attention_perf``, ``generation_attention_perf``, ``norm_perf`` and,
where there are several GPUs, ``nccl_perf``; latencies are milliseconds, the median of repeats.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_inference_simulator.capacity import check_tensor_parallel_size
from llm_inference_simulator.catalog import ModelSpec, load_model
from llm_inference_simulator.cli.arguments import Parser, whole_number
from llm_inference_simulator.config import EngineConfig
from llm_inference_simulator.errors import ConfigError, SimulatorError
from llm_inference_simulator.performance_models.composition import compose
from llm_inference_simulator.performance_models.operations import Attention, Composition, Gemm
from llm_inference_simulator.performance_models.weight_formats import WeightFormats
from llm_inference_simulator.tables import check_table_path, write_table
from vllm_benchmarks.runners.torch_device import TorchDevice

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
PREFILLS = ((1, 128), (1, 512), (1, 2048), (1, 8192), (4, 512), (4, 2048))
CACHED = (0, 2048, 8192)
DECODE_BATCHES = (1, 4, 16, 64, 256)
CONTEXTS = (64, 512, 2048, 8192)
MESSAGES = tuple(2**power for power in range(10, 28, 2))

Row = dict[str, Any]
Heads = tuple[int, int, int]


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
    _require_known_operations(model)
    check_table_path(folder / "gemm_perf.parquet", "--output")
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
        path = folder / f"{name}.parquet"
        columns = {key: np.array([row[key] for row in measured]) for key in measured[0]}
        write_table(columns, path, name)
        print(f"{path}: {len(measured)} rows")
    return 0


def _require_known_operations(model: ModelSpec) -> None:
    """Latent attention and routed experts are kernels of their own, which PyTorch does not have."""
    for part, kernels in ((model.mla, "latent attention (MLA)"), (model.moe, "routed experts")):
        if part is not None:
            raise ConfigError(
                f"--model {model.name} has {kernels}, which breakdown cannot time: choose a model "
                "without, or calibrate from step logs (scripts/run_calibration.py)"
            )


def _composition(model: ModelSpec, ranks: int) -> Composition:
    """What a step of the model is made of, in 16 bits."""
    return compose(
        model,
        EngineConfig(),
        WeightFormats(None, "bfloat16", "bfloat16"),
        ranks,
        max_model_len=model.max_position_embeddings,
    )


def gemms(device: TorchDevice, model: ModelSpec, ranks: int, most: int) -> Iterator[Row]:
    """Every matrix product of a layer and the LM head, by tokens: (m, k) times (k, n)."""
    operations = _composition(model, ranks).operations
    # Vocabularies that the ranks do not divide are padded.
    shapes = {
        (math.ceil(each.shape.n), math.ceil(each.shape.k))
        for each in operations
        if isinstance(each.shape, Gemm)
    }
    for n, k in sorted(shapes):
        for m in TOKENS:
            if m <= most:
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
                for heads in _heads(model, ranks):
                    yield _attention(device, heads, batch=batch, length=length, cached=cached)


def decode_attention(device: TorchDevice, model: ModelSpec, ranks: int, most: int) -> Iterator[Row]:
    """Attention of one new token a sequence."""
    for batch in DECODE_BATCHES:
        for context in CONTEXTS:
            if batch * context <= 16 * most:
                for heads in _heads(model, ranks):
                    yield _attention(device, heads, batch=batch, length=1, cached=context - 1)


def _heads(model: ModelSpec, ranks: int) -> list[Heads]:
    """A rank's (query heads, key-value heads, head size); layers may differ."""
    operations = _composition(model, ranks).operations
    found = {
        (
            math.ceil(each.shape.num_query_heads),
            math.ceil(each.shape.num_key_value_heads),
            each.shape.head_dim,
        )
        for each in operations
        if isinstance(each.shape, Attention)
    }
    return sorted(found)


def _attention(device: TorchDevice, sizes: Heads, *, batch: int, length: int, cached: int) -> Row:
    heads, shared, head_dim = sizes
    return {
        **device.columns("generation_attention" if length == 1 else "context_attention"),
        "batch_size": batch,
        "isl": length,
        "num_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": head_dim,
        "beam_width": 1,
        "attn_dtype": device.dtype_name,
        "kv_cache_dtype": device.dtype_name,
        "step": cached,
        "window_size": 0,
        "latency": device.attention_ms(
            batch, length, cached, heads=heads, shared=shared, head_dim=head_dim
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
                # As others publish it: 16-bit numbers, not bytes.
                "message_size": size // 2,
                "latency": latency,
            }
        ranks *= 2
