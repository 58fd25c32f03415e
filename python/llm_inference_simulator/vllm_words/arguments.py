"""Reads the arguments of vLLM's programs as vLLM's own parser does.

That is argparse, abbreviations of long names included, and before it: underscores in names are
dashes, ``-O3`` is ``--optimization-level 3``, ``--config FILE.yaml`` stands for the flags in the
file, and ``--json-flag.key.key value`` for a JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from llm_inference_simulator.cli.arguments import token_count
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping
from llm_inference_simulator.vllm_words.flags import VllmFlag

_DOTTED = re.compile(
    r"(?P<flag>-{1,2}[A-Za-z][\w-]*)\.(?P<keys>[^=]+?)(?P<list>\+)?(?:=(?P<v>.*))?"
)


class _VllmParser(argparse.ArgumentParser):
    """argparse, with an error of ours for every complaint."""

    def __init__(self, label: str) -> None:
        super().__init__(prog=label, add_help=False)

    def error(self, message: str) -> NoReturn:
        complaint = message.removeprefix("argument ")
        ignored = re.fullmatch(r"(\S+): ignored explicit argument (.+)", complaint)
        if ignored is not None:
            names = ignored[1].replace("/", " or ")
            complaint = f"{names} takes no value, not {ignored[2]}"
        raise ConfigError(f"{self.prog}: {complaint}")


def parse_arguments(
    arguments: Sequence[str], flags: Sequence[VllmFlag], label: str
) -> tuple[dict[str, Any], list[str]]:
    """Values by the long names of the flags that were given, and the words without a flag.

    ``label`` is the flag of ours that the line was given with. Raises :class:`ConfigError` for an
    unknown flag, with the nearest one, and for a value that the flag cannot have.
    """
    parser = _VllmParser(label)
    for flag in flags:
        flag.add_to(parser)
    words = _normalise(_with_config_file(arguments, flags, label))
    given, extra = parser.parse_known_args(_with_objects(words, label))
    for flag in flags:
        # argparse makes an empty list of `--flag=--`.
        takes_one = flag.takes and flag.takes != "JSON" and "..." not in flag.takes
        if takes_one and isinstance(getattr(given, flag.name, None), list):
            raise ConfigError(f"{label}: {flag.name}: expected one argument")
    unknown = [word for word in extra if word.startswith("-") and word not in ("-", "--")]
    if unknown:
        known = [name for flag in flags for name in _spellings(flag)]
        name = unknown[0].split("=")[0]
        near = [other for other in known if other.startswith("--") == name.startswith("--")]
        raise ConfigError(f"{label}: {unknown_name('flag of vLLM', name, near)}")
    return vars(given), [word for word in extra if word != "--"]


def _spellings(flag: VllmFlag) -> tuple[str, ...]:
    if not flag.negatable:
        return flag.names
    return (*flag.names, f"--no-{flag.name.removeprefix('--')}")


def _normalise(arguments: Sequence[str]) -> list[str]:
    """Dashes for underscores in names, and the long form of ``-O``."""
    words: list[str] = []
    for index, word in enumerate(arguments):
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if word.startswith("--"):
            # Keys after a dot keep their underscores.
            name = re.match(r"--[^.=]*", word)
            end = name.end() if name else 0
            words.append(word[:end].replace("_", "-") + word[end:])
        elif word == "-O" and following in ("0", "1", "2", "3"):
            words.append("--optimization-level")
        elif word.startswith("-O") and word != "-O":
            words += ["--optimization-level", word[2:].removeprefix("=")]
        else:
            words.append(word)
    return words


def _with_config_file(arguments: Sequence[str], flags: Sequence[VllmFlag], label: str) -> list[str]:
    """Put the flags of ``--config FILE`` before all others, which therefore override them."""
    words = list(arguments)
    index = next((i for i, word in enumerate(words) if word.split("=")[0] == "--config"), None)
    if index is None:
        return words
    _, equals, file = words[index].partition("=")
    if not equals:
        if index + 1 == len(words):
            raise ConfigError(f"{label}: --config: expected one argument")
        file = words[index + 1]
    rest = words[:index] + words[index + (1 if equals else 2) :]
    content = read_mapping(Path(file), f"{label} --config")
    model = content.pop("model", None) or content.pop("model_tag", None)
    if model is not None and not (rest and not rest[0].startswith("-")):
        rest = [str(model), *rest]
    leading = rest[:1] if rest and not rest[0].startswith("-") else []
    return [*leading, *_flags_of_file(content, flags), *rest[len(leading) :]]


def _flags_of_file(content: Mapping[str, Any], flags: Sequence[VllmFlag]) -> list[str]:
    negatable = {flag.name for flag in flags if flag.negatable}
    words: list[str] = []
    for key, value in content.items():
        name = f"--{str(key).replace('_', '-')}"
        if isinstance(value, bool):
            if value:
                words.append(name)
            elif name in negatable:
                words.append(f"--no-{name.removeprefix('--')}")
        elif isinstance(value, list):
            words += [name, *map(str, value)] if value else []
        elif isinstance(value, Mapping):
            words += [name, json.dumps(value)]
        else:
            words += [name, str(value)]
    return words


def _with_objects(words: Sequence[str], label: str) -> list[str]:
    """Gather ``--flag.key value`` into one JSON object a flag, put at the end."""
    kept: list[str] = []
    objects: dict[str, dict[str, Any]] = {}
    remaining = iter(words)
    for word in remaining:
        match = _DOTTED.fullmatch(word)
        if match is None:
            kept.append(word)
            continue
        text = match["v"] if match["v"] is not None else next(remaining, None)
        if text is None:
            raise ConfigError(f"{label}: {word}: expected one argument")
        value = text.split(",") if match["list"] else _scalar(text)
        target = objects.setdefault(match["flag"], {})
        *parents, last = match["keys"].split(".")
        for key in parents:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{label}: {word}: {key!r} has a value already")
        both_lists = isinstance(value, list) and isinstance(target.get(last), list)
        target[last] = target[last] + value if both_lists else value
    for flag, content in objects.items():
        kept += [flag, json.dumps(content)]
    return kept


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        try:
            return token_count(text)
        except argparse.ArgumentTypeError:
            return text
