"""Read the series of a run with the native reader, and account for what it found.

The reader (``csrc/reader``) gives rows, and of all else only where it is: the words for what is
wrong are those of ``lines``.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from foundry_fastlog.base.arguments import INT64_MAX, INT64_MIN
from foundry_fastlog.reading.counting import Cutoffs
from foundry_fastlog.reading.lines import MAX_LINE_BYTES, in_order, parse_line
from foundry_fastlog.run.checks import (
    Problems,
    SeriesCheck,
    note_gaps,
    note_missing_files,
    note_seq,
    note_tail,
    note_unreadable,
)
from foundry_fastlog.run.files import STREAMS, Segment, Series, Writer
from foundry_fastlog.run.packed import Unpacked, find_file, is_packed
from foundry_fastlog.run.segment_file import SHORTER, SegmentFile

if TYPE_CHECKING:  # loaded when a run is read
    from foundry_fastlog._core import Frame, Lines, Pyramids, Scan, Statistics
    from foundry_fastlog._core import _Account as Account
    from foundry_fastlog._core import _ColumnPart as ColumnPart
    from foundry_fastlog._core import _MetricSum as MetricSum
    from foundry_fastlog._core import _Source as Source
    from foundry_fastlog._core import _TimerSum as TimerSum

__all__ = [
    "Choice",
    "ColumnPart",
    "Frame",
    "MetricSum",
    "Pyramids",
    "Scan",
    "Statistics",
    "TimerSum",
    "merge_lines",
    "new_pyramids",
    "scan_series",
    "sum_series",
]

_Found = TypeVar("_Found", "Scan", "Statistics")


@dataclass(frozen=True)
class Choice:
    """What of the lines becomes rows.

    Attributes:
        names: Patterns of the names that are wanted; None for all.
        exact: They are names.
        seqs: Whether rows keep their numbers.
        first_step: The lowest step that is wanted, likewise the highest.
        last_step: See above.
        rows: Whether there are rows at all.
        list_names: Whether the names are listed, where there are no rows.
        starts: By series, the number of its start.
        counts: Whether values that no longer count are left out.
        cutoffs: By writer, from where on later starts took over.
        note_steps: Whether steps are noted.
        note_firsts: Whether the first step and epoch of each name are noted.
        rewinds: By writer, number and step of lines that tell of a rewind, where these are not
            among those that are read.
    """

    names: Sequence[str] | None = None
    exact: bool = False
    seqs: bool = True
    first_step: int = INT64_MIN
    last_step: int = INT64_MAX
    rows: bool = True
    list_names: bool = False
    starts: dict[Series, int] = field(default_factory=dict)
    counts: bool = False
    cutoffs: dict[Writer, Cutoffs] = field(default_factory=dict)
    note_steps: bool = False
    note_firsts: bool = False
    rewinds: dict[Writer, list[tuple[int, int]]] = field(default_factory=dict)


def scan_series(
    chosen: Iterable[Series], choice: Choice, checks: list[SeriesCheck], problems: Problems
) -> Scan:
    """Read series of one stream.

    Args:
        chosen: The series, sorted.
        choice: What of them is wanted.
        checks: One for each, which is filled.
        problems: Receives what is wrong, with file and line.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
        ReadProblemError: A problem, in strict mode.
        ValueError: More than a million names of metrics.
    """
    native = _native()

    def read(sources: list[Source]) -> Scan:
        scan: Scan = native.Scan(
            sources,
            patterns=list(choice.names or ()),
            all_names=choice.names is None,
            exact=choice.exact,
            seqs=choice.seqs,
            first_step=choice.first_step,
            last_step=choice.last_step,
            rows=choice.rows,
            list_names=choice.list_names,
            note_steps=choice.note_steps,
            note_firsts=choice.note_firsts,
        )
        return scan

    return _read(list(chosen), choice, read, checks, problems)


def sum_series(
    chosen: Iterable[Series],
    choice: Choice,
    first: list[str],
    checks: list[SeriesCheck],
    problems: Problems,
) -> Statistics:
    """Sum up series of one stream, in little memory.

    Args:
        chosen: The series, sorted; at least one.
        choice: Its starts are looked at.
        first: By series, the earliest timestamp of its writer that is known, or ``""``.
        checks: One for each, which is filled.
        problems: Receives what is wrong, with file and line.

    Raises:
        ImportError: As for ``scan_series``, and what else that raises.
    """
    series = list(chosen)
    native = _native()
    stream = STREAMS.index(series[0].stream)

    def read(sources: list[Source]) -> Statistics:
        found: Statistics = native.Statistics(sources, stream=stream, first=first)
        return found

    return _read(series, choice, read, checks, problems)


def _read(
    series: list[Series],
    choice: Choice,
    read: Callable[[list[Source]], _Found],
    checks: list[SeriesCheck],
    problems: Problems,
) -> _Found:
    """Read series, and account for what was found besides rows."""
    ordered = [[_Part(segment) for segment in in_order(one.segments)] for one in series]
    while True:
        pairs = zip(series, ordered, strict=True)
        found = read([_source(one, parts, choice) for one, parts in pairs])
        accounts = found.accounts()
        if not _have_moved(ordered, accounts):
            break
    _account(ordered, accounts, checks, problems)
    return found


def merge_lines(
    chosen: Iterable[Series],
    asked: Iterable[tuple[int | None, float | None]],
    checks: list[SeriesCheck],
    problems: Problems,
) -> Iterator[tuple[list[bytes], list[int], list[int]]]:
    """Read the lines of series, merged by time, in little memory.

    Args:
        chosen: The series.
        asked: By series, from which step on, and which epoch for lines without one, lines are
            among those to ask about.
        checks: One for each, filled when all lines have been read.
        problems: Receives what is wrong, with file and line.

    Yields:
        Lines, the numbers of their series, and the places of those to ask about.

    Raises:
        ImportError: The extension is missing; the message says how to build it.
        ReadProblemError: A problem, in strict mode.
    """
    series = list(chosen)
    ordered = [[_Part(segment) for segment in in_order(one.segments)] for one in series]
    choice = Choice()
    pairs = zip(series, ordered, strict=True)
    sources = [_source(one, parts, choice) for one, parts in pairs]
    lines: Lines = _native().Lines(sources, list(asked))
    while (batch := lines.next()) is not None:
        yield batch
    _account(ordered, lines.accounts(), checks, problems)


def new_pyramids(*, several_ranks: bool, size: int, most: int, least: int) -> Pyramids:
    """Make curves without values.

    Args:
        several_ranks: Whether there is also a curve of all ranks together.
        size: How many bytes the curves of single ranks may take, and those of all ranks.
        most: The most buckets of a metric.
        least: The fewest to which its limit falls.
    """
    found: Pyramids = _native().Pyramids(several_ranks, size, most, least)
    return found


def _account(
    ordered: list[list[_Part]],
    accounts: list[Account],
    checks: list[SeriesCheck],
    problems: Problems,
) -> None:
    """Account for what was found besides rows."""
    found: list[defaultdict[int, list[Account]]] = [defaultdict(list) for _ in ordered]
    for account in accounts:
        found[account[0]][account[1]].append(account)
    for parts, check, of_series in zip(ordered, checks, found, strict=True):
        note_missing_files(check.series, check, problems)
        _Account(check, problems).add(parts, of_series)
        note_gaps(check, problems)


class _Part:
    """A segment of a scan. One that is compressed is read through this, by one thread.

    Attributes:
        listed: The segment, as it was listed.
        segment: The same, where it is now.
        error: Why it could not be read to its end.
    """

    def __init__(self, segment: Segment) -> None:
        self.listed = self.segment = segment
        self.error: OSError | None = None
        self._file: Unpacked | None = None
        self._seen: SegmentFile | None = None

    @property
    def source(self) -> tuple[bytes, tuple[tuple[int, int], ...] | None, bytes, Any, bool]:
        """What the native reader is told of it."""
        one = self.segment
        reader = None if one.kept == () else self.read_at
        return (os.fsencode(one.path), one.kept, one.pending, reader, is_packed(one.path))

    def read_at(self, offset: int, buffer: memoryview) -> int:
        """Read into a buffer; return how many bytes, or below 0, the system's error."""
        if not is_packed(self.segment.path) and not self.follow():
            return -errno.ENOENT
        try:
            if self._file is None or not offset:
                self._file, self.error = Unpacked(self.segment.path), None
            self._file.seek(offset)
            taken = self._file.readinto(buffer)
        except OSError as error:
            self.error = error
            return -(error.errno or errno.EIO)
        if not taken:
            self._file = None  # nothing follows
        return taken

    def open(self) -> SegmentFile:
        """Open it for a second look; a compressed one reads on from where it was."""
        if self._seen is None or not self._seen.packed:
            self._seen = self.segment.open()
        return self._seen

    def follow(self) -> bool:
        """Go on with what the file was compressed to since it was listed, if it was."""
        path = find_file(self.segment.path)
        if path == self.segment.path:
            return False
        self.segment = replace(self.segment, path=path)
        return True


