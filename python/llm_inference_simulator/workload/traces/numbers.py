"""Numbers of traces, read exactly: never through a float, never by guess."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.columns import MAX_TIME_NS, MAX_TOKENS, Int64Array

NS_PER_SECOND = 10**9
NS_PER_MILLISECOND = 10**6

_WHOLE = re.compile(r"0*([0-9]+)(\.0*)?")
_DECIMAL = re.compile(r"[0-9]{1,100}(\.[0-9]*)?([eE][-+]?[0-9]{1,3})?", re.ASCII)
_NUMBER_LIKE = re.compile(r"-?([0-9.]+([eE][-+]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE)

_SAFE_DIGITS = len(str(MAX_TOKENS))
"""A number of fewer digits is at most MAX_TOKENS."""

RowError = Callable[[int, str], WorkloadError]
"""Makes the error of a row (counted from 0) from the problem."""


def token_column(texts: Sequence[str], name: str, error: RowError) -> Int64Array:
    """Read token counts: whole numbers up to MAX_TOKENS ("374", or "374.0" as pandas writes)."""
    joined = "".join(texts)
    shortest, longest = min(map(len, texts)), max(map(len, texts))
    if joined.isascii() and joined.isdigit() and 0 < shortest <= longest < _SAFE_DIGITS:
        return np.array(list(map(int, texts)), dtype=np.int64)
    return np.array(
        [_token_count(text, name, row, error) for row, text in enumerate(texts)], dtype=np.int64
    )


def _token_count(text: str, name: str, row: int, error: RowError) -> int:
    match = _WHOLE.fullmatch(text.strip())
    if match is None:
        complaint = _complaint(text.strip())
        raise error(row, f"{name}={_short(text)} {complaint}: it must be a whole number")
    if len(match[1]) > _SAFE_DIGITS or int(match[1]) > MAX_TOKENS:
        raise error(row, f"{name}={_short(text)} is too large: at most {MAX_TOKENS} tokens")
    return int(match[1])


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _complaint(text: str) -> str:
    if not text:
        return "is empty"
    if not _NUMBER_LIKE.fullmatch(text):
        return "is not a number"
    if text.startswith("-"):
        return "is negative"
    if text[0] in "nN":
        return "is NaN"
    return "is infinite" if text[0] in "iI" else "is not whole"


def time_column(texts: Sequence[str], unit_ns: int, name: str, error: RowError) -> Int64Array:
    """Read decimal times in units of ``unit_ns``; digits below a nanosecond round half to even."""
    return np.array(
        [time_ns(text, unit_ns, name, row, error) for row, text in enumerate(texts)],
        dtype=np.int64,
    )


def time_ns(text: str, unit_ns: int, name: str, row: int, error: RowError) -> int:
    """Read one decimal time; see :func:`time_column`."""
    stripped = text.strip()
    if not _DECIMAL.fullmatch(stripped):
        complaint = _complaint(stripped)
        if complaint == "is not whole":
            complaint = "is not a number"
        raise error(row, f"{name}={_short(text)} {complaint}: it must be a time of 0 or more")
    value = Decimal(stripped) * unit_ns
    if value > MAX_TIME_NS:
        raise error(row, f"{name}={_short(text)} is too large: at most {MAX_TIME_NS // unit_ns}")
    return int(value.to_integral_value(ROUND_HALF_EVEN))
