"""What the sections of a configuration share: bounds, number types, and errors in one sentence.

Every section refuses unknown keys with the nearest valid one, and every message names the field,
the value and what is allowed.

Modules with sections do without ``from __future__ import annotations``: pydantic would evaluate
each annotation again from its text, on every start.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llm_inference_simulator.errors import ConfigError, nearest_name

LARGEST_COUNT = 2**30
"""The core counts in 32 bits; sums of a few such numbers still fit."""
MOST_ENGINES = 100_000
MOST_STAGES = 1024
LONGEST_S = 1e9
"""The core's clock is 64 bits of nanoseconds, which end after 9.2e9 seconds."""
LONGEST_MS = 1e9

Count = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
WholeNumber = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
StageCount = Annotated[int, Field(ge=1, le=MOST_STAGES)]
Engines = Annotated[int, Field(ge=1, le=MOST_ENGINES)]
Seed = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0, le=LONGEST_MS, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
Length = Annotated[float, Field(gt=0, le=LARGEST_COUNT, allow_inf_nan=False)]
"""Mean of a number of tokens."""
PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveOrInf = Annotated[float, Field(gt=0)]
"""Positive, infinity included; NaN is refused because it compares false with everything."""
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Percentile = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Duration = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
"""Seconds, more than none."""

GoodputMetric = Literal["ttft", "tpot", "e2el"]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion of strings."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        protected_namespaces=(),
        ser_json_inf_nan="strings",
        # Sections are parts of one another: each on its own would be compiled at import, unused.
        defer_build=True,
    )
    has_flags: ClassVar[bool] = False
    """Whether each field of its own is a flag of the command line too."""

    @classmethod
    def default(cls) -> Self:
        """The section with nothing given: there is nothing to check, so nothing is compiled."""
        return cls.model_construct()  # type: ignore[return-value]  # typed as the base

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, source: str = "configuration") -> Self:
        """Build the section from plain data, or raise one :class:`ConfigError`.

        ``source`` names where the data comes from and opens the message.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain(cls, error)}") from None


def _explain(section: type[Section], error: ValidationError) -> str:
    """Turn pydantic's first finding into one sentence of ours."""
    finding = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in finding["loc"])
    value, kind = finding.get("input"), finding["type"]
    if kind == "extra_forbidden":
        owner = _section_at(section, finding["loc"][:-1])
        near = nearest_name(str(finding["loc"][-1]), owner.model_fields)
        known = ", ".join(sorted(owner.model_fields))
        hint = f"did you mean {near!r}? " if near else ""
        return f"unknown key {field!r}; {hint}(known here: {known})"
    if kind == "missing":
        flag = f" or as --{field}" if section.has_flags else ""
        return f"{field} is missing: give it in the file{flag}"
    if kind == "value_error":
        prefix = f"{field}: " if field else ""
        return f"{prefix}{finding['ctx']['error']}"
    if kind == "literal_error":
        near = nearest_name(str(value), re.findall(r"'([^']*)'", finding["ctx"]["expected"]))
        hint = f"; did you mean {near!r}?" if near else ""
        return f"{field}={value!r} is not one of {finding['ctx']['expected']}{hint}"
    if kind in ("model_type", "dict_type"):
        given = list(value) if isinstance(value, tuple) else value
        return (
            f"{field}={given!r}: must be a mapping"
            if field
            else f"must be a mapping, not {given!r}"
        )
    message = finding["msg"]
    return f"{field}={value!r}: {message[0].lower()}{message[1:]}"


def _section_at(section: type[Section], path: tuple[int | str, ...]) -> type[Section]:
    for part in path:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        for inner in (annotation, *get_args(annotation)):
            if isinstance(inner, type) and issubclass(inner, Section):
                section = inner
    return section
