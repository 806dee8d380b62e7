"""What a run gives by columns: streams for Arrow, polars and pandas, single metrics for numpy."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from foundry_fastlog.reading.starts import RERECORDED, known_streams, number_starts
from foundry_fastlog.run.checks import Problems, SeriesCheck
from foundry_fastlog.run.files import STREAMS, Attempts, Series, Writer

if TYPE_CHECKING:  # loaded when a stream is read; optional packages
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped,import-not-found,unused-ignore]

    from foundry_fastlog.reading.columns import Columns, Metric
    from foundry_fastlog.reading.scan import Choice, Scan, Statistics

__all__ = ["ByColumns"]


class ByColumns:
    """The half of a run that reads whole streams, with the native reader and all processors.

    Attributes:
        series: Every stream of every writer.
        unread: How many files and rings cannot be read.
    """

    series: tuple[Series, ...]
    unread: int
    _problems: Problems

    def arrow(
        self,
        stream: str,
        *,
        names: str | Sequence[str] | None = None,
        steps: tuple[int | None, int | None] | None = None,
        ranks: int | Iterable[int] | None = None,
        attempts: Attempts = "last",
    ) -> Columns:
        """Read a stream by columns, one row per line, one column per metric.

        What this gives is taken without a copy by all that knows Arrow's PyCapsule interface:
        polars, pyarrow, DuckDB, pandas.

        Columns: ``timestamp`` (UTC, microseconds), ``seq``, ``step``, ``epoch``, the
        stream's own fields, the metrics by their names, then ``rank``, ``attempt`` and
        ``label``. A metric with the name of another column gets the prefix ``metrics.``.
        A value that a line does not have, or that never arrived, is null; NaN is NaN. A column is
        int64 when all its values are integers that fit, float64 when they are numbers, and text
        where they are of several other types: then each value stands as in JSON. ``context`` is
        JSON text.

        Args:
            stream: ``metrics``, ``performance``, ``errors`` or ``log``.
            names: Which metrics to read, or which blocks of ``performance``: a name, a pattern
                such as ``val_*``, or several. Lines that have none of them are left out.
            steps: The first and the last step to read, both included; None for no bound. Lines
                without a step are left out then.
            ranks: Only the lines of this rank, or of these.
            attempts: As for ``lines``.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown stream or ``attempts``, or ``names`` for another stream.
            ReadProblemError: A problem, with ``strict``.
        """
        from foundry_fastlog.reading.columns import Columns

        if names is not None and stream not in RERECORDED:
            raise ValueError(f"names are of metrics and performance; {stream} has none")
        choice = _choice([names] if isinstance(names, str) else names, steps)
        return Columns(self._scan(stream, choice, ranks, attempts).frame(STREAMS.index(stream)))

    def to_polars(
        self, stream: str, *, attempts: Attempts = "last", rank: int | None = None
    ) -> pl.DataFrame:
        """Read a stream into a polars DataFrame; columns as in ``arrow``.

        Raises:
            ImportError: polars is not installed; the message says how to get it.
            ValueError: An unknown stream or ``attempts``.
        """
        return self.arrow(stream, attempts=attempts, ranks=rank).to_polars()

    def to_pandas(
        self, stream: str, *, attempts: Attempts = "last", rank: int | None = None
    ) -> pd.DataFrame:
        """Read a stream into a pandas DataFrame; columns as in ``arrow``.

        Integer columns with absent values are ``Int64``. pandas shows an absent float as
        NaN, as it does a NaN.

        Raises:
            ImportError: pandas is not installed; the message says how to get it.
            ValueError: An unknown stream or ``attempts``.
        """
        return self.arrow(stream, attempts=attempts, ranks=rank).to_pandas()

    def to_arrow(
        self, stream: str, *, attempts: Attempts = "last", rank: int | None = None
    ) -> pa.Table:
        """Read a stream into a pyarrow Table; columns as in ``arrow``.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: An unknown stream or ``attempts``.
        """
        return self.arrow(stream, attempts=attempts, ranks=rank).to_arrow()

    def metric(
        self,
        name: str,
        *,
        steps: tuple[int | None, int | None] | None = None,
        ranks: int | Iterable[int] | None = None,
        attempts: Attempts = "last",
    ) -> Metric:
        """Read one metric: only its values are parsed.

        Args:
            name: Its name, as recorded.
            steps: As for ``arrow``.
            ranks: As for ``arrow``.
            attempts: As for ``lines``.

        Returns:
            Steps, values, times, ranks and starts, as numpy arrays. Values of epoch summaries are
            not among them; without any value the arrays are empty.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
        """
        from foundry_fastlog.reading.columns import Columns

        choice = _choice([name], steps, exact=True)
        frame = self._scan("metrics", choice, ranks, attempts).frame(STREAMS.index("metrics"))
        return Columns(frame).metric(name)

    def numbers(self, name: str) -> array[float] | None:
        """Read the values of a metric that has nothing but numbers, without numpy.

        Args:
            name: Its name.

        Returns:
            Its values as floats; None where it has others, too, or is in summaries of epochs.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
        """
        from foundry_fastlog.reading.columns import Columns

        scan = self._scan("metrics", _choice([name], None, exact=True), None, "last")
        return Columns(scan.frame(STREAMS.index("metrics"))).numbers(name)

    def names(
        self, stream: str = "metrics", *, ranks: int | Iterable[int] | None = None
    ) -> list[str]:
        """List the metrics that were recorded, or the blocks of ``performance``.

        Those of epoch summaries are among them.

        Args:
            stream: ``metrics`` or ``performance``.
            ranks: As for ``arrow``.

        Returns:
            Their names, in the order in which they appeared.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: Another stream.
        """
        from foundry_fastlog.reading.scan import Choice

        if stream not in RERECORDED:
            raise ValueError(f"names are of metrics and performance; {stream} has none")
        scan = self._scan(stream, Choice(rows=False, list_names=True), ranks, "all")
        count = sum(_is_chosen(series, stream, ranks) for series in self.series)
        found = [
            (time, number, place, name)
            for number in range(count)
            for place, (name, time) in enumerate(scan.names(number))
        ]
        return list(dict.fromkeys(name for _, _, _, name in sorted(found)))

    def steps(
        self, stream: str = "metrics", *, ranks: int | Iterable[int] | None = None
    ) -> np.ndarray[Any, Any]:
        """List the steps that were recorded, each once, ascending.

        Args:
            stream: A stream, as for ``arrow``.
            ranks: As for ``arrow``.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
        """
        import numpy as np

        from foundry_fastlog.reading.scan import Choice

        scan = self._scan(stream, Choice(rows=False, note_steps=True), ranks, "all")
        ranges = [np.arange(first, last + 1, dtype=np.int64) for first, last in scan.steps()]
        return np.concatenate([np.empty(0, np.int64), *ranges])

    def sums(
        self, stream: str, first: dict[Writer, str], *, attempts: Attempts = "last"
    ) -> tuple[Statistics | None, list[SeriesCheck]]:
        """Sum up ``metrics`` or ``performance``, in little memory.

        Args:
            stream: Which of them.
            first: The earliest timestamps of writers, where they are known.
            attempts: As for ``lines``.

        Returns:
            What was found, None where the run has no such stream; and what checking it found.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown ``attempts``.
        """
        from foundry_fastlog.reading.scan import Choice, sum_series

        chosen, starts = self._chosen(stream, None, attempts)
        checks = [SeriesCheck(series, unread=self.unread) for series in chosen]
        if not chosen:
            return None, checks
        known = [first.get(series.writer, "") for series in chosen]
        choice = Choice(starts=starts)
        return sum_series(chosen, choice, known, checks, self._problems), checks

    def _scan(
        self,
        stream: str,
        choice: Choice,
        ranks: int | Iterable[int] | None,
        attempts: Attempts,
    ) -> Scan:
        from foundry_fastlog.reading.scan import scan_series

        chosen, starts = self._chosen(stream, ranks, attempts)
        checks = [SeriesCheck(series, unread=self.unread) for series in chosen]
        return scan_series(chosen, replace(choice, starts=starts), checks, self._problems)

    def _chosen(
        self, stream: str, ranks: int | Iterable[int] | None, attempts: Attempts
    ) -> tuple[list[Series], dict[Series, tuple[int, int]]]:
        """Choose series, and say which of them take the place of others."""
        known_streams([stream])
        if attempts not in ("last", "all"):
            raise ValueError(f"attempts must be 'last' or 'all', got {attempts!r}")
        if ranks is not None and not isinstance(ranks, int):
            ranks = tuple(ranks)
        chosen = [series for series in self.series if _is_chosen(series, stream, ranks)]
        takes_over = attempts == "last" and stream in RERECORDED
        return chosen, number_starts(chosen) if takes_over else {}


def _choice(
    names: Sequence[str] | None, steps: tuple[int | None, int | None] | None, *, exact: bool = False
) -> Choice:
    from foundry_fastlog.reading.scan import INT64_MAX, INT64_MIN, Choice

    first, last = steps or (None, None)
    return Choice(
        names=names,
        exact=exact,
        seqs=not exact,
        first_step=INT64_MIN if first is None else first,
        last_step=INT64_MAX if last is None else last,
    )


def _is_chosen(series: Series, stream: str, ranks: int | Iterable[int] | None) -> bool:
    if series.stream != stream:
        return False
    if isinstance(ranks, int):
        return series.writer.rank == ranks
    return ranks is None or series.writer.rank in ranks
