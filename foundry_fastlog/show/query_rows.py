"""Write the rows of a query: as a table on a terminal, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson
from rich.text import Text

from foundry_fastlog.base.arguments import INT64_MAX, INT64_MIN
from foundry_fastlog.base.formatting import format_value, jsonable, printable
from foundry_fastlog.show.tables import MOST, show_row, table

if TYPE_CHECKING:  # the caller passes in the object
    from rich.console import Console

__all__ = ["csv_of", "json_of", "plain_value", "render_rows"]

_Row = tuple[Any, ...]
_TOGETHER = 500  # rows that are written at a time
_MOST_COLUMNS = 12
_MOST_CHARACTERS = 60


def render_rows(
    names: list[str], rows: Iterable[_Row], console: Console, *, limit: int | None = None
) -> None:
    """Show rows as a table; of many a screenful, and how many more there are.

    Args:
        names: The names of the columns.
        rows: The rows.
        console: Where to.
        limit: How many at most; 0 for all; None for what fits on a screen.
    """
    if limit is None:
        limit = max(5, console.height - 5) if console.is_terminal else MOST
    found = iter(rows)
    shown = list(islice(found, limit)) if limit else list(found)
    left = sum(1 for _ in found)
    columns = names if limit == 0 else names[:_MOST_COLUMNS]
    drawn = table("", *map(printable, columns))
    for place, shape in enumerate(drawn.columns):
        numbers = all(isinstance(row[place], (int, float, Decimal, type(None))) for row in shown)
        shape.justify = "right" if numbers else "left"
    for row in shown:
        show_row(drawn, *(_shown(value) for value in row[: len(columns)]))
    console.print(drawn)
    console.print(Text(f"{len(shown) + left:,} {'row' if len(shown) + left == 1 else 'rows'}"))
    if left:
        console.print(Text(f"... {left:,} more; --limit 0 shows all", "dim"), soft_wrap=True)
    if more := names[len(columns) :]:
        listed = ", ".join(printable(name, 40) for name in more[:_MOST_COLUMNS])
        rest = f" and {len(more) - _MOST_COLUMNS:,} more" if len(more) > _MOST_COLUMNS else ""
        console.print(Text(f"columns not shown: {listed}{rest}", "dim"), soft_wrap=True)


def _shown(value: Any) -> str:  # noqa: ANN401 - of any type that SQL has
    plain = plain_value(value)
    if isinstance(plain, (list, dict)):
        return printable(orjson.dumps(plain, option=orjson.OPT_NON_STR_KEYS).decode(), 60)
    return printable(plain, _MOST_CHARACTERS) if isinstance(plain, str) else format_value(plain)


def csv_of(names: list[str], rows: Iterable[_Row]) -> Iterator[bytes]:
    """Yield rows as CSV, their names first; NULL is empty."""

    def cell(value: Any) -> Any:  # noqa: ANN401 - of any type that SQL has
        plain = plain_value(value)
        if isinstance(plain, (list, dict)):
            return orjson.dumps(plain, option=orjson.OPT_NON_STR_KEYS).decode()
        return format_value(plain) if isinstance(plain, bool) else plain

    def line(values: Iterable[Any]) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        return text.getvalue()

    yield line(names).encode("utf-8", "backslashreplace")
    yield from _together(rows, lambda row: line(map(cell, row)).encode("utf-8", "backslashreplace"))


def json_of(names: list[str], rows: Iterable[_Row]) -> Iterator[bytes]:
    """Yield rows as a JSON array of objects, one in a line."""

    def line(row: _Row) -> bytes:
        values = dict(zip(names, map(plain_value, row), strict=True))
        return orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS)

    first = True
    for part in _together(rows, lambda row: b",\n" + line(row)):
        yield b"[\n" + part[2:] if first else part
        first = False
    yield b"[]\n" if first else b"\n]\n"


def _together(rows: Iterable[_Row], write: Callable[[_Row], bytes]) -> Iterator[bytes]:
    found = iter(rows)
    while some := list(islice(found, _TOGETHER)):
        yield b"".join(map(write, some))


def plain_value(value: Any) -> Any:  # noqa: ANN401 - of any type that SQL has
    """Return a value as JSON has it: times as texts in UTC, intervals as seconds."""
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return str(value)
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(timezone.utc).replace(tzinfo=None)
            return f"{value.isoformat(timespec='microseconds')}Z"
        return value.isoformat(timespec="microseconds")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (str, float, int, type(None))):
        return jsonable(value)
    return value.hex() if isinstance(value, bytes) else str(value)
