"""A stream of a run by columns, for Arrow, polars, pandas, DuckDB and numpy.

What takes the Arrow PyCapsule interface takes a ``Columns`` as it is, without a copy:

    >>> import duckdb, polars                              # doctest: +SKIP
    >>> columns = run.arrow("metrics", names=["loss", "val_*"])
    >>> polars.DataFrame(columns)
    >>> duckdb.sql("SELECT max(step) FROM columns")
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the extension, and optional packages
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped,import-not-found,unused-ignore]

    from foundry_fastlog.reading.scan import ColumnPart, Frame

__all__ = ["Columns", "Metric"]

_FIXED = {"timestamp", "seq", "step", "epoch", "rank", "attempt", "label"}
_WIDTHS = {"int64": "<i8", "time": "<i8", "float64": "<f8"}


@dataclass(frozen=True)
class Metric:
    """The values of one metric, as numpy arrays of equal length.

    Attributes:
        name: Its name.
        steps: Step of each value.
        values: int64 where all are integers, float64 where they are numbers, bool where they are
            that, else texts. NaN is NaN; where nothing was recorded there is no value.
        time: When each was recorded, in UTC (``datetime64[us]``).
        rank: Rank of the process that recorded it.
        start: Which start of its rank recorded it: 0 for the first, then 1, 2, ...
    """

    name: str
    steps: np.ndarray[Any, Any]
    values: np.ndarray[Any, Any]
    time: np.ndarray[Any, Any]
    rank: np.ndarray[Any, Any]
    start: np.ndarray[Any, Any]

    def __len__(self) -> int:
        return len(self.steps)


class Columns:
    """The rows of a stream, one per line, as columns of one type each.

    Args:
        frame: What the native reader made.

    Attributes:
        names: The columns' names.
        rows: How many rows there are.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._schema = frame.schema
        self.names: list[str] = [name for name, _ in self._schema]
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
            raise ImportError(_missing("polars")) from error
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
            raise ImportError(_missing("pandas")) from error
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
        column = f"metrics.{name}" if name in _FIXED or not name else name.replace("\0", "\\u0000")
        arrays = self.to_numpy(("timestamp", "step", "rank", "attempt", column))
        steps, has_step = arrays["step"][1:]
        if column in arrays and arrays[column][0] != "null":
            values, valid = arrays[column][1:]
        else:  # it was never recorded, or never arrived
            values, valid = steps.astype("f8"), steps != steps
        for present in (valid, has_step):
            if present is not None:
                valid = present if valid is None else valid & present
        time, rank, start = (arrays[key][1] for key in ("timestamp", "rank", "attempt"))
        if valid is not None:
            steps, values, time = steps[valid], values[valid], time[valid]
            rank, start = rank[valid], start[valid]
        return Metric(name, steps, values, time.view("M8[us]"), rank, start)

    def to_numpy(
        self, names: Collection[str] | None = None
    ) -> dict[str, tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any] | None]]:
        """Give columns as their kind, their values and which rows have one; None for all.

        Kinds are ``time`` (microseconds since 1970), ``int64``, ``float64``, ``bool``, ``text`` and
        ``null``. Where a row has no value anything may stand.

        Args:
            names: Which columns; all by default.

        Raises:
            ImportError: numpy is not installed.
        """
        try:
            import numpy as np
        except ImportError as error:
            raise ImportError("numpy is not installed. Get it with: pip install numpy") from error
        batches = self._frame.batches()
        found = {}
        for number, (name, kind) in enumerate(self._schema):
            if names is not None and name not in names:
                continue
            parts = [batch[number] for batch in batches]
            values = [_values(np, kind, part) for part in parts]
            valid = None
            if any(part[1] for part in parts):
                valid = np.concatenate([_valid(np, part) for part in parts])
            empty = np.empty(0, _WIDTHS.get(kind, "O"))
            found[name] = (kind, np.concatenate(values) if values else empty, valid)
        return found


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


def _valid(np: Any, part: ColumnPart) -> Any:  # noqa: ANN401 - numpy's
    rows, nulls, valid, _, _ = part
    if valid is None:
        return np.full(rows, not nulls, "?")
    return np.unpackbits(np.frombuffer(valid, "u1"), count=rows, bitorder="little").astype("?")


def _missing(package: str) -> str:
    return (
        f"{package} is not installed. Get it with: pip install 'foundry_fastlog[{package}]' "
        f"(or read the lines with Run.lines, which needs nothing more)"
    )
