"""Command lines of ``vllm serve`` and ``vllm bench serve`` as the words of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_inference_simulator.config import SimulatorConfig
    from llm_inference_simulator.vllm_words.translation import Translation


def config_from_vllm(
    serve: str | None = None,
    bench: str | None = None,
    *,
    xpu: str,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[SimulatorConfig, Translation]:
    """Build the configuration of a vLLM server, of a benchmark's load, or of both.

    ``serve`` and ``bench`` are command lines as a shell takes them, ``xpu`` names the accelerator,
    which they don't. ``overrides`` maps places of the configuration to values that win:
    ``{"engine.max_num_seqs": 64, "model": "llama-3.1-8b"}``. What is left open is vLLM's default on
    that accelerator. The translation says what was ignored and filled in; its ``provenance()`` goes
    into a result by ``simulate(config, provenance={"from_vllm": translation.provenance()})``.

    Raises :class:`ConfigError` for a line that is none of vLLM's and for a flag that is unknown or
    asks for what is not simulated.
    """
    from llm_inference_simulator.cli.run_config import build_config
    from llm_inference_simulator.vllm_words.translation import translate

    translation = translate(serve, bench)
    return build_config({"xpu": xpu, **(overrides or {})}, translation), translation
