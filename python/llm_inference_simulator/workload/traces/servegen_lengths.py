"""Length distributions of a ServeGen client, by time window."""

from __future__ import annotations

import bisect
import json
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_inference_simulator.workload.columns import MAX_TOKENS, Int64Array
from llm_inference_simulator.workload.traces import json_values
from llm_inference_simulator.workload.traces.numbers import NS_PER_SECOND
from llm_inference_simulator.workload.traces.source import TraceSource

FIELDS = ("input_tokens", "output_tokens")
SUM_TOLERANCE = 1e-3
"""How far probabilities may be from summing to 1: the published data is rounded."""

_UNQUOTED_KEY = re.compile(r"([0-9]+)\s*:", re.ASCII)


@dataclass(frozen=True, slots=True)
class LengthDistribution:
    """Lengths and their cumulative probabilities; both one-dimensional and equally long."""

    lengths: Int64Array
    cumulative: NDArray[np.float64]

    def draw(self, rng: np.random.Generator, n: int) -> Int64Array:
        """Draw ``n`` lengths."""
        picks = np.searchsorted(self.cumulative, rng.random(n), side="right")
        return self.lengths[np.minimum(picks, len(self.lengths) - 1)]


Pair = tuple[LengthDistribution, LengthDistribution]


class LengthPool:
    """The distributions of a client; each is parsed when it is first needed."""

    def __init__(self, source: TraceSource) -> None:
        self._source = source
        data = json_values.parse(source, source.text)
        if not isinstance(data, dict):
            raise source.error("it must be a JSON object of window starts")
        self._texts: dict[int, dict[str, Any]] = {}
        for key, fields in data.items():
            if not re.fullmatch(r"[0-9]{1,12}", key, re.ASCII):
                raise source.error(f"window {key!r} is not a whole number of seconds")
            if not isinstance(fields, dict) or any(name not in fields for name in FIELDS):
                raise source.error(
                    f"window {key} lacks {' or '.join(FIELDS)}: only ServeGen's language and "
                    "reasoning data can be used"
                )
            # ServeGen writes {} where it saw too few requests; the window before stands in.
            if all(fields[name] != "{}" for name in FIELDS):
                self._texts[int(key)] = fields
        self._starts = sorted(self._texts)
        self._parsed: dict[int, Pair] = {}

    def at(self, time_ns: int) -> Pair | None:
        """Return (prompt, output) distributions in force at a time; None before the first."""
        index = bisect.bisect_right(self._starts, time_ns // NS_PER_SECOND) - 1
        if index < 0:
            return None
        start = self._starts[index]
        if start not in self._parsed:
            prompt, output = (self._parse(start, name) for name in FIELDS)
            self._parsed[start] = prompt, output
        return self._parsed[start]

    def _parse(self, start: int, name: str) -> LengthDistribution:
        text = self._texts[start][name]
        where = f"window {start}, {name}"
        if not isinstance(text, str):
            raise self._source.error(f"{where} is not a string with a dictionary")
        try:
            table = json.loads(_UNQUOTED_KEY.sub(r'"\1":', text))
            lengths = np.array([int(key) for key in table], dtype=np.int64)
            weights = np.array(list(table.values()), dtype=np.float64)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise self._source.error(
                f"{where} is not a dictionary of length: probability"
            ) from None
        if weights.ndim != 1 or len(lengths) == 0 or lengths.max() > MAX_TOKENS:
            raise self._source.error(f"{where} has no usable lengths (1 to {MAX_TOKENS} tokens)")
        total = float(weights.sum())
        if not (weights >= 0).all() or not math.isclose(total, 1, abs_tol=SUM_TOLERANCE):
            raise self._source.error(
                f"{where}: its probabilities sum to {total:.6g}; they must be 0 or more and sum "
                "to 1"
            )
        return LengthDistribution(lengths, np.cumsum(weights) / total)
