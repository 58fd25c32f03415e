"""Translates a command line of ``vllm serve``."""

from __future__ import annotations

import re
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.vllm_words.arguments import parse_arguments
from llm_inference_simulator.vllm_words.command_line import read_serve_command
from llm_inference_simulator.vllm_words.flags import whole_or_suffixed
from llm_inference_simulator.vllm_words.serve_flags import serve_flags
from llm_inference_simulator.vllm_words.words import Words, sort_flags

LABEL = "--from-vllm"

_DTYPES = {
    "auto": "auto",
    "half": "float16",
    "float16": "float16",
    "bfloat16": "bfloat16",
}
_KV_DTYPES = {
    "auto": "auto",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}
_GENERATION_CONFIGS = {"auto": "auto", "vllm": "vllm"}
_PLAIN_SAMPLING = {"temperature", "top_p", "top_k", "min_p", "max_new_tokens", "seed"}
"""Sampling parameters that leave the length of a step as it is."""
_PLAIN_COMPILATION: dict[str, tuple[Any, ...]] = {
    "mode": (3, "3", "VLLM_COMPILE"),
    "level": (3, "3"),
    "backend": ("inductor", ""),
    "cudagraph_mode": ("FULL_AND_PIECEWISE", "full_and_piecewise"),
}
"""What -O2, the default, sets anyway."""
_IDLE_COMPILATION = {"cache_dir", "debug_dump_path", "compile_cache_save_format"}
_HARMLESS_VARIABLE = re.compile(
    r"(?!VLLM_).*|VLLM_(USE_V1|.*(LOG|HOST|PORT|API_KEY|CACHE_ROOT|CONFIG_ROOT|ASSETS|DEBUG|TRACE"
    r"|USAGE|DO_NOT_TRACK|WORKER_MULTIPROC_METHOD|TARGET_DEVICE|TIMEOUT|ALLOW_LONG_MAX_MODEL_LEN"
    r"|RPC|MODELSCOPE|SLEEP|SERVER_DEV_MODE|PLUGINS|DP_|HTTP).*)"
)


def read_serve_line(line: str) -> Words:
    """Translate a line; raises :class:`ConfigError` naming the flag that is wrong or refused.

    ``vllm.performance_mode`` and ``vllm.own_router`` stay among the places: what they mean hangs on
    the accelerator and on other flags.
    """
    command = read_serve_command(line, LABEL)
    flags = serve_flags()
    given, loose = parse_arguments(command.arguments, flags, LABEL)
    words = Words(LABEL, line)
    _add_model(words, given, loose)
    sort_flags(words, given, flags)
    _read_environment(words, command.environment)
    words.choose("engine.dtype", _DTYPES)
    words.choose("engine.kv_cache_dtype", _KV_DTYPES)
    words.choose("engine.generation_config", _GENERATION_CONFIGS)
    _translate_context(words)
    _translate_optimisation(words)
    _translate_sampling(words)
    _translate_multimodal_limits(words)
    _translate_nodes(words)
    return words


def _add_model(words: Words, given: dict[str, Any], loose: list[str]) -> None:
    if len(loose) > 1:
        raise ConfigError(
            f"{LABEL}: unexpected word {loose[1]!r}: vllm serve takes one model, here {loose[0]!r}"
        )
    if loose:
        words.put("model", loose[0], "model")
        given.pop("--model", None)


def _read_environment(words: Words, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        legacy = name == "VLLM_USE_V1" and value == "0"
        if legacy or not _HARMLESS_VARIABLE.fullmatch(name):
            why = "V0 is gone" if legacy else "it may choose other kernels or another scheduler"
            raise words.refuse(f"{name}={value}", True, why)
        words.ignored.append(name)


def _translate_context(words: Words) -> None:
    """``auto`` and -1 mean what memory holds, which is what we take where nothing is given."""
    text = words.places.get("engine.max_model_len")
    if text is None:
        return
    if text.casefold() in ("auto", "-1"):
        del words.places["engine.max_model_len"], words.spellings["engine.max_model_len"]
    else:
        words.places["engine.max_model_len"] = whole_or_suffixed(text, f"{LABEL}: --max-model-len")


def _translate_optimisation(words: Words) -> None:
    level = words.take("optimization_level")
    if level is not None:
        if str(level).upper().removeprefix("O") not in ("2", "3"):
            raise words.refuse(
                "-O", level, "step times are those of the default -O2, which -O3 equals"
            )
        words.ignored.append("--optimization-level")
    compilation = words.take("compilation_config")
    if compilation is None:
        return
    if isinstance(compilation, int):
        compilation = {"mode": compilation}
    if not isinstance(compilation, dict):
        raise ConfigError(f"{LABEL}: --compilation-config {compilation!r} is not a JSON object")
    for key, value in compilation.items():
        if key not in _IDLE_COMPILATION and value not in _PLAIN_COMPILATION.get(key, ()):
            raise words.refuse(
                f"--compilation-config.{key}",
                value,
                "step times are those of the kernels and CUDA graphs that vLLM chooses itself",
            )
    words.ignored.append("--compilation-config")


def _translate_sampling(words: Words) -> None:
    override = words.take("override_generation_config")
    if override is None:
        return
    if not isinstance(override, dict):
        raise ConfigError(f"{LABEL}: --override-generation-config {override!r} is not an object")
    for key, value in override.items():
        if key == "repetition_penalty" and value == 1:
            # The penalty is all that we take of the model's own generation_config.json.
            words.put("engine.generation_config", "vllm", "--override-generation-config")
        elif key not in _PLAIN_SAMPLING:
            why = "what it adds to sampling is not modelled"
            raise words.refuse(f"--override-generation-config.{key}", value, why)
    words.ignored.append("--override-generation-config")


def _translate_multimodal_limits(words: Words) -> None:
    limits = words.take("limit_mm_per_prompt")
    if limits is None:
        return
    if not isinstance(limits, dict) or 0 in limits.values():
        raise words.refuse(
            "--limit-mm-per-prompt", limits, "memory is planned with the model's vision tower"
        )
    words.ignored.append("--limit-mm-per-prompt")


def _translate_nodes(words: Words) -> None:
    """``--nnodes`` says over how many nodes the accelerators of the line are spread."""
    nodes = words.places.get("cluster.n_nodes")
    if nodes is None:
        return
    flag = "--nnodes"
    if nodes == 1:
        del words.places["cluster.n_nodes"], words.spellings["cluster.n_nodes"]
        return
    total = 1
    for axis in ("tensor", "pipeline", "data"):
        total *= int(words.places.get(f"cluster.{axis}_parallel_size", 1))
    if nodes < 1 or total % nodes:
        raise ConfigError(
            f"{LABEL}: {flag} {nodes}: the {total} accelerators of the line do not divide into so "
            "many nodes"
        )
    words.put("cluster.n_xpus_per_node", total // nodes, flag)
