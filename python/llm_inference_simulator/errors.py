"""Every error that the simulator raises on purpose, and the words they share.

A message names the field, the value and the remedy; the command line prints it as it is and
exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SimulatorError(Exception):
    """Base of all errors that a user can cause or must know about."""


class ConfigError(SimulatorError):
    """A configuration, catalogue entry or flag is wrong."""


class WorkloadError(SimulatorError):
    """A trace or a workload definition is wrong."""


class CapacityError(SimulatorError):
    """The model does not fit the memory of the accelerators."""


class CalibrationError(SimulatorError):
    """A calibration file or a measurement is wrong or does not cover what was asked."""


class SimulationError(SimulatorError):
    """The simulation itself could not go on (a cost model returned NaN, say)."""


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most like ``name``, or None where nothing is near."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return folded[close[0]] if close else None


def unknown_name(kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> str:
    """Word the message for a name that is not in a closed set.

    ``kind`` is what the name should have been ("model", "flag"); ``remedy`` says where the set is
    listed or what else is accepted.
    """
    known = list(known)
    near = nearest_name(name, known)
    hint = f"; did you mean {near!r}?" if near else ""
    tail = f" {remedy}" if remedy else ""
    return f"unknown {kind} {name!r}{hint}{tail}"
