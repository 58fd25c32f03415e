"""JSON of traces: parsing and fields, with errors that name the row."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from llm_inference_simulator.workload.columns import MAX_TOKENS
from llm_inference_simulator.workload.traces.source import TraceSource

# Built once: json.loads would build a decoder for every line.
_PLAIN = json.JSONDecoder()
_EXACT = json.JSONDecoder(parse_float=Decimal)


def parse(source: TraceSource, text: str, row: int | None = None, *, exact: bool = False) -> Any:
    """Parse one JSON value; with ``exact``, fractions become Decimal."""
    try:
        return (_EXACT if exact else _PLAIN).decode(text)
    except json.JSONDecodeError as cause:
        at_end = cause.pos >= len(text.rstrip()) or cause.msg.startswith("Unterminated")
        problem = "the JSON is cut off" if at_end else f"not valid JSON: {cause.msg}"
        place = f"column {cause.colno}" if row is not None else f"line {cause.lineno}"
        raise source.error(f"{problem} ({place})", row=row) from None
    except ValueError:
        # Python refuses to read whole numbers of thousands of digits.
        raise source.error("it holds a number that is too long", row=row) from None
    except RecursionError:
        raise source.error("the JSON is nested too deeply", row=row) from None


def token_count(source: TraceSource, entry: Mapping[str, Any], name: str, row: int) -> int:
    """Return a token count of a JSON object: a whole number from 0 to MAX_TOKENS."""
    value = entry.get(name)
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    if name not in entry:
        raise source.error(f"key {name!r} is missing", row=row)
    raise source.error(f"{name}={show(value)} {complaint(value, MAX_TOKENS)}", row=row)


def complaint(value: Any, largest: int) -> str:
    """Say why a value is not a whole number from 0 to ``largest``."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return "is not a number: it must be a whole number"
    if value != value:  # noqa: PLR0124 - NaN
        return "is NaN: it must be a whole number"
    if value < 0:
        return "is negative: it must be a whole number of 0 or more"
    if value > largest:
        return f"is too large: at most {largest}"
    return "is not whole: it must be a whole number"


def show(value: Any) -> str:
    """Word a JSON value for a message, briefly."""
    text = str(value) if isinstance(value, Decimal) else json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
