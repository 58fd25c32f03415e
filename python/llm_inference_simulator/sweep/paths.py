"""Dotted paths into a configuration: ``engine.max_num_seqs``, ``cluster.pools.0.n_engines``."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from llm_inference_simulator.config import SimulatorConfig
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.sections import Section


def check_path(path: str, source: str) -> None:
    """Refuse a path that no configuration has, with the nearest name.

    What lies in a mapping (``measurement.goodput.ttft``) is left to the configuration.
    """
    sections: list[type[Section]] = [SimulatorConfig]
    for part in path.split("."):
        if part.isdigit():
            continue
        known = {name: field for each in sections for name, field in each.model_fields.items()}
        if part not in known:
            raise ConfigError(
                f"{source}: {path}: "
                + unknown_name("key", part, known, remedy=f"(known here: {', '.join(known)})")
            )
        sections = list(_sections(known[part].annotation))
        if not sections:
            return


def _sections(annotation: Any) -> Iterator[type[Section]]:
    """Every section that a field may hold, alone, in a tuple or as one of several kinds."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections(inner)


def with_values(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Copy plain data and set what the dotted paths of ``values`` name."""
    data = copy.deepcopy(dict(base))
    for path, value in values.items():
        _put(data, path, value)
    return data


def _put(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place: Any = data
    for part in parents:
        place = _inside(place, part, path)
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise ConfigError(f"{path}: {parents[-1]} is {place!r}, which has no parts")


def _inside(place: Any, part: str, path: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, part, path)]
    if not isinstance(place, dict):
        raise ConfigError(f"{path}: {part!r} lies in {place!r}, which has no parts")
    if place.get(part) is None:
        place[part] = {}
    return place[part]


def _index(place: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(place):
        raise ConfigError(
            f"{path}: {part!r} is no place in a list of {len(place)}: the base must have "
            "the entry, counted from 0"
        )
    return int(part)
