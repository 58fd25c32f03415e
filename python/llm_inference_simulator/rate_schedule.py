"""Rates of arrival that change with time."""

import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llm_inference_simulator.sections import LONGEST_S, Duration, NonNegativeReal, Section

RATES = ("mean_rate", "amplitude", "from_rate", "to_rate", "base_rate", "burst_rate")
FIELDS_OF_KIND = {
    "diurnal": ("mean_rate", "amplitude", "period"),
    "ramp": ("from_rate", "to_rate", "seconds"),
    "bursts": ("base_rate", "burst_rate", "burst_seconds", "period"),
}


class RateSchedule(Section):
    """Requests per second as a function of the time t in seconds.

    - diurnal: mean_rate + amplitude * sin(2 pi t / period);
    - ramp: from from_rate at the start to to_rate after ``seconds``, which then lasts;
    - bursts: burst_rate for the first burst_seconds of each period, base_rate for the rest.
    """

    kind: Literal["diurnal", "ramp", "bursts"]
    mean_rate: NonNegativeReal | None = None
    amplitude: NonNegativeReal | None = None
    period: Duration | None = None
    from_rate: NonNegativeReal | None = None
    to_rate: NonNegativeReal | None = None
    seconds: Duration | None = None
    """Of the ramp; it is also the workload's duration unless that is given."""
    base_rate: NonNegativeReal | None = None
    burst_rate: NonNegativeReal | None = None
    burst_seconds: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        needed = FIELDS_OF_KIND[self.kind]
        given = [
            name for name in type(self).model_fields if name != "kind" and self._get(name) >= 0
        ]
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"{missing[0]} is missing: {self.kind} takes {', '.join(needed)}")
        foreign = [name for name in given if name not in needed]
        if foreign:
            raise ValueError(
                f"{foreign[0]}={self._get(foreign[0])} is not of {self.kind}, which takes "
                f"{', '.join(needed)}: leave it out"
            )
        if self.kind == "diurnal" and self._get("amplitude") > self._get("mean_rate"):
            raise ValueError(
                f"amplitude={self.amplitude} exceeds mean_rate={self.mean_rate}: the rate would "
                "fall below 0; lower it"
            )
        if self.kind == "bursts" and self._get("burst_seconds") > self._get("period"):
            raise ValueError(
                f"burst_seconds={self.burst_seconds} exceeds period={self.period}: lower it"
            )
        if self.highest == 0:
            raise ValueError("every rate is 0, so no request arrives; raise one")
        return self

    def _get(self, name: str) -> float:
        """A field's value, -1 where it is not given."""
        value = getattr(self, name)
        return -1.0 if value is None else float(value)

    @property
    def highest(self) -> float:
        """A bound of the rate that it reaches."""
        if self.kind == "diurnal":
            return self._get("mean_rate") + self._get("amplitude")
        return max(self._get(name) for name in RATES)

    def rates(self, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Requests per second at these times."""
        if self.kind == "diurnal":
            phase = 2 * math.pi * time_s / self._get("period")
            return self._get("mean_rate") + self._get("amplitude") * np.sin(phase)
        if self.kind == "ramp":
            rise = self._get("to_rate") - self._get("from_rate")
            return self._get("from_rate") + rise * np.minimum(time_s / self._get("seconds"), 1.0)
        in_burst = np.mod(time_s, self._get("period")) < self._get("burst_seconds")
        return np.where(in_burst, self._get("burst_rate"), self._get("base_rate"))

    def times(self, factor: float) -> Self:
        """The same with all rates ``factor`` times as high."""
        rates = {name: self._get(name) * factor for name in RATES if self._get(name) >= 0}
        return self.model_copy(update=rates)
