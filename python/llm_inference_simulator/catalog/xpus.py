"""The accelerator catalogue: names, aliases and files -> :class:`XpuSpec`.

Its own files are JSON: every run reads one, and importing a YAML reader takes as long as all else
of that. Users' may be YAML.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from llm_inference_simulator.catalog.config_keys import ConfigKeys
from llm_inference_simulator.catalog.xpu_spec import (
    FIGURES,
    PRICE_TIERS,
    Figure,
    Price,
    PriceTier,
    XpuSpec,
)
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping

_FOLDER = Path(__file__).parent / "xpus"
_TOP_KEYS = ("name", "description", "vendor", "aliases", "figures", "prices")
_PRICE_KEYS = ("tier", "usd_per_hour", "source", "date")
_FIGURE_KEYS = ("value", "source")
_LARGEST_USABLE_SHARE = 1.1
"""Some parts are sold by the GB and have as many GiB, 7.4 % more."""


def list_xpus() -> list[XpuSpec]:
    """All accelerators of the catalogue, by vendor and name."""
    return list(_catalogue())


def load_xpu(name_or_path: str) -> XpuSpec:
    """Find an accelerator by name or alias (in any case), or read a file of the same schema.

    A catalogue name wins over a file of that name: write ``./NAME`` to mean the file. Raises
    :class:`ConfigError` naming the key that is missing, unknown or out of range.
    """
    wanted = name_or_path.casefold()
    shipped = None if _looks_like_path(name_or_path) else _find_shipped(wanted)
    if shipped is not None:
        return shipped
    path = Path(name_or_path).expanduser()
    if path.exists() or _looks_like_path(name_or_path):
        return read_xpu(path)
    known = [name for spec in _catalogue() for name in (spec.name, *spec.aliases)]
    raise ConfigError(
        unknown_name(
            "accelerator",
            name_or_path,
            known,
            remedy="(`xpus` lists the catalogue; a YAML file of your own works too)",
        )
    )


def read_xpu(path: Path) -> XpuSpec:
    """Read an accelerator's file; a problem is a :class:`ConfigError` that names the key."""
    data = read_mapping(path, "accelerator file")
    keys = ConfigKeys(data, f"accelerator file {path.name}")
    _refuse_unknown(keys, _TOP_KEYS)
    for key in ("aliases", "prices"):
        if key in keys and data[key] is None:
            raise keys.fail(f"{key} is empty: write a list, or leave the key out")
    section = keys.section("figures")
    if section is None:
        raise keys.fail("key 'figures' is missing: add it")
    values, sources = _read_figures(section)
    if values["link_bytes_per_s"] is None and values["pcie_bytes_per_s"] is None:
        raise section.fail("give link_gb_per_s or pcie_gb_per_s (or both): accelerators must talk")
    if values["usable_memory_bytes"] > _LARGEST_USABLE_SHARE * values["memory_bytes"]:
        raise section.fail(
            f"usable_memory_gib={section.data['usable_memory_gib']['value']} exceeds memory_gb="
            f"{section.data['memory_gb']['value']}: check the units (GiB and GB, not MiB)"
        )
    aliases = keys.sequence("aliases") or []
    if not all(isinstance(alias, str) and alias for alias in aliases):
        raise keys.fail("aliases must be a list of names")
    return XpuSpec(
        name=keys.text("name"),
        description=keys.text("description"),
        vendor=keys.text("vendor"),
        aliases=tuple(alias.casefold() for alias in aliases),
        prices=_read_prices(keys),
        sources=MappingProxyType(sources),
        **values,
    )


def canonical_xpu_name(name: str) -> str:
    """Catalogue name for an alias; a name that the catalogue lacks stays as it is."""
    shipped = None if _looks_like_path(name) else _find_shipped(name.casefold())
    return name if shipped is None else shipped.name


def _find_shipped(wanted: str) -> XpuSpec | None:
    if (_FOLDER / f"{wanted}.json").is_file():
        return _load_shipped(wanted)
    for path in sorted(_FOLDER.glob("*.json")):
        # Parsing the whole catalogue takes longer than a small run: parse what mentions the name.
        if f'"{wanted}"' in path.read_text(encoding="utf-8"):
            spec = _load_shipped(path.stem)
            if wanted in spec.aliases:
                return spec
    return None


