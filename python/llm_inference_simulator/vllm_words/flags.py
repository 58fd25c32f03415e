"""What we know of a flag of vLLM: how it is written, and what becomes of it here.

Flags stand in tables, one a line, in the notation of a usage text::

    --tensor-parallel-size -tp N -> cluster.tensor_parallel_size
    --[no-]enable-lora = off
    --served-model-name V...

Names come first, then what the flag takes: nothing, ``N`` (a whole number), ``TOKENS`` (with vLLM's
suffixes), ``REAL``, ``JSON`` or ``V`` (any word); ``...`` after it means one or more, brackets that
it may be left out. After ``->`` comes the place of the value in our configuration, after ``=`` the
values of a refused flag that ask for what is simulated anyway.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from llm_inference_simulator.cli.arguments import real, token_count, whole_number
from llm_inference_simulator.errors import ConfigError


def _json_value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None


_KINDS: dict[str, Callable[[str], Any]] = {
    "N": whole_number,
    "TOKENS": token_count,
    "REAL": real,
    "JSON": _json_value,
    "V": str,
}
_ARITY = {"V...": "+", "N...": "+", "[V]": "?", "[V...]": "*"}


def whole_or_suffixed(text: str, name: str) -> int:
    """Read a number of tokens; :class:`ConfigError` with the flag's name."""
    try:
        return token_count(text)
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"{name}: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmFlag:
    """One flag of vLLM. It has a ``place``, or a ``refusal``, or it is ignored."""

    names: tuple[str, ...]
    takes: str = ""
    """As the notation says it; empty: nothing."""
    negatable: bool = False
    """Whether it also comes as ``--no-…``."""
    place: str = ""
    """Where its value goes in the configuration, as ``engine.max_num_seqs``."""
    refusal: str = ""
    """Why it cannot be simulated."""
    harmless: tuple[str, ...] = ()
    """Values of a refused flag that change nothing."""

    @property
    def name(self) -> str:
        """The long name."""
        return self.names[0]

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Make ``parser`` read the flag; one that is not given leaves no trace."""
        options: dict[str, Any] = {"dest": self.name, "default": argparse.SUPPRESS}
        if self.negatable:
            options["action"] = argparse.BooleanOptionalAction
        elif not self.takes:
            options["action"] = "store_true"
        else:
            options["type"] = _KINDS[self.takes.strip("[].")]
            options["nargs"] = _ARITY.get(self.takes)
        parser.add_argument(*self.names, **options)

    def changes_nothing(self, value: Any) -> bool:
        """Whether ``value`` asks for what is simulated anyway."""
        if isinstance(value, bool):
            return ("on" if value else "off") in self.harmless
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        return text.casefold() in self.harmless


_LINE = re.compile(
    r"(?P<names>-\S+(?: -\S+)*)(?: (?P<takes>\[?[A-Z]\w*\S*))?"
    r"(?: -> (?P<place>\S+))?(?: = (?P<harmless>.+))?"
)


def read_table(table: str, *, refusal: str = "") -> Iterator[VllmFlag]:
    """Read flags in the notation above; ``refusal`` says why all of them are refused."""
    for line in table.strip().splitlines():
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"not the notation of a flag: {line!r}")
        names = match["names"].split()
        yield VllmFlag(
            names=tuple(name.replace("[no-]", "") for name in names),
            takes=match["takes"] or "",
            negatable="[no-]" in names[0],
            place=match["place"] or "",
            refusal=refusal,
            harmless=tuple((match["harmless"] or "").split()),
        )
