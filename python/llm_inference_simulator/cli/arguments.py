"""Argument parsing as vLLM's users know it, on the standard library alone.

Beyond argparse: underscores in flags are dashes (``--max_num_seqs``), token counts take suffixes
(``32K``, ``25.6k``), an unknown flag names the nearest known one, and every error is a
:class:`ConfigError` instead of an exit.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from llm_inference_simulator.errors import ConfigError, unknown_name

_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_LOOKS_NEGATIVE = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)

SPELLINGS = "command.spellings"
"""Where a namespace keeps which spelling of a flag gave each value."""


class Parser(argparse.ArgumentParser):
    """An argparse parser without abbreviations that raises instead of exiting."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the parser's complaint as ours."""
        raise ConfigError(message.removeprefix("argument "))

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse says nothing where help cannot be written.
        (file or sys.stdout).write(message)

    def parse_all(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse ``argv``; an unknown flag or a stray word is an error."""
        namespace, extra = self.parse_known_args(normalise(argv))
        for word in extra:
            if word.startswith("-") and word != "-":
                known = [flag for flag in self._option_string_actions if flag.startswith("--")]
                raise ConfigError(
                    unknown_name("flag", word.split("=")[0], known, remedy="(see --help)")
                )
            raise ConfigError(f"unexpected argument {word!r}: every value needs its flag")
        return namespace


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Names in one column, texts in the next; a value is shown once, after the last name."""

    def __init__(self, prog: str, **options: Any) -> None:
        options.setdefault("max_help_position", 34)
        super().__init__(prog, **options)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = action.option_strings
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{names[0].removeprefix('--')}"
        if not names or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(names)} {value}"


class StoreOnce(argparse.Action):
    """Store a value; two spellings of one flag with different values are a conflict.

    The same spelling twice is an override, the last one counts, as everywhere.
    """

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store ``values`` and remember the spelling."""
        spellings: dict[str, str | None] = namespace.__dict__.setdefault(SPELLINGS, {})
        before = spellings.get(self.dest, option_string)
        if before != option_string and getattr(namespace, self.dest) != values:
            raise ConfigError(
                f"{before} {getattr(namespace, self.dest)} and {option_string} {values} are the "
                "same setting with two values: leave one out"
            )
        spellings[self.dest] = option_string
        setattr(namespace, self.dest, values)


def normalise(argv: Sequence[str]) -> list[str]:
    """Make underscores in flags dashes and bind negative values to their flags.

    argparse would take ``-inf`` for a flag; bound with ``=`` it reaches the check that names it.
    """
    words: list[str] = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words.append(name.replace("_", "-") + equals + value)
        elif (
            words
            and _LOOKS_NEGATIVE.match(word)
            and words[-1].startswith("--")
            and "=" not in words[-1]
        ):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def whole_number(text: str) -> int:
    """Read an integer; underscores and exponents are not accepted."""
    if not re.fullmatch(r"[+-]?\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def at_least(least: int) -> Callable[[str], int]:
    """Read a whole number that is not below ``least``."""

    def parse(text: str) -> int:
        value = whole_number(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
        return value

    return parse


def some_tokens(text: str) -> int:
    """Read a number of tokens that is not 0."""
    value = token_count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be at least 1")
    return value


def token_count(text: str) -> int:
    """Read an integer with vLLM's suffixes: k, m, g, t are decimal, K, M, G, T binary."""
    match = re.fullmatch(r"([+-]?\d+(?:\.\d+)?)([kmgtKMGT])", text)
    if match is None:
        if re.fullmatch(r"[+-]?\d+", text):
            return int(text)
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of tokens: give 4096, 32K (= 32,768) or 25.6k (= 25,600)"
        )
    number, suffix = match.groups()
    if suffix in _BINARY:
        if "." in number:
            raise argparse.ArgumentTypeError(
                f"{text!r}: the binary suffix {suffix} takes whole numbers; use "
                f"{number}{suffix.lower()} for powers of 1,000"
            )
        return int(number) * _BINARY[suffix]
    whole, _, decimals = number.partition(".")
    scaled = int(whole + decimals) * _DECIMAL[suffix]
    tokens, rest = divmod(scaled, int("1" + "0" * len(decimals)))
    if rest:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of tokens")
    return tokens


def real(text: str) -> float:
    """Read a number; ``inf`` and ``nan`` are read and judged where the range is known."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def percentiles(text: str) -> list[float]:
    """Read ``50,90,99``."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of percentiles: give numbers from 0 to 100 as in 50,90,99"
        ) from None


def rate_stages(text: str) -> list[list[float]]:
    """Read ``2.5:600,6:600``: requests per second and seconds of each stage."""
    stages = []
    for part in text.split(","):
        rate, colon, seconds = part.partition(":")
        try:
            stages.append([float(rate), float(seconds)])
        except ValueError:
            colon = ""
        if not colon:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not RATE:SECONDS: give stages as in 2.5:600,6:600"
            )
    return stages


def rate_schedule(text: str) -> dict[str, str | float]:
    """Read ``diurnal:mean_rate=5,amplitude=3,period=600``: a kind and its numbers."""
    kind, _, numbers = text.partition(":")
    schedule: dict[str, str | float] = {"kind": kind}
    for part in numbers.split(","):
        name, _, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not NAME=NUMBER: give a schedule as in "
                "ramp:from_rate=1,to_rate=9,seconds=600"
            ) from None
        schedule[name.strip().replace("-", "_")] = number
    return schedule
