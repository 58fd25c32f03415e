"""What a flag is: its spellings, its value, and the place of that value in the configuration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from llm_inference_simulator.cli.arguments import StoreOnce


class Flag(NamedTuple):
    """A flag with a value for ``section.field``: by default of its group, of its first name."""

    names: str
    """All spellings, with spaces between."""
    kind: Callable[[str], Any]
    value: str
    text: str
    field: str | None = None
    section: str | None = None
    action: str | type[argparse.Action] = StoreOnce
    nargs: str | int | None = None

    def add_to(self, group: argparse._ArgumentGroup, section: str) -> None:
        """Add the flag; one that is not given leaves no trace."""
        names = self.names.split()
        field = self.field or _field_of(names[0])
        options = {} if self.nargs is None else {"nargs": self.nargs}
        group.add_argument(
            *names,
            dest=_place(section if self.section is None else self.section, field),
            type=self.kind,
            metavar=self.value,
            help=self.text.replace("%", "%%"),
            default=argparse.SUPPRESS,
            action=self.action,
            **options,  # type: ignore[arg-type]
        )


class Switch(NamedTuple):
    """A flag without a value; a ``negatable`` one also comes as ``--no-…``."""

    name: str
    text: str
    negatable: bool = False
    section: str | None = None

    def add_to(self, group: argparse._ArgumentGroup, section: str) -> None:
        """Add the switch; one that is not given leaves no trace."""
        group.add_argument(
            self.name,
            dest=_place(section if self.section is None else self.section, _field_of(self.name)),
            action=argparse.BooleanOptionalAction if self.negatable else "store_true",
            help=self.text,
            default=argparse.SUPPRESS,
        )


class Group(NamedTuple):
    """One titled group of flags, most of them for one section of the configuration."""

    title: str
    section: str
    flags: tuple[Flag | Switch, ...]


def _field_of(name: str) -> str:
    return name.removeprefix("--").replace("-", "_")


def _place(section: str, field: str) -> str:
    return f"{section}.{field}" if section else field
