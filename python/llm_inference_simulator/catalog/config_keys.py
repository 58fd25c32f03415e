"""Typed access to the keys of a config.json: a missing or wrong key is named, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_inference_simulator.errors import ConfigError


class ConfigKeys:
    """The keys of one mapping, with ``source`` opening every message.

    Hugging Face writes "not set" as null for some keys; those are read with the ``optional_…``
    methods. For all others null is an error.
    """

    def __init__(self, data: Mapping[str, Any], source: str) -> None:
        self.data = data
        self.source = source

    def __contains__(self, key: str) -> bool:
        return key in self.data

    def fail(self, message: str) -> ConfigError:
        """Word an error about this file."""
        return ConfigError(f"{self.source}: {message}")

    def integer(self, *names: str, default: int | None = None, minimum: int = 1) -> int:
        """Whole number under the first of ``names`` that is present."""
        name = self._present(names)
        if name is None:
            if default is None:
                raise self._missing(names)
            return default
        return self._checked_integer(name, minimum)

    def optional_integer(self, *names: str, minimum: int = 1) -> int | None:
        """Whole number, or None where the key is absent or null."""
        name = self._present(names)
        if name is None or self.data[name] is None:
            return None
        return self._checked_integer(name, minimum)

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.data.get(name, default)
        if not isinstance(value, bool):
            raise self.fail(f"{name}={value!r} must be true or false")
        return value

    def number(self, name: str, *, default: float) -> float:
        """Positive finite number."""
        value = self.data.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"{name}={value!r} must be a number")
        if not 0 < value < float("inf"):
            raise self.fail(f"{name}={value!r} must be positive and finite")
        return float(value)

    def text(self, name: str) -> str:
        """Non-empty string."""
        if name not in self.data:
            raise self._missing((name,))
        value = self.data[name]
        if not isinstance(value, str) or not value:
            raise self.fail(f"{name}={value!r} must be a string")
        return value

    def sequence(self, name: str) -> list[Any] | None:
        """List, or None where the key is absent or null."""
        value = self.data.get(name)
        if value is not None and not isinstance(value, list):
            raise self.fail(f"{name} must be a list, not {value!r}")
        return value

    def section(self, name: str) -> ConfigKeys | None:
        """Nested mapping, or None where the key is absent or null."""
        value = self.data.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(f"{name} must be a mapping, not {value!r}")
        return ConfigKeys(value, f"{self.source}: {name}")

    def _present(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.data), None)

    def _checked_integer(self, name: str, minimum: int) -> int:
        value = self.data[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(f"{name}={value!r} must be a whole number")
        if value < minimum:
            raise self.fail(f"{name}={value} must be at least {minimum}")
        return value

    def _missing(self, names: tuple[str, ...]) -> ConfigError:
        others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
        return self.fail(f"key {names[0]!r}{others} is missing: add it to the config.json")
