"""A stream of a run by columns, for Arrow, polars, pandas, DuckDB and numpy.

What takes the Arrow PyCapsule interface takes a ``Columns`` as it is, without a copy:

    >>> import duckdb, polars                              # doctest: +SKIP
    >>> columns = run.arrow("metrics", names=["loss", "val_*"])
    >>> polars.DataFrame(columns)
    >>> duckdb.sql("SELECT max(step) FROM columns")
"""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the extension, and optional packages
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped,import-not-found,unused-ignore]

    from foundry_fastlog.reading.scan import ColumnPart, Frame

    _Array = tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any] | None]

__all__ = ["Columns", "Metric", "column_of", "known_rows"]

_FIXED = {"timestamp", "seq", "step", "epoch", "rank", "start", "label"}
_WIDTHS = {"int64": "<i8", "time": "<i8", "float64": "<f8"}


class Metric:
    """The values of one metric, as numpy arrays of equal length, each made when it is asked for.

    Args:
        name: Its name.
        columns: What was read of it.

    Attributes:
        name: Its name.
    """

    def __init__(self, name: str, columns: Columns) -> None:
        self.name = name
        self._columns = columns
        self._parts = columns.batches()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the arrays."""
        arrays = ("steps", "values", "time", "rank", "start")
        return {"name": self.name, **{one: getattr(self, one) for one in arrays}}

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, {len(self):,} values)"

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def steps(self) -> np.ndarray[Any, Any]:
        """Step of each value."""
        return self._of("step")

    @cached_property
    def values(self) -> np.ndarray[Any, Any]:
        """The values: int64 where all are integers, float64 where all are numbers; bools or texts.

        NaN is NaN; where nothing was recorded, or a value never arrived, there is none.
        """
        column = self._column
        if column is None:
            return self._of("step")[:0].astype("f8")
        return self._of(column)

    @cached_property
    def time(self) -> np.ndarray[Any, Any]:
        """When each was recorded, in UTC (``datetime64[us]``)."""
        time: np.ndarray[Any, Any] = self._of("timestamp").view("M8[us]")
        return time

    @cached_property
    def rank(self) -> np.ndarray[Any, Any]:
        """Rank of the process that recorded it."""
        return self._of("rank")

    @cached_property
    def start(self) -> np.ndarray[Any, Any]:
        """Number of the start that recorded it."""
        return self._of("start")

    @cached_property
    def _column(self) -> str | None:
        """Its column; None where it has no value."""
        column = column_of(self.name)
        return column if self._columns.kinds.get(column, "null") != "null" else None

    def _of(self, name: str) -> np.ndarray[Any, Any]:
        """A column where there are a value and a step."""
        _, values, _ = self._columns.array(name, self._parts)
        if self._column is None:
            return values[:0]
        for present in self._present:
            values = values[present]
        return values

    @cached_property
    def _present(self) -> list[Any]:
        """Which rows count; nothing where all do."""
        assert self._column is not None
        masks = [self._columns.array(name, self._parts)[2] for name in ("step", self._column)]
        first, second = masks
        if first is None or second is None:
            return [mask for mask in masks if mask is not None]
        return [first & second]


class Columns:
    """The rows of a stream, one per line, as columns of one type each.

    Args:
        frame: What the native reader made.

    Attributes:
        names: The columns' names.
        kinds: What each column holds; see ``to_numpy``.
        rows: How many rows there are.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self.kinds: dict[str, str] = dict(frame.schema)
        self.names: list[str] = list(self.kinds)
        self._places = {name: place for place, name in enumerate(self.names)}
        self.rows: int = frame.rows

    def __repr__(self) -> str:
        return f"Columns({self.rows:,} rows, {len(self.names)} columns)"

    def __len__(self) -> int:
        return self.rows

    def __arrow_c_schema__(self) -> object:
        """Give the schema as Arrow's PyCapsule interface has it."""
        return self._frame.arrow_schema()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Give all rows as Arrow's PyCapsule interface has it; each call gives all of them.

        Args:
            requested_schema: Another schema; it is not looked at, as the interface permits.
        """
        return self._frame.arrow_stream()

    def to_polars(self) -> pl.DataFrame:
        """Give a polars DataFrame, which shares the memory.

        Raises:
            ImportError: polars is not installed; the message says how to get it.
        """
        try:
            import polars as pl
        except ImportError as error:
            raise ImportError(_missing("polars", error)) from error
        return pl.DataFrame(self)

    def to_arrow(self) -> pa.Table:
        """Give a pyarrow Table, which shares the memory.

        Raises:
            ImportError: pyarrow is not installed.
        """
        try:
            import pyarrow as pa  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError(
                "pyarrow is not installed. Get it with: pip install pyarrow"
            ) from error
        return pa.table(self)

    def to_pandas(self) -> pd.DataFrame:
        """Give a pandas DataFrame.

        Integer columns with absent values are ``Int64``. pandas shows an absent float as NaN, as it
        does a NaN.

        Raises:
            ImportError: pandas is not installed; the message says how to get it.
        """
        try:
            import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError(_missing("pandas", error)) from error
        columns: dict[str, Any] = {}
        for name, (kind, values, valid) in self.to_numpy().items():
            if kind == "time":
                moments = values.view("M8[us]")
                if valid is not None:
                    moments[~valid] = "NaT"
                columns[name] = pd.Series(moments).dt.tz_localize("UTC")
            elif kind == "int64" and (valid is not None or not self.rows):
                absent = ~valid if valid is not None else values != values
                columns[name] = pd.arrays.IntegerArray(values, absent)
            elif kind == "float64" and valid is not None:
                values[~valid] = float("nan")
                columns[name] = values
            elif valid is not None:
                columns[name] = [v if ok else None for v, ok in zip(values, valid, strict=True)]
            else:
                columns[name] = list(values) if kind in ("text", "null") else values
        return pd.DataFrame(columns)

    def metric(self, name: str) -> Metric:
        """Give the values of one metric, without those of epoch summaries.

        Raises:
            ImportError: numpy is not installed.
        """
        _numpy()
        return Metric(name, self)

    def numbers(self, name: str) -> array[float] | None:
        """Give the values of a metric where all of them are numbers with a step, without numpy.

        Returns:
            The values as floats; None where there is anything else, or nothing.
        """
        column = column_of(name)
        kind = self.kinds.get(column)
        if kind not in ("int64", "float64"):
            return None
        step, value = (self.names.index(one) for one in ("step", column))
        found = array("d")
        for batch in self.batches():
            if batch[step][1] or batch[value][1]:
                return None
            part = memoryview(batch[value][3] or b"")
            found.extend(part.cast("d") if kind == "float64" else map(float, part.cast("q")))
        return found

    def to_numpy(self) -> dict[str, _Array]:
        """Give each column as its kind, its values and which rows have one; None for all.

        Kinds are ``time`` (microseconds since 1970), ``int64``, ``float64``, ``bool``, ``text`` and
        ``null``. Where a row has no value anything may stand.

        Raises:
            ImportError: numpy is not installed.
        """
        batches = self.batches()
        return {name: self.array(name, batches) for name in self.names}

    def batches(self) -> list[list[ColumnPart]]:
        """Give the rows as the native reader has them, for ``array``."""
        return self._frame.batches()

    def array(self, name: str, batches: list[list[ColumnPart]]) -> _Array:
        """Give one column; see ``to_numpy``."""
        np = _numpy()
        kind = self.kinds[name]
        number = self._places[name]
        parts = [batch[number] for batch in batches]
        values = [_values(np, kind, part) for part in parts]
        valid = None
        if any(part[1] for part in parts):
            valid = np.concatenate([known_rows(part) for part in parts])
        empty = np.empty(0, _WIDTHS.get(kind, "O"))
        return kind, np.concatenate(values) if values else empty, valid


def column_of(name: str) -> str:
    """Say which column a metric has."""
    taken = name in _FIXED or not name
    return f"metrics.{name}" if taken else name.replace("\0", "\\u0000")


def _numpy() -> Any:  # noqa: ANN401 - a module
    try:
        import numpy as np
    except ImportError as error:
        raise ImportError("numpy is not installed. Get it with: pip install numpy") from error
    return np


def _values(np: Any, kind: str, part: ColumnPart) -> Any:  # noqa: ANN401 - numpy's
    rows, _, _, values, text = part
    if kind in _WIDTHS:
        return np.frombuffer(values, _WIDTHS[kind], rows)
    if kind == "bool":
        return np.unpackbits(np.frombuffer(values, "u1"), count=rows, bitorder="little").astype("?")
    out = np.full(rows, None, "O")
    if kind == "text":
        ends = np.frombuffer(values, "<i8").tolist()
        data = bytes(memoryview(text)) if text is not None else b""
        for row in range(rows):
            out[row] = data[ends[row] : ends[row + 1]].decode()
    return out


def known_rows(part: ColumnPart) -> Any:  # noqa: ANN401 - an array of bool
    """Return which rows of a part of a column have a value."""
    np = _numpy()
    rows, nulls, valid, _, _ = part
    if valid is None:
        return np.full(rows, not nulls, "?")
    return np.unpackbits(np.frombuffer(valid, "u1"), count=rows, bitorder="little").astype("?")


def _missing(package: str, error: ImportError) -> str:
    if error.name != package:  # it is there, but not all that it needs
        return f"{package} cannot be imported: {error}"
    return (
        f"{package} is not installed. Get it with: pip install 'foundry_fastlog[{package}]' "
        f"(or read the lines with Run.lines, which needs nothing more)"
    )