def _have_moved(ordered: list[list[_Part]], accounts: list[Account]) -> bool:
    """Return whether files were compressed before they were read: they have to be read again."""
    gone = {(source, part) for source, part, *_, error in accounts if error == errno.ENOENT}
    return any([ordered[source][part].follow() for source, part in gone])  # noqa: C419 - all follow


def _native() -> Any:  # noqa: ANN401 - a module
    try:
        from foundry_fastlog import _core
    except ImportError as error:
        raise ImportError(
            f"the native part of foundry_fastlog, which reads whole streams, is missing ({error}). "
            "Install a wheel with `pip install foundry_fastlog`, or build from a checkout with "
            "`pip install -e .`; Run.lines works without it"
        ) from error
    return _core


def _source(series: Series, parts: list[_Part], choice: Choice) -> Source:
    return (
        STREAMS.index(series.stream),
        series.writer.rank,
        choice.starts.get(series, 0),
        series.writer.label,
        choice.counts,
        choice.cutoffs.get(series.writer),
        [part.source for part in parts],
        choice.rewinds.get(series.writer, []),
    )


_Three = tuple[int, int, int]


class _Account:
    """Accounts for the parts of a series."""

    def __init__(self, check: SeriesCheck, problems: Problems) -> None:
        self._check = check
        self._problems = problems

    def add(self, parts: list[_Part], accounts: dict[int, list[Account]]) -> None:
        """Take in the parts, in the order of their lines, with what was found of each."""
        for number, part in enumerate(parts):
            line = tail = 0
            for _, _, lines, seqs, damages, drops, rest, error in accounts[number]:
                self._lines(part, line, seqs, damages)
                self._check.dropped += sum(drops)
                line += lines
                tail = tail or rest
                if error:
                    self._refused(part, error)
                    break
            if tail:
                note_tail(part.listed, line + 1, tail, self._check, self._problems)

    def _refused(self, part: _Part, error: int) -> None:
        said = SHORTER if error == errno.ENODATA else os.strerror(error)
        refusal = part.error or OSError(error, said)
        note_unreadable(part.segment.path.name, refusal, self._check, self._problems)

    def _lines(self, part: _Part, before: int, seqs: list[_Three], damages: list[_Three]) -> None:
        """Account for lines and damaged lines, in their order."""
        damaged = 0
        for first, count, line in seqs:
            while damaged < len(damages) and damages[damaged][0] < line:
                self._damaged(part, before, damages[damaged])
                damaged += 1
            self._numbered(part.segment.path.name, first, count, before + line + 1)
        for damage in damages[damaged:]:
            self._damaged(part, before, damage)

    def _numbered(self, file: str, first: int, count: int, line: int) -> None:
        """Account for lines whose numbers follow each other."""
        check = self._check
        check.lines += count
        for seq in range(first, first + count):
            if seq == check.next_seq:
                check.next_seq = first + count
                return
            note_seq(seq, file, line + seq - first, check, self._problems)

    def _damaged(self, part: _Part, before: int, damage: tuple[int, int, int]) -> None:
        line, offset, size = damage
        self._check.damaged += 1
        reason = "damaged line"
        if self._problems.has_room:
            reason = _reason(self._check.series.stream, part, offset, size)
        self._problems.add("damaged", part.segment.path.name, before + line + 1, reason)


def _reason(stream: str, part: _Part, offset: int, size: int) -> str:
    """Say why a line is damaged."""
    if size > MAX_LINE_BYTES:
        return f"damaged line: longer than {MAX_LINE_BYTES >> 20} MiB"
    try:
        with part.open() as handle:
            handle.seek(offset)
            parsed = parse_line(stream, handle.read(size))
    except OSError as error:
        return f"damaged line: {error.strerror or error}"
    return parsed if isinstance(parsed, str) else "damaged line: it was changed meanwhile"
