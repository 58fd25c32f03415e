"""The subcommands ``models`` and ``xpus``: list the catalogues and show their entries."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_inference_simulator.catalog.model_spec import ModelSpec
    from llm_inference_simulator.catalog.xpu_spec import XpuSpec

Rows = Sequence[Sequence[str]]


def add_models_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``models [NAME] [--json]``; the handler is in ``args.run``."""
    parser = subparsers.add_parser(
        "models",
        help="list the models, or show one",
        description="List the models of the catalogue, or show one with its parameters.",
    )
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="catalogue name, alias, Hugging Face id, config.json or the folder that holds it",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_models)


def add_xpus_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``xpus [NAME] [--json]``; the handler is in ``args.run``."""
    parser = subparsers.add_parser(
        "xpus",
        help="list the accelerators, or show one",
        description="List the accelerators of the catalogue, or show one with its sources.",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="catalogue name, alias or YAML file"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_xpus)


def run_models(args: argparse.Namespace) -> int:
    """Handle ``models``; returns the exit code."""
    from llm_inference_simulator.catalog.models import list_models, load_model

    if args.name is not None:
        spec = load_model(args.name)
        if args.json:
            _print_json(_model_details(spec))
        else:
            _show_model(spec)
        return 0
    models = [(entry, load_model(entry.name)) for entry in list_models()]
    if args.json:
        _print_json(
            [
                {
                    "name": entry.name,
                    "huggingface": entry.huggingface,
                    "aliases": list(entry.aliases),
                    "parameters": spec.parameter_count,
                    "active_parameters": spec.active_parameter_count,
                    "max_position_embeddings": spec.max_position_embeddings,
                    "kv_bytes_per_token": spec.kv_bytes_per_token(),
                }
                for entry, spec in models
            ]
        )
        return 0
    print_table(
        ("name", "parameters", "active", "context", "KV KiB/token", "aliases"),
        [
            (
                entry.name,
                _billions(spec.parameter_count),
                _billions(spec.active_parameter_count),
                f"{spec.max_position_embeddings:,}",
                f"{spec.kv_bytes_per_token() / 1024:.1f}",
                ", ".join((*entry.aliases, entry.huggingface)),
            )
            for entry, spec in models
        ],
        right=(1, 2, 3, 4),
    )
    return 0


def run_xpus(args: argparse.Namespace) -> int:
    """Handle ``xpus``; returns the exit code."""
    from llm_inference_simulator.catalog.xpus import list_xpus, load_xpu

    if args.name is not None:
        spec = load_xpu(args.name)
        if args.json:
            _print_json(_xpu_details(spec))
        else:
            _show_xpu(spec)
        return 0
    specs = list_xpus()
    if args.json:
        _print_json([_xpu_details(spec) for spec in specs])
        return 0
    print_table(
        ("name", "BF16 TFLOPS", "FP8", "FP4", "memory GB", "GB/s", "link GB/s", "TDP W", "aliases"),
        [
            (
                spec.name,
                _number(spec.bf16_flops, 1e12),
                _number(spec.fp8_flops, 1e12),
                _number(spec.fp4_flops, 1e12),
                _number(spec.memory_bytes, 1e9),
                _number(spec.memory_bytes_per_s, 1e9),
                _number(spec.link_bytes_per_s, 1e9),
                _number(spec.tdp_w, 1),
                ", ".join(spec.aliases),
            )
            for spec in specs
        ],
        right=(1, 2, 3, 4, 5, 6, 7),
    )
    return 0


def _show_model(spec: ModelSpec) -> None:
    facts = [
        ("model", spec.name),
        ("architecture", spec.model_type),
        ("layers", str(spec.num_layers)),
        ("hidden size", f"{spec.hidden_size:,}"),
        ("attention", _attention_text(spec)),
        ("MLP", f"{spec.intermediate_size:,}{', gated' if spec.gated_mlp else ''}"),
        ("experts", _experts_text(spec)),
        ("vocabulary", f"{spec.vocab_size:,}{', tied' if spec.tie_word_embeddings else ''}"),
        ("context", f"{spec.max_position_embeddings:,} tokens"),
        ("windows", _windows_text(spec)),
        ("weights", _weights_text(spec)),
        ("KV cache", f"{spec.kv_bytes_per_token() / 1024:.1f} KiB a token in 16 bits"),
    ]
    print_table((), facts)
    print()
    counts = spec.parameters()
    rows = [(name, f"{count:,}", f"{count / spec.parameter_count:.1%}") for name, count in
            counts.items()]  # fmt: skip
    rows.append(("total", f"{spec.parameter_count:,}", "100.0%"))
    if spec.active_parameter_count != spec.parameter_count:
        share = spec.active_parameter_count / spec.parameter_count
        rows.append(("active", f"{spec.active_parameter_count:,}", f"{share:.1%}"))
    print_table(("component", "parameters", "share"), rows, right=(1, 2))


def _attention_text(spec: ModelSpec) -> str:
    if spec.mla is not None:
        sparse = ", sparse with an indexer" if spec.mla.index_num_heads else ""
        return (
            f"{spec.num_attention_heads} heads, latent of {spec.mla.kv_lora_rank} + "
            f"{spec.mla.qk_rope_head_dim}{sparse}"
        )
    text = (
        f"{spec.num_attention_heads} heads, {spec.num_key_value_heads} KV heads of {spec.head_dim}"
    )
    if spec.global_heads is not None:
        heads = spec.global_heads
        text += f"; full layers {heads.num_key_value_heads} KV heads of {heads.head_dim}"
    return text


def _experts_text(spec: ModelSpec) -> str:
    if spec.moe is None:
        return "none"
    shared = spec.moe.shared_intermediate_size
    return (
        f"{spec.moe.top_k} of {spec.moe.num_experts} of {spec.moe.intermediate_size:,} in "
        f"{sum(spec.moe.layers)} layers" + (f", shared {shared:,}" if shared else "")
    )


def _windows_text(spec: ModelSpec) -> str:
    if not spec.windowed_layers:
        return "none"
    return f"{spec.window:,} tokens in {spec.windowed_layers} of {spec.num_layers} layers"


def _weights_text(spec: ModelSpec) -> str:
    size = f"{spec.weight_bytes() / 1e9:.1f} GB in {spec.dtype}"
    if spec.quantization is None:
        return size
    return f"{size}, {spec.quantization.format} in {', '.join(spec.quantization.components)}"


def _show_xpu(spec: XpuSpec) -> None:
    from llm_inference_simulator.catalog.xpu_spec import FIGURES

    print(f"{spec.name}: {spec.description} ({spec.vendor})")
    print(f"also: {', '.join(spec.aliases) or 'no aliases'}\n")
    rows = []
    for key, figure in FIGURES.items():
        value = getattr(spec, figure.field)
        if key in spec.sources:
            rows.append((key, f"{value / figure.scale:.6g}", figure.meaning, spec.sources[key]))
        else:
            rows.append((key, "-", figure.meaning, ""))
    print_table(("figure", "value", "meaning", "source"), rows, right=(1,))
    if spec.prices:
        print()
        print_table(
            ("price", "USD/hour", "date", "source"),
            [(p.tier, f"{p.usd_per_hour:.3g}", p.date, p.source) for p in spec.prices],
            right=(1,),
        )


def _model_details(spec: ModelSpec) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(spec),
        "parameters": spec.parameters(),
        "parameter_count": spec.parameter_count,
        "active_parameter_count": spec.active_parameter_count,
        "weight_bytes": spec.weight_bytes(),
        "kv_bytes_per_token": spec.kv_bytes_per_token(),
    }


def _xpu_details(spec: XpuSpec) -> dict[str, Any]:
    from dataclasses import asdict, fields

    details = {f.name: getattr(spec, f.name) for f in fields(spec)}
    details["prices"] = [asdict(price) for price in spec.prices]
    details["sources"] = dict(spec.sources)
    return details


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f}B"


def _number(value: float | None, scale: float) -> str:
    return "-" if value is None else f"{value / scale:,.5g}"


def _print_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def print_table(header: Sequence[str], rows: Rows, right: Sequence[int] = ()) -> None:
    """Print rows in columns: folded to a terminal's width, whole lines in a pipe."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(
        box=box.SIMPLE_HEAD if terminal and header else None,
        show_header=bool(header),
        pad_edge=False,
        show_edge=False,
    )
    for index in range(len(rows[0])):
        table.add_column(
            header[index] if header else "",
            justify="right" if index in right else "left",
            overflow="fold",
            no_wrap=not terminal,
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if terminal:
        Console(highlight=False).print(table)
        return
    # A console wide enough for the longest line cuts nothing; lines then lose their padding.
    width = 4 * len(rows[0]) + sum(map(len, header))
    width += sum(max(len(row[index]) for row in rows) for index in range(len(rows[0])))
    text = io.StringIO()
    Console(file=text, width=width, highlight=False).print(table)
    for line in text.getvalue().splitlines():
        print(line.rstrip())
