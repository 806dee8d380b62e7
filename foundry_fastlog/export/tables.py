"""A stream of several runs as one table: its columns, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from foundry_fastlog.export.result import NamedRun, Tally
from foundry_fastlog.reading.columns import Columns

__all__ = ["StreamTable", "column_names", "common_kind", "kinds_of"]

_LAST = ("rank", "start", "label")


class StreamTable:
    """One stream of runs, in columns that fit all of them.

    Args:
        runs: The runs.
        stream: The stream.
        tally: Counts the rows; told of values that change so that a column has one type.

    Attributes:
        stream: The stream.
        kinds: By column, ``run`` first, what it holds; see ``Columns.to_numpy``.
        runs: The runs that have rows.
    """

    def __init__(self, runs: Sequence[NamedRun], stream: str, tally: Tally) -> None:
        self.stream = stream
        self.runs: list[NamedRun] = []
        self.kinds: dict[str, str] = {"run": "text"}
        self._only: Columns | None = None
        for one in runs:
            columns = one.run.arrow(stream, starts=one.starts)
            tally.rows[stream] += columns.rows
            tally.take_left_out(one.run, [stream])
            tally.checks += one.checks(stream)
            self._add(columns)
            if columns.rows:
                self.runs.append(one)
                # What is read once more need not be kept.
                self._only = columns if len(runs) == 1 else None
        self.kinds = {
            **{name: kind for name, kind in self.kinds.items() if name not in _LAST},
            **{name: self.kinds[name] for name in _LAST if name in self.kinds},
        }

    def _add(self, columns: Columns) -> None:
        for column, kind in kinds_of(columns).items():
            self.kinds[column] = common_kind(self.kinds.get(column, "null"), kind)

    def parts(self) -> Iterator[tuple[NamedRun, Columns]]:
        """Yield the rows of each run that has some."""
        for one in self.runs:
            yield one, self._only or one.run.arrow(self.stream, starts=one.starts)


def column_names(columns: Columns) -> dict[str, str]:
    """Say what the columns of a run are called beside one that names the run.

    A metric of that name, however it is written, gets the prefix that other such metrics have.
    """
    found = {}
    for name in columns.names:
        column = name
        while column.lower() == "run" or (column != name and column in columns.kinds):
            column = f"metrics.{column}"
        found[name] = column
    return found


def kinds_of(columns: Columns) -> dict[str, str]:
    """Say what the columns of a run hold, by what they are called in a table."""
    return {column: columns.kinds[name] for name, column in column_names(columns).items()}


def common_kind(one: str, other: str) -> str:
    """Return the kind that holds the values of two."""
    if "null" in (one, other) or one == other:
        return other if one == "null" else one
    if "text" in (one, other):
        return "text"
    return "float64" if "float64" in (one, other) else "int64"
