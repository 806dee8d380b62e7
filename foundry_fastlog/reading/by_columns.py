"""Read a run by columns: streams for Arrow, polars and pandas, single metrics for numpy."""

from __future__ import annotations

import functools
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from foundry_fastlog.base.arguments import bounds_of, names_of, ranks_of
from foundry_fastlog.reading.counting import (
    RECOUNTED,
    Counting,
    Firsts,
    Spared,
    Starts,
    find_spared,
    known_firsts,
    known_streams,
    split_starts,
)
from foundry_fastlog.run.checks import Problems, SeriesCheck
from foundry_fastlog.run.files import STREAMS, Series, Writer
from foundry_fastlog.run.start_entries import read_entry

if TYPE_CHECKING:  # loaded when a stream is read; optional packages
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped,import-not-found,unused-ignore]
    from typing_extensions import Unpack

    from foundry_fastlog.reading.columns import Columns, Metric
    from foundry_fastlog.reading.scan import Choice, Frame, Scan, Statistics

__all__ = ["ByColumns", "native_firsts"]

_Ranks = int | Iterable[int] | None


class Chosen(TypedDict, total=False):
    """Arguments of ``arrow``."""

    names: str | Sequence[str] | None
    steps: tuple[int | None, int | None] | None
    ranks: int | Iterable[int] | None
    starts: Starts


#: The streams whose values have names.
NAMED = ("metrics", "performance", "system")


