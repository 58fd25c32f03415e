"""The model catalogue: short names, aliases and Hugging Face ids -> :class:`ModelSpec`.

``models.json`` is its index; names are compared without regard to case.
``model_configs/NAME.json`` holds each model's config.json, reduced to the keys that matter,
``generation_configs/NAME.json`` what of the checkpoint's generation_config.json makes steps longer
(recalled from the files of the Instruct versions).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path

from llm_inference_simulator.catalog.config_keys import ConfigKeys
from llm_inference_simulator.catalog.model_config import (
    read_model_config,
    read_repetition_penalty,
)
from llm_inference_simulator.catalog.model_spec import ModelSpec
from llm_inference_simulator.errors import ConfigError, unknown_name
from llm_inference_simulator.files import read_mapping

_FOLDER = Path(__file__).parent
_CONFIGS = _FOLDER / "model_configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One line of the catalogue."""

    name: str
    huggingface: str
    """An alias as well."""
    aliases: tuple[str, ...]
    published_parameters: int | None
    """Total that others publish, of the language model alone (a test compares within 0.5 %); None
    where no comparable figure exists."""
    published_source: str
    """Whose figure it is, or why there is none."""

    @property
    def config_file(self) -> Path:
        """The config.json that the catalogue ships."""
        return _CONFIGS / f"{self.name}.json"

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that the model answers to."""
        return (self.name, *self.aliases, self.huggingface)


def list_models() -> list[ModelEntry]:
    """All models of the catalogue, in its order (families together, small before large)."""
    return list(_index())


def load_model(name_or_path: str) -> ModelSpec:
    """Find a model by catalogue name, alias or Hugging Face id, or read a config.json or folder.

    A catalogue name wins over a file of that name: write ``./NAME`` to mean the file. Raises
    :class:`ConfigError` for a name that is neither, with the nearest one.
    """
    wanted = name_or_path.casefold()
    if "/" not in wanted and (_CONFIGS / f"{wanted}.json").is_file():
        return _load_shipped(wanted)  # without reading the index
    entry = _by_name().get(wanted)
    if entry is not None:
        return _load_shipped(entry.name)
    path = Path(name_or_path)
    if path.exists() or path.suffix == ".json" or name_or_path.startswith((".", "/", "~")):
        return read_model_config(path.expanduser())
    raise ConfigError(
        unknown_name(
            "model",
            name_or_path,
            [known for entry in _index() for known in entry.names],
            remedy="(`models` lists the catalogue; a config.json or its folder works too)",
        )
    )


def canonical_model_name(name: str) -> str:
    """Catalogue name for an alias or a Hugging Face id; a name that it lacks stays as it is."""
    entry = _by_name().get(name.casefold())
    return name if entry is None else entry.name


@functools.cache
def _load_shipped(name: str) -> ModelSpec:
    spec = read_model_config(_CONFIGS / f"{name}.json", name=name)
    penalty = read_repetition_penalty(_FOLDER / "generation_configs" / f"{name}.json")
    # The file's place on this machine says nothing to a reader of results.
    return replace(spec, source=name, repetition_penalty=penalty)


@functools.cache
def _index() -> tuple[ModelEntry, ...]:
    data = read_mapping(_FOLDER / "models.json", "model index")
    entries = []
    for name, fields in data.items():
        keys = ConfigKeys(fields, f"model index: {name}")
        entries.append(
            ModelEntry(
                name=name,
                huggingface=keys.text("huggingface"),
                aliases=tuple(keys.sequence("aliases") or ()),
                published_parameters=keys.optional_integer("published_parameters"),
                published_source=keys.text("published_source"),
            )
        )
    return tuple(entries)


@functools.cache
def _by_name() -> dict[str, ModelEntry]:
    return {name.casefold(): entry for entry in _index() for name in entry.names}
