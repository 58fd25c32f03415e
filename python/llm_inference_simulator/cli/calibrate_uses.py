"""Which sources of ``calibrate`` use which flag; a flag that nothing would use is refused."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping

from llm_inference_simulator.errors import ConfigError

DERIVE = "model"
"""Stands for --model with kernel tables: the rates of that model are derived from them."""

_STEPS, _BENCH = "from_steps", "from_bench"
_KERNELS = ("from_op_tables", "from_kernel_profiles")
_ENGINE = (_STEPS, _BENCH)

USES: Mapping[str, tuple[str, ...]] = {
    "warm_up_steps": (_STEPS,),
    "bootstrap_samples": (_STEPS, DERIVE),
    "input_len": (_BENCH,),
    "output_len": (_BENCH,),
    "batch_size": (_BENCH,),
    "overheads_from": _KERNELS,
    "tensor_parallel_size": (*_ENGINE, DERIVE),
    "dtype": (*_ENGINE, DERIVE),
    "quantization": (*_ENGINE, DERIVE),
    "kv_cache_dtype": (*_ENGINE, DERIVE),
    "max_num_batched_tokens": (*_ENGINE, DERIVE),
    "max_num_seqs": _ENGINE,
    "max_model_len": _ENGINE,
    "block_size": _ENGINE,
    "num_gpu_blocks_override": _ENGINE,
    "enable_prefix_caching": _ENGINE,
    "async_scheduling": _ENGINE,
}
"""Sources by flag; flags that are not here go with all of them."""


def refuse_unused(arguments: argparse.Namespace, sources: Collection[str]) -> None:
    """Raise :class:`ConfigError` for a flag that none of ``sources`` uses."""
    used = set(sources)
    if arguments.model is not None and not used & set(_ENGINE):
        used.add(DERIVE)
    for name, users in USES.items():
        if getattr(arguments, name) is None or used & set(users):
            continue
        flags = " or ".join(
            "--model with kernel tables" if user == DERIVE else _flag(user) for user in users
        )
        raise ConfigError(f"{_flag(name)} goes with {flags}: leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
