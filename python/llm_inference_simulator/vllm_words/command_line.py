"""From a command line as people have it, out of a shell, a script or a README, to its words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from llm_inference_simulator.errors import ConfigError

_SERVE_MODULES = ("vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server")
_MAIN_MODULE = "vllm.entrypoints.cli.main"
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_IMAGE = re.compile(r"(?:[\w.:-]+/)*vllm[\w.-]*(?::[\w.-]+)?(?:@sha256:\w+)?")
_CONTAINERS = ("docker", "podman", "nerdctl")
_ENDS = ("&", "&&", "|", "||", ";")
_REDIRECTION = re.compile(r"(?:\d*|&)(?:>>?|<)(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """What follows the program's name, and the environment given before it."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def read_serve_command(line: str, flag: str) -> Command:
    """Find the arguments of ``vllm serve`` in ``line``; :class:`ConfigError` if it is another."""
    words = _split(line, flag)
    for index, word in enumerate(words):
        module = words[index + 1] if word == "-m" and index + 1 < len(words) else ""
        if module in _SERVE_MODULES:
            return _command(words, index, index + 2)
        if module == _MAIN_MODULE and words[index + 2 : index + 3] == ["serve"]:
            return _command(words, index, index + 3)
        if PurePath(word).name == "vllm" and words[index + 1 : index + 2] == ["serve"]:
            return _command(words, index, index + 2)
        # The image's entry point is `vllm serve`; older ones took the same flags.
        if index and _IMAGE.fullmatch(word) and _starts_container(words[:index]):
            skip = 3 if words[index + 1 : index + 3] == ["vllm", "serve"] else 1
            return _command(words, index, index + skip)
    raise ConfigError(
        f"{flag}: {_shown(line)} is not a command line of vllm serve: give it as in {flag} 'vllm "
        "serve meta-llama/Llama-3.1-8B -tp 2'"
    )


def read_bench_command(line: str, flag: str) -> Command:
    """Find the arguments of ``vllm bench serve`` in ``line``; :class:`ConfigError` else."""
    words = _split(line, flag)
    for index, word in enumerate(words):
        if words[index + 1 : index + 3] == ["bench", "serve"] and (
            PurePath(word).name == "vllm" or word == _MAIN_MODULE
        ):
            return _command(words, index, index + 3)
        if PurePath(word).name == "benchmark_serving.py":
            return _command(words, index, index + 1)
    raise ConfigError(
        f"{flag}: {_shown(line)} is not a command line of vllm bench serve: give it as in {flag} "
        "'vllm bench serve --random-input-len 2048 --request-rate 4'"
    )


def _split(line: str, flag: str) -> list[str]:
    """Divide a line into words as a POSIX shell does."""
    joined = re.sub(r"\\[ \t]*\r?\n", " ", line).strip().removesuffix("\\")
    try:
        return shlex.split(joined)
    except ValueError as error:
        problem = "a quotation mark is not closed" if "quotation" in str(error) else str(error)
        raise ConfigError(f"{flag}: {_shown(line)}: {problem}") from None


def _command(words: Sequence[str], program: int, first: int) -> Command:
    environment = {
        match[1]: match[2] for word in words[:program] if (match := _ASSIGNMENT.fullmatch(word))
    }
    return Command(tuple(_until_the_end(words[first:])), environment)


def _until_the_end(words: Sequence[str]) -> list[str]:
    """Leave out redirections, and whatever the shell would take for another command."""
    kept: list[str] = []
    target_follows = False
    for word in words:
        if target_follows:
            target_follows = False
            continue
        if word in _ENDS:
            break
        redirection = _REDIRECTION.fullmatch(word)
        if redirection is not None:
            target_follows = not redirection["rest"]
            continue
        kept.append(word)
    return kept


def _starts_container(words: Sequence[str]) -> bool:
    return any(PurePath(word).name in _CONTAINERS for word in words) and "run" in words


def _shown(line: str) -> str:
    text = " ".join(line.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")
