"""Write a stream of runs as CSV, as pandas, polars and DuckDB read it."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

from foundry_fastlog.export.result import Tally
from foundry_fastlog.export.tables import StreamTable, column_names

if TYPE_CHECKING:
    from foundry_fastlog.reading.scan import ColumnPart

__all__ = ["write_csv"]

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC, without saying so in each text
_ROWS = 4096  # at a time


def write_csv(table: StreamTable, handle: BinaryIO, tally: Tally) -> None:
    """Write a header and the rows.

    Values are as in the lines: floats read back as the same double. NaN and infinities are ``NaN``,
    ``inf`` and ``-inf``, as pandas and polars expect them, bools ``true`` and ``false``, absent
    values empty.

    Args:
        table: The rows.
        handle: Receives the text, in UTF-8.
        tally: Told of what CSV cannot tell apart.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.kinds)
    _pass_on(text, handle)
    for one, columns in table.parts():
        kinds = [(column, columns.kinds[name]) for name, column in column_names(columns).items()]
        for batch in columns.batches():
            parts = {
                column: (kind, part) for (column, kind), part in zip(kinds, batch, strict=True)
            }
            for first in range(0, batch[0][0], _ROWS):
                rows = range(first, min(first + _ROWS, batch[0][0]))
                cells: list[list[Any]] = []
                for column, wanted in table.kinds.items():
                    if column == "run":
                        cells.append([one.name] * len(rows))
                    elif column in parts:
                        cells.append(_cells(*parts[column], rows, wanted))
                    else:
                        cells.append([None] * len(rows))
                    if wanted == "text" and column != "label":
                        tally.note("empty texts, like absent values in CSV", cells[-1].count(""))
                writer.writerows(zip(*cells, strict=True))
                _pass_on(text, handle)


def _cells(kind: str, part: ColumnPart, rows: range, wanted: str) -> list[Any]:
    """Return some values of a column as ``csv`` writes them."""
    _, _, valid, values, text = part
    if kind == "null" or values is None:
        return [None] * len(rows)
    cells: list[Any]
    if kind == "float64":
        floats = memoryview(values).cast("d")[rows.start : rows.stop].tolist()
        cells = [value if value == value else "NaN" for value in floats]
    elif kind in ("int64", "time"):
        cells = memoryview(values).cast("q")[rows.start : rows.stop].tolist()
    elif kind == "bool":
        words = (0, 1) if wanted in ("int64", "float64") else ("false", "true")
        cells = [words[bit] for bit in _bits(memoryview(values), rows)]
    else:
        ends = memoryview(values).cast("q")[rows.start : rows.stop + 1].tolist()
        data = memoryview(b"" if text is None else text)
        cells = [str(data[a:b], "utf-8") for a, b in pairwise(ends)]
    if valid is not None:
        cells = [
            c if bit else None for c, bit in zip(cells, _bits(memoryview(valid), rows), strict=True)
        ]
    if kind == "time":
        cells = [None if value is None else _moment(value) for value in cells]
    return cells


def _bits(data: memoryview, rows: range) -> list[int]:
    return [data[row >> 3] >> (row & 7) & 1 for row in rows]


def _moment(microseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.isoformat(timespec="microseconds") + "Z"


def _pass_on(text: io.StringIO, handle: BinaryIO) -> None:
    handle.write(text.getvalue().encode())
    text.seek(0)
    text.truncate()
