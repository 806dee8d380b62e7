"""Read a run: its writers and streams, and its lines in order.

    >>> from foundry_fastlog import read_run       # doctest: +SKIP
    >>> run = read_run("runs/exp0")
    >>> for line in run.lines("metrics"):
    ...     line["step"], line["metrics"]["loss"]
    >>> run.metric("loss").values.min(), run.to_polars("metrics").height
    >>> run.problems
    []

Works from the files alone, during the run or years later, and never changes them. Records that a
killed process had not yet written are read from its ring. Lines are read lazily: a run of any size
takes a few megabytes of memory. Whole streams and single metrics are read by columns, natively.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from foundry_fastlog.reading.by_columns import ByColumns, native_firsts
from foundry_fastlog.reading.counting import (
    RECOUNTED,
    Counting,
    Firsts,
    Rewinds,
    Starts,
    first_steps,
    is_marker,
    keep_lines,
    known_streams,
    number_starts,
)
from foundry_fastlog.reading.lines import (
    Entry,
    Record,
    find_rewinds,
    read_series,
    restore_nonfinite,
)
from foundry_fastlog.reading.overlay import Overlay, describe_ring
from foundry_fastlog.reading.views import view
from foundry_fastlog.run.checks import Problem, Problems, ReadProblemError, SeriesCheck
from foundry_fastlog.run.files import (
    RUN_INFO,
    STREAMS,
    RunNotFoundError,
    Series,
    StrPath,
    Writer,
    open_run_dir,
)
from foundry_fastlog.run.info import read_run_file
from foundry_fastlog.run.start_entries import list_entries

if TYPE_CHECKING:  # loaded when a run has rings, or a curve is drawn; optional packages
    from matplotlib.figure import Figure

    from foundry_fastlog.reading.curves import Curve, Curves
    from foundry_fastlog.reading.found_rings import RingReport
    from foundry_fastlog.reading.start_states import StartReport

__all__ = [
    "Problem",
    "ReadProblemError",
    "Run",
    "RunNotFoundError",
    "SeriesCheck",
    "read_run",
]

_BLOCK_BYTES = 1 << 20
_MERGE_BYTES = 64 << 20  # all blocks of a merge together


class Run(ByColumns):
    """A run directory, as it was when this object was created.

    Args:
        path: The directory passed to ``Recorder``.
        strict: Raise ``ReadProblemError`` at the first problem in a file, instead of collecting it
            in ``problems``.

    Attributes:
        path: The run directory.
        series: Every stream of every writer, with its files, sorted. Lines that a killed process
            left in its ring are included, as if they were in its files.
        rings: The ring files of the run's processes, with a report on each.
        unread: How many rings and files may hold lines of the run but cannot be read: damaged,
            quarantined, on another host, renamed. ``problems`` names them, and nothing in the
            run counts as complete. A segment that turns out to be cut as it is read is counted
            by ``check()``.
        starts: Numbers of the run's starts.
        left_out: How many values the last read of a stream omitted because they no longer count, by
            stream and name.
        info: The contents of ``run.json``; empty if there is none. It may be stale.

    Raises:
        RunNotFoundError: The path is not a run. The message says what to do.
    """

    def __init__(self, path: StrPath, *, strict: bool = False) -> None:
        self.path: Path = open_run_dir(path)
        overlay = Overlay(self.path)
        self.series: tuple[Series, ...] = tuple(overlay.list_series())
        self._problems = Problems(strict=strict)
        self.rings: tuple[RingReport, ...] = tuple(overlay.rings)
        for ring in self.rings:
            if not ring.sound:
                self._problems.add("ring", ring.ring, 0, describe_ring(ring))
        for name, reason in overlay.unread:
            self._problems.add("unreadable", name, 0, f"is not read: {reason}")
        self.unread = len(overlay.unread) + sum(not ring.sound for ring in self.rings)
        self.info: dict[str, Any] = self._read_info()
        self._entries = [number for number, _ in list_entries(self.path)]
        self._numbers = number_starts({s.writer for s in self.series}, self._entries)
        self.starts: tuple[int, ...] = tuple(sorted({*self._entries, *self._numbers.values()}))
        self.left_out: dict[str, Counter[str]] = {}
        self._known_firsts: dict[tuple[str, tuple[int, int]], Firsts] = {}
        self._rewinds: dict[Series, Rewinds] = {}
        self._curves: dict[Starts, Curves] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the curves, which are drawn anew, and what is read anew."""
        state = {**self.__dict__, "_curves": {}}
        state.pop("_entry_of", None)
        return state

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, streams={self.streams}, writers={len(self.writers)})"

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that have files."""
        present = {series.stream for series in self.series}
        return tuple(stream for stream in STREAMS if stream in present)

    @property
    def writers(self) -> tuple[Writer, ...]:
        """The processes that recorded, by rank, attempt, and parents before children."""
        return tuple(sorted({series.writer for series in self.series}))

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that recorded, ascending."""
        return tuple(sorted({writer.rank for writer in self.writers}))

    def number_of(self, writer: Writer) -> int:
        """Return the number of the start that a writer is of."""
        return self._numbers[writer]

    def report_starts(self) -> list[StartReport]:
        """Report the starts of the run: when each began, with which configuration, how it ended."""
        from foundry_fastlog.reading.start_states import report_starts

        return report_starts(self.path, self._numbers, self._entries, self.rings, self.info)

    @property
    def problems(self) -> list[Problem]:
        """The problems found so far, by file and line.

        Complete for a stream once ``lines`` has been read to its end, and for the run after
        ``check``. At most 1000 are kept; ``problems_omitted`` counts the rest.
        """
        return list(self._problems)

    @property
    def problems_omitted(self) -> int:
        """Problems beyond the first 1000."""
        return self._problems.omitted

    def lines(
        self, stream: str, *, starts: Starts = "latest", rank: int | None = None
    ) -> Iterator[Record]:
        """Read the lines of a stream, in order, one at a time.

        Lines of several processes are merged by timestamp; lines of one process stay in the order
        in which it wrote them. NaN and infinite values are restored (``line["metrics"]["loss"]``).
        Drop markers are omitted; ``check`` counts them. A torn or damaged line is skipped and added
        to ``problems``.

        Args:
            stream: ``metrics``, ``performance``, ``errors``, ``log`` or ``system``.
            starts: ``"latest"``: what counts. For each metric and each timed block
                a later start takes over from the first step at which it recorded that name.
                Errors, messages and system figures are never omitted. ``"all"``: omit
                nothing. A number: that start alone.
            rank: Only this rank's lines.

        Yields:
            A parsed line, as a separate dict.

        Raises:
            ValueError: An unknown stream or start.
            ReadProblemError: A problem was found, with ``strict``.
        """
        for _, _, record, _ in self.entries([stream], starts=starts, rank=rank):
            if not is_marker(record):
                yield restore_nonfinite(record)

    def curve(
        self,
        name: str,
        *,
        points: int = 2000,
        steps: tuple[int | None, int | None] | None = None,
        ranks: int | Iterable[int] | None = None,
        starts: Starts = "latest",
    ) -> Curve:
        """Draw a metric over its steps in few points, as the run is now.

        The first call reads the metrics of the whole run. The next ones read what is new, also in
        other processes: a large run's curves are kept in a file in its private directory, or else
        in the user's cache directory.

        Args:
            name: Its name, as recorded.
            points: How many buckets the curve may have, 2 or more. They have 2^k steps each, the
                fewest that are kept; where a window has few of those, its values are read again,
                and a bucket may be a step.
            steps: The first and the last step to draw, both included; None for no bound. The
                buckets at both ends are given whole.
            ranks: Only the values of this rank, or of these. Those of several ranks are in the same
                buckets.
            starts: As for ``lines``.

        Returns:
            By bucket first, last, smallest and largest value and the steps of these, and how many
            values there are. Without any value it is empty.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
            OSError: The run directory is gone or cannot be read.
            TypeError: ``name`` is not a str, or ``points`` not an int.
            ValueError: An unknown start, or less than 2 points.
        """
        from foundry_fastlog.reading.curves import Curves

        if starts not in self.starts:  # of a number it may be a later one
            Run(self.path)._check_starts(starts)  # noqa: SLF001 - its own
        curves = self._curves.get(starts)
        if curves is None:
            # What is looked at again must not be older than what was counted.
            found = Curves(
                self.path,
                starts,
                lambda name, steps, ranks: Run(self.path).exact_frame(name, steps, ranks, starts),
            )
            curves = self._curves.setdefault(starts, found)  # another thread may have been here
        return curves.draw(name, points, steps, ranks)

    def summary(self, *, starts: Starts = "latest", rank: int | None = None) -> Any:  # noqa: ANN401 - of a room above
        """Summarise the run: metrics, timings, errors, files and completeness.

        Args:
            starts: As for ``lines``.
            rank: Only what this rank recorded.

        Returns:
            A ``Summary``, see ``foundry_fastlog.analysis.summary``.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown start, or a rank that did not record.
        """
        return view("summary")(self, starts=starts, rank=rank)

    def compare_ranks(self, **options: Any) -> Any:  # noqa: ANN401 - of a room above
        """Compare the ranks by their timed blocks: which one is slow, since when, in which block.

        Args:
            **options: As for ``compare_ranks``: ``steps``, ``ranks``, ``starts``, ``block``,
                ``collectives``, ``threshold``, ``ranks_per_host``.

        Returns:
            A ``RankComparison``, see ``foundry_fastlog.analysis.rank_results``.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
            LookupError: There is no such block.
            ValueError: An option has a wrong value.
        """
        return view("compare_ranks")(self, **options)

    def errors(self, *, starts: Starts = "latest", rank: int | None = None) -> list[Any]:
        """Group the errors of the run by their fingerprints.

        Args:
            starts: As for ``lines``.
            rank: Only the errors of this rank.

        Returns:
            A list of ``ErrorGroup``, the most frequent first; see
            ``foundry_fastlog.analysis.error_groups``.

        Raises:
            ValueError: An unknown start.
        """
        groups: list[Any] = view("errors")(self, starts=starts, rank=rank)
        return groups

    def goodput(self, **options: Any) -> Any:  # noqa: ANN401 - of a room above
        """Split the wall time of the run into what trained and what did not, over all starts.

        Args:
            **options: ``rank``, ``starts`` (``"all"`` or a number), ``blocks``, ``tokens``,
                ``flops_per_token``, ``peak_flops`` and ``devices``; see ``docs/goodput.md``.

        Returns:
            A ``Goodput``, see ``foundry_fastlog.analysis.goodput``.

        Raises:
            ImportError: numpy is not installed, or the extension is missing.
            LookupError: There are no records, no such blocks or no such metric.
            TypeError, ValueError: An option has a wrong value.
        """
        return view("goodput")(self, **options)

    def plot(
        self,
        metrics: str | Iterable[str] | None = None,
        **options: Any,  # noqa: ANN401 - those of plot_runs
    ) -> Figure:
        """Plot metrics with matplotlib.

        Args:
            metrics: Names or patterns of metrics such as ``val_*``. Default: the training and the
                validation loss, or the first metric that has numbers.
            **options: As for ``plot_runs``: ``x``, ``steps``, ``ranks``, ``starts``, ``smooth``,
                ``checkpoints``, ``overlay``, ``log_x``, ``log_y``, ``title``.

        Returns:
            A matplotlib figure, which notebooks show and ``savefig`` writes.

        Raises:
            ImportError: matplotlib is not installed; the message says how to get it.
            LookupError: Nothing fits a pattern; the message names the nearest.
            ValueError: An option has a wrong value, or there is nothing to plot.
        """
        figure: Figure = view("plot")(self, metrics, **options)
        return figure

    def _repr_html_(self) -> str:
        """Return what notebooks show of the run: facts, last values, a curve."""
        shown: str = view("card")(self)
        return shown

    def entries(
        self,
        streams: Iterable[str] = STREAMS,
        *,
        starts: Starts = "latest",
        rank: int | None = None,
        checks: list[SeriesCheck] | None = None,
    ) -> Iterator[Entry]:
        """Read several streams, merged in order, with each line's origin and bytes.

        Like ``lines``, but drop markers are included, and NaN is null as in the file.

        Args:
            streams: Which streams to read.
            starts: As for ``lines``.
            rank: Only this rank's lines.
            checks: Receives one check per stream and writer. Each is complete when the iterator has
                ended.

        Returns:
            An iterator over ``(timestamp, series, record, raw)``.

        Raises:
            ValueError: An unknown stream or start.
        """
        wanted = known_streams(streams)
        chosen = self._series_of(wanted, rank, starts)
        counting = {stream: self._counting(stream, starts, _python_firsts) for stream in wanted}
        block = max(64 << 10, min(_BLOCK_BYTES, _MERGE_BYTES // max(1, len(chosen))))
        sources = []
        for series in chosen:
            check = SeriesCheck(series, unread=self.unread)
            if checks is not None:
                checks.append(check)
            keep = self._keep(series, counting[series.stream])
            sources.append(read_series(series, check, self._problems, block=block, keep=keep))
        if len(sources) == 1:
            return sources[0]
        return heapq.merge(*sources, key=itemgetter(0))

    def raw_lines(
        self,
        streams: Iterable[str] = STREAMS,
        *,
        starts: Starts = "latest",
        checks: list[SeriesCheck] | None = None,
    ) -> Iterator[tuple[Series, bytes]]:
        """Read several streams like ``entries``, natively and without parsing lines in Python.

        Args:
            streams: Which streams to read.
            starts: As for ``lines``.
            checks: Receives one check per stream and writer, complete when the iterator has ended.

        Returns:
            An iterator over each line's origin and bytes, without newline.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
            ValueError: An unknown stream or start.
        """
        from foundry_fastlog.reading.scan import merge_lines

        wanted = known_streams(streams)
        chosen = self._series_of(wanted, None, starts)
        counting = {stream: self._counting(stream, starts, native_firsts) for stream in wanted}
        keeps = [self._keep(series, counting[series.stream]) for series in chosen]
        found = [SeriesCheck(series, unread=self.unread) for series in chosen]
        if checks is not None:
            checks += found
        asked = [self._first_affected(one, counting[one.stream]) for one in chosen]
        batches = merge_lines(chosen, asked, found, self._problems)
        return (
            (chosen[origin], line)
            for lines, origins, affected in batches
            for origin, line in keep_lines(lines, origins, affected, keeps, found)
        )

    def check(
        self, streams: Iterable[str] = STREAMS, *, rank: int | None = None
    ) -> list[SeriesCheck]:
        """Read streams to their end and report whether all lines are there.

        Every line of every attempt counts. Problems are added to ``problems``.

        Args:
            streams: Which streams to check.
            rank: Only this rank's files.

        Returns:
            One report per stream and writer.
        """
        checks: list[SeriesCheck] = []
        wanted = known_streams(streams)
        for stream in STREAMS:
            if stream in wanted:
                checks += self._check_stream(stream, rank)
        return checks

    def _read_info(self) -> dict[str, Any]:
        try:
            info = orjson.loads(read_run_file(self.path / RUN_INFO))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self._problems.add("run-info", RUN_INFO, 0, f"cannot be read: {error}")
            return {}
        if type(info) is not dict:
            self._problems.add("run-info", RUN_INFO, 0, "cannot be read: not a JSON object")
            return {}
        return info

    def _counting(
        self, stream: str, starts: Starts, find: Callable[[list[Series]], Firsts]
    ) -> Counting | None:
        """Return what counts in a stream; None if everything does."""
        self.left_out.pop(stream, None)
        if stream not in RECOUNTED or starts == "all":
            return None
        counting = Counting(stream, self._firsts(stream, find) if starts == "latest" else {})
        self.left_out[stream] = counting.left_out
        return counting

    def _first_affected(
        self, series: Series, counting: Counting | None
    ) -> tuple[int | None, float | None]:
        if counting is None:
            return None, None
        rewinds = self._rewinds[series]
        return counting.first_affected(*self._group(series.writer), rewinds.after(-1))

    def _keep(
        self, series: Series, counting: Counting | None
    ) -> Callable[[Record], Record | None] | None:
        """Return a filter for what no longer counts; None if everything does."""
        if counting is None:
            return None
        group = self._group(series.writer)
        rewinds = self._rewinds.get(series)
        if rewinds is None:
            rewinds = self._rewinds[series] = Rewinds(find_rewinds(series))
        if not rewinds and not counting.affects(*group):
            return None
        return lambda record: counting.keep(*group, record, rewinds.after(record["seq"]))

    def _group(self, writer: Writer) -> tuple[int, frozenset[tuple[int, int]]]:
        """Return the start of a writer, and what alone takes over from it in later ones."""
        return self._numbers[writer], self._spared.get(writer, frozenset())


def _python_firsts(series: list[Series]) -> Firsts:
    """Read the first steps of a start; problems of its files are reported with their lines."""
    records = (
        record
        for one in series
        for _, _, record, _ in read_series(one, SeriesCheck(one), Problems())
    )
    return first_steps(series[0].stream, records)


def read_run(path: StrPath, *, strict: bool = False) -> Run:
    """Open a run for reading.

    Args:
        path: The directory passed to ``Recorder``.
        strict: Raise ``ReadProblemError`` at the first damaged, torn or missing line,
            instead of collecting it in ``Run.problems``.

    Returns:
        The run as it is now; lines written later may or may not be seen.

    Raises:
        RunNotFoundError: The path is not a run. The message says what to do.
    """
    return Run(path, strict=strict)