def _looks_like_path(text: str) -> bool:
    return (
        "/" in text
        or text.startswith(("~", "."))
        or Path(text).suffix in (".yaml", ".yml", ".json")
    )


def _refuse_unknown(keys: ConfigKeys, known: tuple[str, ...]) -> None:
    for key in keys.data:
        if key not in known:
            raise keys.fail(
                unknown_name("key", str(key), known, remedy=f"(known: {', '.join(known)})")
            )


def _read_figures(section: ConfigKeys) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of the spec and the source of each figure."""
    _refuse_unknown(section, tuple(FIGURES))
    values: dict[str, Any] = {figure.field: None for figure in FIGURES.values()}
    values["link_domain_size"] = 1
    sources: dict[str, str] = {}
    any_peak = any(figure.peak for key, figure in FIGURES.items() if key in section.data)
    for key, figure in FIGURES.items():
        if key not in section.data:
            if figure.required or (figure.peak and any_peak):
                raise section.fail(
                    f"key {key!r} is missing: add {{value: …, source: …}} ({figure.meaning})"
                )
            continue
        if not isinstance(section.data[key], dict):
            raise section.fail(
                f"{key}={section.data[key]!r} must be written as {{value: …, source: …}}"
            )
        entry = ConfigKeys(section.data[key], f"{section.source}: {key}")
        _refuse_unknown(entry, _FIGURE_KEYS)
        values[figure.field] = _checked(section, key, figure, entry.data)
        sources[key] = entry.text("source")
    return values, sources


def _checked(
    section: ConfigKeys, key: str, figure: Figure, entry: Mapping[str, Any]
) -> float | int:
    """The value in the spec's unit, or an error that names the key."""
    if "value" not in entry:
        raise section.fail(f"{key}: key 'value' is missing: add it")
    value = entry["value"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise section.fail(f"{key}={value!r} must be a number ({figure.meaning}), without a unit")
    if not math.isfinite(value):
        raise section.fail(f"{key}={value} must be finite ({figure.meaning})")
    if figure.rule == "count" and (not isinstance(value, int) or value < 1):
        raise section.fail(f"{key}={value} must be a whole number of at least 1")
    if figure.rule in ("positive", "fraction") and value <= 0:
        raise section.fail(f"{key}={value} must be above 0 ({figure.meaning})")
    if figure.rule == "not_negative" and value < 0:
        raise section.fail(f"{key}={value} must not be negative ({figure.meaning})")
    if figure.rule == "fraction" and value > 1:
        raise section.fail(f"{key}={value} must be at most 1: it is a fraction ({figure.meaning})")
    if figure.rule == "count":
        return value
    if figure.field in ("memory_bytes", "usable_memory_bytes"):
        return round(value * figure.scale)
    return float(value * figure.scale)


def _read_prices(keys: ConfigKeys) -> tuple[Price, ...]:
    prices = []
    for index, data in enumerate(keys.sequence("prices") or []):
        if not isinstance(data, dict):
            raise keys.fail(f"prices[{index}] must be a mapping, not {data!r}")
        entry = ConfigKeys(data, f"{keys.source}: prices[{index}]")
        _refuse_unknown(entry, _PRICE_KEYS)
        if "usd_per_hour" not in entry:
            raise entry.fail("key 'usd_per_hour' is missing: add it")
        prices.append(
            Price(
                tier=_tier(entry),
                usd_per_hour=entry.number("usd_per_hour", default=0.0),
                source=entry.text("source"),
                date=entry.text("date"),
            )
        )
    return tuple(prices)


def _tier(entry: ConfigKeys) -> PriceTier:
    tier = entry.text("tier")
    for known in PRICE_TIERS:
        if tier == known:
            return known  # type: ignore[return-value]
    raise entry.fail(
        unknown_name("tier", tier, PRICE_TIERS, remedy=f"(known: {', '.join(PRICE_TIERS)})")
    )


@functools.cache
def _load_shipped(name: str) -> XpuSpec:
    return read_xpu(_FOLDER / f"{name}.json")


@functools.cache
def _catalogue() -> tuple[XpuSpec, ...]:
    specs = [_load_shipped(path.stem) for path in _FOLDER.glob("*.json")]
    return tuple(sorted(specs, key=lambda spec: (spec.vendor.casefold(), spec.name)))
