"""A stream of a run as a polars or pandas DataFrame. Both packages are optional."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from foundry_fastlog.reading.counting import is_marker
from foundry_fastlog.reading.lines import Entry, Record, restore_nonfinite

if TYPE_CHECKING:  # optional packages
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl

__all__ = ["to_pandas", "to_polars"]

# The columns that a stream always has, in order, and their types.
_KINDS = {
    "timestamp": str,
    "seq": int,
    "step": int,
    "epoch": int,  # or float, if one is a fraction
    "name": str,
    "duration_s": float,
    "depth": int,
    "parent": str,
    "thread": int,
    "error": str,
    "device": str,
    "device_duration_s": float,
    "level": str,
    "logger": str,
    "message": str,
    "event": str,
    "error_type": str,
    "error_message": str,
    "traceback": str,
    "fingerprint": str,
    "context": str,
    "rank": int,
    "attempt": int,
    "label": str,
}
_FIELDS: dict[str, tuple[str, ...]] = {
    "metrics": ("step", "epoch"),
    "performance": (
        *("name", "duration_s", "step", "depth", "parent", "thread", "error"),
        *("device", "device_duration_s"),
    ),
    "errors": (
        *("level", "logger", "step", "message", "event"),
        *("error_type", "error_message", "traceback", "fingerprint", "context"),
    ),
    "log": ("level", "logger", "step", "message", "context"),
    "system": ("step",),
}
_INT64 = 1 << 63
_ORIGIN = ("rank", "attempt", "label")


def _rows(entries: Iterable[Entry], stream: str) -> Iterator[Record]:
    """Yield flat records: the fixed fields, the metrics, and the line's origin."""
    fixed = ("timestamp", "seq", *_FIELDS[stream])
    taken = {*fixed, *_ORIGIN}
    for _, series, record, _ in entries:
        if is_marker(record):
            continue
        row: Record = {name: record.get(name) for name in fixed}
        if "context" in row:
            row["context"] = orjson.dumps(record.get("context", {})).decode()
        restore_nonfinite(record)
        for part in ("metrics", "summary", "system"):
            values = record.get(part)
            for key, value in values.items() if isinstance(values, dict) else ():
                row[f"metrics.{key}" if key in taken or not key else key] = value
        row["rank"] = series.writer.rank
        row["attempt"] = series.writer.attempt
        row["label"] = series.writer.label
        yield row


def _columns(entries: Iterable[Entry], stream: str) -> dict[str, list[Any]]:
    """Collect a stream into columns of equal length, each with one type."""
    columns: dict[str, list[Any]] = {name: [] for name in ("timestamp", "seq", *_FIELDS[stream])}
    origin: dict[str, list[Any]] = {name: [] for name in _ORIGIN}
    count = 0
    for row in _rows(entries, stream):
        for name in _ORIGIN:
            origin[name].append(row.pop(name))
        for name, value in row.items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = []
            if len(column) < count:
                column.extend([None] * (count - len(column)))
            column.append(value)
        count += 1
    for name, column in columns.items():
        column.extend([None] * (count - len(column)))
        columns[name] = _one_type(column)
    return columns | origin


def _one_type(values: list[Any]) -> list[Any]:
    """Convert a column to one type: int and float to float, other mixtures to text."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {int, float} or (kinds == {int} and not all(map(_fits, values))):
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or kinds & {dict, list}:
        return [
            value if value is None or type(value) is str else orjson.dumps(value).decode()
            for value in values
        ]
    return values


def _fits(value: int | None) -> bool:
    """Return whether a column of 64-bit integers can hold a value."""
    return value is None or -_INT64 <= value < _INT64


def _kind(name: str, values: list[Any]) -> type | None:
    """Return the type of a column's values; for an empty column, the type it would have."""
    kinds = set(map(type, values)) - {type(None)}
    return kinds.pop() if kinds else _KINDS.get(name)


def _missing(package: str) -> str:
    return (
        f"{package} is not installed. Install it with: pip install 'foundry_fastlog[{package}]' "
        f"(or use Run.lines, which does not need it)"
    )


def to_polars(entries: Iterable[Entry], stream: str) -> pl.DataFrame:
    """Convert the entries of a stream to a polars DataFrame; see ``Run.to_polars``."""
    try:
        import polars as pl
    except ImportError as error:
        raise ImportError(_missing("polars")) from error
    dtypes: dict[type | None, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String}
    columns = []
    for name, values in _columns(entries, stream).items():
        columns.append(pl.Series(name, values, dtype=dtypes.get(_kind(name, values))))
    moments = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
    return pl.DataFrame(columns).with_columns(moments)


def to_pandas(entries: Iterable[Entry], stream: str) -> pd.DataFrame:
    """Convert the entries of a stream to a pandas DataFrame; see ``Run.to_pandas``."""
    try:
        import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise ImportError(_missing("pandas")) from error
    columns: dict[str, Any] = {}
    for name, values in _columns(entries, stream).items():
        whole = _kind(name, values) is int and (None in values or not values)
        columns[name] = pd.array(values, dtype="Int64") if whole else values
    frame = pd.DataFrame(columns)
    frame["timestamp"] = pd.to_datetime(
        frame["timestamp"], utc=True, format="ISO8601", errors="coerce"
    )
    return frame
