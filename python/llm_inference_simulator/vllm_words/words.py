"""What a command line of vLLM says, in the places of our configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_inference_simulator.errors import ConfigError
from llm_inference_simulator.vllm_words.flags import VllmFlag

REMEDY = "leave it out of the line to simulate without it"


@dataclass(slots=True)
class Words:
    """Collects what one line sets, names and leaves out."""

    label: str
    """The flag of ours that the line was given with."""
    line: str
    places: dict[str, Any] = field(default_factory=dict)
    """Place in the configuration → value; ``vllm.…`` is not a place but still to be translated."""
    spellings: dict[str, str] = field(default_factory=dict)
    """Place → the flag of vLLM that set it."""
    ignored: list[str] = field(default_factory=list)
    """Flags and variables without effect on times, in the order of the tables."""

    def put(self, place: str, value: Any, flag: str) -> None:
        """Set one value of the configuration, as ``flag`` of vLLM says."""
        self.places[place] = value
        self.spellings[place] = f"{self.label}'s {flag}"

    def take(self, name: str) -> Any:
        """Take out what is still to be translated; None where it was not given."""
        self.spellings.pop(f"vllm.{name}", None)
        return self.places.pop(f"vllm.{name}", None)

    def refuse(self, flag: str, value: Any, why: str) -> ConfigError:
        """Return the error for a flag that asks for something else than is simulated."""
        shown = flag if value is True else f"{flag} {value}"
        return ConfigError(f"{self.label}: {shown} is refused: {why}; {REMEDY}")

    def choose(self, place: str, known: Mapping[str, Any]) -> None:
        """Replace the value at ``place`` by our word for it, or refuse it; None: leave it open."""
        if place not in self.places:
            return
        value = str(self.places[place])
        flag = self.spellings[place].rpartition(" ")[2]
        if value.casefold() not in known:
            raise self.refuse(flag, value, f"only {', '.join(known)} are simulated")
        self.places[place] = known[value.casefold()]
        if self.places[place] is None:
            del self.places[place], self.spellings[place]


def sort_flags(words: Words, given: Mapping[str, Any], flags: Sequence[VllmFlag]) -> None:
    """Put what ``given`` flags say where it belongs; raises :class:`ConfigError` for refused ones.

    A refused flag whose value asks for what is simulated anyway counts as ignored.
    """
    for flag in flags:
        if flag.name not in given:
            continue
        value = given[flag.name]
        if flag.place:
            words.put(flag.place, value, flag.name)
        elif flag.refusal and not flag.changes_nothing(value):
            negated = flag.negatable and value is False
            name = f"--no-{flag.name.removeprefix('--')}" if negated else flag.name
            shown = " ".join(map(str, value)) if isinstance(value, list) else value
            raise words.refuse(name, True if isinstance(value, bool) else shown, flag.refusal)
        else:
            words.ignored.append(flag.name)