class ByColumns:
    """The half of a run that reads whole streams, with the native reader and all processors.

    Attributes:
        path: The run directory.
        series: Every stream of every writer.
        starts: Numbers of the run's starts.
        left_out: Values that the last read of a stream omitted, by stream and name.
        unread: How many files and rings cannot be read.
    """

    path: Path
    series: tuple[Series, ...]
    starts: tuple[int, ...]
    left_out: dict[str, Counter[str]]
    unread: int
    _problems: Problems
    _numbers: dict[Writer, int]
    _known_firsts: dict[tuple[str, tuple[int, int]], Firsts]

    def arrow(
        self,
        stream: str,
        *,
        names: str | Sequence[str] | None = None,
        steps: tuple[int | None, int | None] | None = None,
        ranks: int | Iterable[int] | None = None,
        starts: Starts = "latest",
    ) -> Columns:
        """Read a stream by columns, one row per line, one column per metric.

        What this gives is taken without a copy by all that knows Arrow's PyCapsule interface:
        polars, pyarrow, DuckDB, pandas.

        Columns: ``timestamp`` (UTC, microseconds), ``seq``, ``step``, ``epoch``, the
        stream's own fields, the metrics by their names, then ``rank``, ``start`` and
        ``label``. A metric with the name of another column gets the prefix ``metrics.``.
        A value that a line does not have, or that never arrived, is null; NaN is NaN. A column is
        int64 when all its values are integers that fit, float64 when they are numbers, and text
        where they are of several other types: then each value stands as in JSON. ``context`` is
        JSON text.

        Args:
            stream: ``metrics``, ``performance``, ``errors``, ``log`` or ``system``.
            names: Which metrics to read, or which blocks of ``performance``: a name, a pattern
                such as ``val_*``, or several. Lines that have none of them are left out.
            steps: The first and the last step to read, both included; None for no bound. Lines
                without a step are left out then.
            ranks: Only the lines of this rank, or of these.
            starts: As for ``lines``.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown stream or start, or ``names`` for a stream that has none.
            ReadProblemError: A problem, with ``strict``.
        """
        from foundry_fastlog.reading.columns import Columns

        if names is not None:
            _check_named(stream)
        choice = _choice(None if names is None else names_of(names), steps)
        return Columns(self._frame(stream, choice, ranks, starts))

    def to_polars(self, stream: str, **chosen: Unpack[Chosen]) -> pl.DataFrame:
        """Read a stream into a polars DataFrame; arguments and columns as in ``arrow``.

        Raises:
            ImportError: polars is not installed; the message says how to get it.
            ValueError: An unknown stream or start.
        """
        return self.arrow(stream, **chosen).to_polars()

    def to_pandas(self, stream: str, **chosen: Unpack[Chosen]) -> pd.DataFrame:
        """Read a stream into a pandas DataFrame; arguments and columns as in ``arrow``.

        Integer columns with absent values are ``Int64``. pandas shows an absent float as
        NaN, as it does a NaN.

        Raises:
            ImportError: pandas is not installed; the message says how to get it.
            ValueError: An unknown stream or start.
        """
        return self.arrow(stream, **chosen).to_pandas()

    def to_arrow(self, stream: str, **chosen: Unpack[Chosen]) -> pa.Table:
        """Read a stream into a pyarrow Table; arguments and columns as in ``arrow``.

        Raises:
            ImportError: pyarrow is not installed.
            ValueError: An unknown stream or start.
        """
        return self.arrow(stream, **chosen).to_arrow()

    def metric(
        self,
        name: str,
        *,
        steps: tuple[int | None, int | None] | None = None,
        ranks: int | Iterable[int] | None = None,
        starts: Starts = "latest",
    ) -> Metric:
        """Read one metric: only its values are parsed.

        Args:
            name: Its name, as recorded.
            steps: As for ``arrow``.
            ranks: As for ``arrow``.
            starts: As for ``lines``.

        Returns:
            Steps, values, times, ranks and starts, as numpy arrays. Values of epoch summaries are
            not among them; without any value the arrays are empty.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
        """
        from foundry_fastlog.reading.columns import Columns

        return Columns(self.exact_frame(name, steps, ranks, starts)).metric(name)

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

        return Columns(self.exact_frame(name, None, None, "latest")).numbers(name)

    def names(
        self, stream: str = "metrics", *, ranks: int | Iterable[int] | None = None
    ) -> list[str]:
        """List the metrics that were recorded, or the blocks of ``performance``.

        Those of epoch summaries are among them.

        Args:
            stream: ``metrics``, ``performance`` or ``system``.
            ranks: As for ``arrow``.

        Returns:
            Their names, in the order in which they appeared.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: Another stream.
        """
        from foundry_fastlog.reading.scan import Choice

        _check_named(stream)
        if ranks is not None:
            ranks = ranks_of(ranks)
        scan = self._scan(stream, Choice(rows=False, list_names=True), ranks, "all")
        found = [
            (time, number, place, name)
            for number in range(len(self._series_of([stream], ranks, "all")))
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
        self,
        stream: str,
        first: dict[Writer, str],
        *,
        starts: Starts = "latest",
        ranks: _Ranks = None,
    ) -> tuple[Statistics | None, list[SeriesCheck]]:
        """Sum up ``metrics``, ``performance`` or ``system``, in little memory.

        Args:
            stream: Which of them.
            first: The earliest timestamps of writers, where they are known.
            starts: As for ``lines``.
            ranks: As for ``arrow``.

        Returns:
            What was found, None if the run has no such stream; and the checks of its series.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown start.
        """
        from foundry_fastlog.reading.scan import Choice, sum_series

        chosen, choice = self._chosen(stream, Choice(), ranks, starts)
        checks = [SeriesCheck(series, unread=self.unread) for series in chosen]
        if not chosen:
            return None, checks
        known = [first.get(series.writer, "") for series in chosen]
        found = sum_series(chosen, choice, known, checks, self._problems)
        self._note_left_out(stream, starts, found.left_out())
        return found, checks

    def _check_stream(self, stream: str, rank: int | None) -> list[SeriesCheck]:
        """Read a stream to its end; see ``Run.check``."""
        from foundry_fastlog.reading.scan import Choice, scan_series

        chosen = self._series_of([stream], rank, "all")
        checks = [SeriesCheck(series, unread=self.unread) for series in chosen]
        scan_series(chosen, Choice(rows=False), checks, self._problems)
        return checks

    def exact_frame(
        self,
        name: str,
        steps: tuple[int | None, int | None] | None,
        ranks: _Ranks,
        starts: Starts,
    ) -> Frame:
        """Read what `metric()` and the curves are made of."""
        return self._frame("metrics", _choice(names_of(name), steps, exact=True), ranks, starts)

    def _frame(self, stream: str, choice: Choice, ranks: _Ranks, starts: Starts) -> Frame:
        frame = self._scan(stream, choice, ranks, starts).frame(STREAMS.index(stream))
        self._note_left_out(stream, starts, frame.left_out)
        return frame

    def _scan(self, stream: str, choice: Choice, ranks: _Ranks, starts: Starts) -> Scan:
        from foundry_fastlog.reading.scan import scan_series

        chosen, choice = self._chosen(stream, choice, ranks, starts)
        checks = [SeriesCheck(series, unread=self.unread) for series in chosen]
        return scan_series(chosen, choice, checks, self._problems)

    def _chosen(
        self, stream: str, choice: Choice, ranks: _Ranks, starts: Starts
    ) -> tuple[list[Series], Choice]:
        """Choose series, and say what of them counts."""
        chosen = self._series_of([stream], ranks, starts)
        numbers = {series: self._numbers[series.writer] for series in chosen}
        counts = stream in RECOUNTED and starts != "all"
        cutoffs = {}
        if counts and starts == "latest" and choice.rows:
            counting = Counting(stream, self._firsts(stream, native_firsts))
            cutoffs = counting.cutoffs(self._numbers, self._spared)
        return chosen, replace(choice, starts=numbers, counts=counts, cutoffs=cutoffs)

    def _series_of(self, streams: Iterable[str], ranks: _Ranks, starts: Starts) -> list[Series]:
        """Choose series by their streams, ranks and start.

        Raises:
            ValueError: An unknown stream or start.
        """
        wanted = known_streams(streams)
        self._check_starts(starts)
        if ranks is not None:
            ranks = ranks_of(ranks)
        return [
            series
            for series in self.series
            if series.stream in wanted
            and (ranks is None or series.writer.rank in ranks)
            and (isinstance(starts, str) or self._numbers[series.writer] == starts)
        ]

    def _check_starts(self, starts: Starts) -> None:
        if isinstance(starts, bool) or starts not in ("latest", "all", *self.starts):
            numbers = ", ".join(map(str, self.starts)) or "none"
            raise ValueError(f"starts must be 'latest', 'all' or one of {numbers}, got {starts!r}")

    @functools.cached_property
    def _spared(self) -> Spared:
        return find_spared(self._numbers, self._entry_of)

    @functools.cached_property
    def _entry_of(self) -> Callable[[int], dict[str, Any]]:
        return functools.cache(functools.partial(read_entry, self.path))

    def _firsts(
        self, stream: str, find: Callable[[list[Series]], Firsts]
    ) -> dict[tuple[int, int], Firsts]:
        """Return the first step of each name by part of a start; nothing of a single start."""
        chosen = [series for series in self.series if series.stream == stream]
        starts = {self._numbers[series.writer] for series in chosen}
        if len(starts) < 2:
            return {}
        firsts: dict[tuple[int, int], Firsts] = {}
        for part, of_part in split_starts(chosen, self._numbers, self._entry_of).items():
            if (key := (stream, part)) not in self._known_firsts:
                self._known_firsts[key] = {} if part[0] == min(starts) else find(of_part)
            firsts[part] = self._known_firsts[key]
        return firsts

    def _note_left_out(self, stream: str, starts: Starts, left_out: dict[str, int]) -> None:
        self.left_out.pop(stream, None)
        if stream in RECOUNTED and starts != "all":
            self.left_out[stream] = Counter(left_out)


def native_firsts(series: list[Series]) -> Firsts:
    """Read the first steps of a start; problems of its files are reported with their lines."""
    from foundry_fastlog.reading.scan import Choice, scan_series

    choice = Choice(rows=False, note_firsts=True)
    scan = scan_series(series, choice, [SeriesCheck(one) for one in series], Problems())
    return known_firsts(scan.firsts())


def _check_named(stream: str) -> None:
    if stream not in NAMED:
        raise ValueError(f"names are of {', '.join(NAMED)}; {stream} has none")


def _choice(
    names: Sequence[str] | None, steps: tuple[int | None, int | None] | None, *, exact: bool = False
) -> Choice:
    from foundry_fastlog.reading.scan import Choice

    first, last = bounds_of(steps)
    return Choice(
        names=names,
        exact=exact,
        seqs=not exact,
        first_step=first,
        last_step=last,
    )
