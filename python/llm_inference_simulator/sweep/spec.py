"""What a sweep runs: a base configuration and the values that change."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping
from llm_inference_simulator.sweep.paths import check_path, with_values

KEYS = ("base", "grid", "zip", "list")
MOST_CONFIGURATIONS = 1_000_000
FILE_FIELDS = ("model", "xpu", "trace", "lengths_from", "calibration_data")
"""Fields of a configuration that may name a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A base and its points; every point is a mapping of dotted paths to values."""

    source: str
    """Where it comes from, for messages."""
    base: Mapping[str, Any]
    points: tuple[Mapping[str, Any], ...]

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file; raises :class:`ConfigError` naming what is wrong."""
        return cls.from_dict(read_mapping(Path(path), "sweep file"), source=str(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str = "sweep") -> Self:
        """Build from plain data.

        ``base`` is a whole configuration, or the path of its file. ``grid`` maps paths to lists of
        values, of which every combination runs; ``zip`` maps paths to equally long lists, whose
        values go together; ``list`` holds configurations one by one. Where several are given, every
        combination of theirs runs, the grid's last path fastest.
        """
        for key in data:
            if key not in KEYS:
                known = f"(known: {', '.join(KEYS)})"
                raise ConfigError(f"{source}: {unknown_name('key', str(key), KEYS, remedy=known)}")
        listed = _listed(data.get("list"), source)
        zipped = _zipped(data.get("zip"), source)
        grid = _lists(data.get("grid"), "grid", source)
        _require_apart(source, grid, zipped[0], *listed)
        for path in dict.fromkeys(itertools.chain(grid, zipped[0], *listed)):
            check_path(path, source)
        count = len(listed) * len(zipped) * math.prod(map(len, grid.values()))
        if count > MOST_CONFIGURATIONS:
            raise ConfigError(
                f"{source}: {count:,} configurations, more than {MOST_CONFIGURATIONS:,}: leave "
                "values out"
            )
        points = [
            {**one, **row, **dict(zip(grid, values, strict=True))}
            for one in listed
            for row in zipped
            for values in itertools.product(*grid.values())
        ]
        return cls(source=source, base=_base(data, source), points=tuple(points))

    def __len__(self) -> int:
        return len(self.points)

    @property
    def parameters(self) -> tuple[str, ...]:
        """Every path that some point sets, in the order of the file."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.points)))

    def config(self, index: int) -> SimulatorConfig:
        """The configuration of a point; :class:`ConfigError` where it is none."""
        return SimulatorConfig.from_dict(with_values(self.base, self.points[index]), source="")

    def fingerprint(self) -> str:
        """Hash of all that results depend on: simulator, base, points, files that they name."""
        from llm_inference_simulator._core import __version__

        content = {
            "version": __version__,
            "base": self.base,
            "points": self.points,
            "files": _file_hashes([self.base, *self.points]),
        }
        text = json.dumps(content, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def _base(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    base = data.get("base", {})
    if isinstance(base, str):
        return read_mapping(Path(base), "base configuration")
    if not isinstance(base, dict):
        raise ConfigError(
            f"{source}: base={base!r} must be a configuration or the path of its file"
        )
    return base


def _lists(data: Any, key: str, source: str) -> dict[str, list[Any]]:
    """A section of paths and lists of values; empty where it is left out."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: {key} must map paths to lists of values, not be {data!r}")
    for path, values in data.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(
                f"{source}: {key}: {path}={values!r} must be a list of values, as in [1, 2, 4]"
            )
    return {str(path): values for path, values in data.items()}


def _zipped(data: Any, source: str) -> list[dict[str, Any]]:
    """Rows of values that go together; one empty row where there are none."""
    columns = _lists(data, "zip", source)
    if not columns:
        return [{}]
    lengths = {path: len(values) for path, values in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} has {count}" for path, count in lengths.items())
        raise ConfigError(f"{source}: zip: lists must be equally long, but {listed}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _listed(data: Any, source: str) -> list[dict[str, Any]]:
    if data is None:
        return [{}]
    if not isinstance(data, list) or not data or not all(isinstance(row, dict) for row in data):
        raise ConfigError(
            f"{source}: list={data!r} must be a list of mappings, as in "
            "[{xpu: h100-sxm, cluster.tensor_parallel_size: 4}]"
        )
    return [{str(path): value for path, value in row.items()} for row in data]


def _require_apart(source: str, *sections: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse a path in two sections: one would silently win. Rows of ``list`` may share paths."""
    grid, zipped, *listed = (set(section) for section in sections)
    rows: set[str] = functools.reduce(set.union, listed, set())
    for path in sorted((grid & zipped) | (grid & rows) | (zipped & rows)):
        raise ConfigError(f"{source}: {path} stands in two of grid, zip and list: leave one out")


def _file_hashes(data: Any) -> dict[str, str]:
    """SHA-256 of the files that fields name, wherever they stand in plain data."""
    found: dict[str, str] = {}
    if isinstance(data, list | tuple):
        for item in data:
            found |= _file_hashes(item)
    elif isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, str) and str(key).rpartition(".")[2] in FILE_FIELDS:
                if value not in found and Path(value).is_file():
                    found[value] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
            else:
                found |= _file_hashes(value)
    return found
