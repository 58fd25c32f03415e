"""The model whose configuration vLLM wants: the user's or a tiny one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llm_inference_simulator.errors import ConfigError

TINY_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "rms_norm_eps": 1e-05,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""One layer of full attention: decisions depend on lengths, not on what a model computes."""


@contextmanager
def model_folder(given: Path | None, vocabulary: int, longest: int) -> Iterator[Path]:
    """The folder of the model's ``config.json``: the user's or a tiny one."""
    if given is not None:
        if not (given / "config.json").is_file():
            raise ConfigError(f"--model {given} holds no config.json: give a model's folder")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="record_decisions.") as name:
        sizes = {"vocab_size": vocabulary, "max_position_embeddings": longest}
        (Path(name) / "config.json").write_text(json.dumps({**TINY_MODEL, **sizes}))
        yield Path(name)
