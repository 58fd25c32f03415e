"""CSV files with a header, as columns of text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from llm_inference_simulator.errors import WorkloadError
from llm_inference_simulator.workload.columns import Int64Array
from llm_inference_simulator.workload.traces.numbers import time_column, token_column
from llm_inference_simulator.workload.traces.source import TraceSource


class CsvTable:
    """The rows of a CSV file, checked to be equally long. Blank lines are passed over.

    With ``header`` None the first row names the columns (upper or lower case alike); else the file
    has no header and ``header`` names them.
    """

    def __init__(self, source: TraceSource, header: Sequence[str] | None = None) -> None:
        self.source = source
        self._header_rows = 1 if header is None else 0
        try:
            rows = [row for row in csv.reader(io.StringIO(source.text, newline="")) if row]
        except csv.Error as cause:
            raise source.error(f"it is not valid CSV: {cause}") from None
        if header is None:
            header = rows.pop(0)
        self.header = [name.strip() for name in header]
        self._index = {name.casefold(): i for i, name in enumerate(self.header)}
        if len(self._index) != len(self.header):
            raise source.error(f"a column name stands twice in {self.header}: rename one")
        if not rows:
            raise source.error("it has a header but no rows: it must hold at least one request")
        self.n_rows = len(rows)
        if set(map(len, rows)) != {len(self.header)}:
            self._raise_uneven(rows)
        self._columns = list(zip(*rows, strict=True))

    def __contains__(self, name: str) -> bool:
        return name.casefold() in self._index

    def require(self, *names: str) -> None:
        """Raise unless all columns are there."""
        missing = [name for name in names if name not in self]
        if missing:
            raise self.source.error(
                f"column {missing[0]!r} is missing: the header has {', '.join(self.header)}"
            )

    def texts(self, name: str) -> Sequence[str]:
        """Return a column as it stands in the file."""
        return self._columns[self._index[name.casefold()]]

    def tokens(self, name: str) -> Int64Array:
        """Return a column of token counts."""
        return token_column(self.texts(name), name, self.row_error)

    def times(self, name: str, unit_ns: int) -> Int64Array:
        """Return a column of decimal times in nanoseconds."""
        return time_column(self.texts(name), unit_ns, name, self.row_error)

    def row_error(self, row: int, problem: str) -> WorkloadError:
        """Word a problem of a row, counted from 0 below the header."""
        for number, line in enumerate(self._lines()):
            if number == row + self._header_rows:
                return self.source.error(problem, row=row + 1, line=line)
        return self.source.error(problem, row=row + 1)

    def _lines(self) -> Iterator[int]:
        """Line numbers of the rows, header included; only an error pays for reading again."""
        reader = csv.reader(io.StringIO(self.source.text, newline=""))
        for row in reader:
            if row:
                yield reader.line_num

    def _raise_uneven(self, rows: list[list[str]]) -> None:
        for number, row in enumerate(rows):
            if len(row) != len(self.header):
                kind = "the row is cut short" if len(row) < len(self.header) else "a stray comma?"
                raise self.row_error(
                    number,
                    f"it has {len(row)} values where {len(self.header)} are expected "
                    f"({', '.join(self.header)}): {kind}",
                )
