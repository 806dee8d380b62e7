"""Problems of a run's files, and the counts that prove what is there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from foundry_fastlog.run.files import Segment, Series

__all__ = [
    "MAX_KEPT",
    "Gap",
    "Problem",
    "Problems",
    "ReadProblemError",
    "SeriesCheck",
    "note_gaps",
    "note_missing_files",
    "note_seq",
    "note_tail",
    "note_unreadable",
]

#: Problems and gaps that are kept individually; beyond this they are only counted.
MAX_KEPT = 1000


@dataclass(frozen=True)
class Problem:
    """Something in a run that violates the format.

    Attributes:
        kind: ``damaged``, ``torn``, ``gap``, ``duplicate``, ``order``, ``missing-file``,
            ``unreadable``, ``ring`` or ``run-info``.
        file: Name of the file inside the run; for a ring, its path.
        line: Line number from 1, or 0 for the file as a whole.
        message: What is wrong, in words.
    """

    kind: str
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class ReadProblemError(ValueError):
    """A problem in a run's files, raised only with ``strict``.

    Attributes:
        problem: The first problem found.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Problems:
    """Collects problems, each one once, and keeps at most ``MAX_KEPT`` of them.

    Args:
        strict: Raise ``ReadProblemError`` at the first problem instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._kept: dict[tuple[str, str, int], Problem] = {}
        self.omitted = 0

    def add(self, kind: str, file: str, line: int, message: str) -> None:
        """Add a problem, unless it is already known.

        Raises:
            ReadProblemError: In strict mode.
        """
        problem = Problem(kind, file, line, message)
        if self._strict:
            raise ReadProblemError(problem)
        key = (kind, file, line)
        if key in self._kept:
            return
        if len(self._kept) >= MAX_KEPT:
            self.omitted += 1
        else:
            self._kept[key] = problem

    @property
    def has_room(self) -> bool:
        """Whether another problem is kept, or raised."""
        return self._strict or len(self._kept) < MAX_KEPT

    def __iter__(self) -> Iterator[Problem]:
        return iter(sorted(self._kept.values(), key=lambda p: (p.file, p.line, p.kind)))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass(frozen=True)
class Gap:
    """A range of ``seq`` numbers with no line.

    Attributes:
        first: First missing number.
        last: Last missing number.
        file: File of the line after the gap.
        line: Number of that line.
    """

    first: int
    last: int
    file: str
    line: int


@dataclass
class SeriesCheck:
    """The result of reading one stream of one writer. Complete once reading has ended.

    Attributes:
        series: The stream and writer with their files.
        lines: Complete, sound lines, including drop markers.
        next_seq: One more than the highest ``seq`` seen.
        missing: How many ``seq`` numbers below ``next_seq`` have no line.
        gaps: Those numbers as ranges, at most 1000 of them.
        duplicates: Lines whose ``seq`` an earlier line already has.
        out_of_order: Lines that fill an earlier gap.
        damaged: Lines that violate the format.
        torn: 1 if the newest segment ends in the middle of a line.
        dropped: Records that the recorder dropped, according to its markers.
        superseded: Lines of which nothing counts, as a later start recorded all of it again.
        missing_files: Names of segments that must have existed.
        unreadable: Files that could not be read.
        unread: Rings and files that may hold lines of the run but cannot be read; see
            ``Run.unread``.
    """

    series: Series
    lines: int = 0
    next_seq: int = 0
    missing: int = 0
    gaps: list[Gap] = field(default_factory=list)
    duplicates: int = 0
    out_of_order: int = 0
    damaged: int = 0
    torn: int = 0
    dropped: int = 0
    superseded: int = 0
    missing_files: list[str] = field(default_factory=list)
    unreadable: int = 0
    unread: int = 0

    @property
    def complete(self) -> bool:
        """Whether every accepted record is there, once and readable."""
        return self.whole and not self.unread

    @property
    def whole(self) -> bool:
        """Whether its files contain every line, as far as they can tell."""
        return not (
            self.missing
            or self.duplicates
            or self.out_of_order
            or self.damaged
            or self.torn
            or self.missing_files
            or self.unreadable
        )

    def note_seq(self, seq: int, file: str, line: int) -> str | None:
        """Account for a ``seq`` other than ``next_seq``.

        Returns:
            None for a gap, otherwise the kind of problem of this line.
        """
        if seq >= self.next_seq:
            self.missing += seq - self.next_seq
            if len(self.gaps) < MAX_KEPT:
                self.gaps.append(Gap(self.next_seq, seq - 1, file, line))
            self.next_seq = seq + 1
            return None
        at = bisect_right(self.gaps, seq, key=lambda gap: gap.first) - 1
        gap = self.gaps[at] if at >= 0 else None
        if gap is None or seq > gap.last:
            self.duplicates += 1
            return "duplicate"
        rest = [
            Gap(gap.first, seq - 1, gap.file, gap.line),
            Gap(seq + 1, gap.last, gap.file, gap.line),
        ]
        self.gaps[at : at + 1] = [part for part in rest if part.first <= part.last]
        self.missing -= 1
        self.out_of_order += 1
        return "order"


def note_missing_files(series: Series, check: SeriesCheck, problems: Problems) -> None:
    """Account for the segments that must have been there."""
    check.missing_files = series.missing_segments()
    for name in check.missing_files:
        problems.add("missing-file", name, 0, "segment is missing, but later ones exist")


def note_seq(seq: int, file: str, line: int, check: SeriesCheck, problems: Problems) -> None:
    """Account for the number of a line that is not the next one."""
    kind = check.note_seq(seq, file, line)
    if kind == "duplicate":
        problems.add(kind, file, line, f"seq {seq} is a duplicate")
    elif kind is not None:
        problems.add(kind, file, line, f"seq {seq} is out of order")


def note_gaps(check: SeriesCheck, problems: Problems) -> None:
    """Report the numbers that no line had, once all were read."""
    for gap in check.gaps:
        count = gap.last - gap.first + 1
        what = f"seq {gap.first}" if count == 1 else f"seq {gap.first} to {gap.last}"
        problems.add("gap", gap.file, gap.line, f"{what} missing before this line ({count})")


def note_unreadable(file: str, error: OSError, check: SeriesCheck, problems: Problems) -> None:
    """Account for a file that cannot be read, or not to its end."""
    check.unreadable += 1
    problems.add("unreadable", file, 0, f"cannot be read: {error.strerror or error}")


def note_tail(
    segment: Segment, line: int, size: int, check: SeriesCheck, problems: Problems
) -> None:
    """Account for bytes after the last newline of a file."""
    file = segment.path.name
    if segment is check.series.segments[-1]:
        check.torn = 1
        message = (
            f"the last line is torn ({size} bytes without newline) and was skipped: "
            "its writer was killed, or is writing it now"
        )
        problems.add("torn", file, line, message)
    else:
        check.damaged += 1
        message = f"damaged line: {size} bytes without newline, yet a later segment exists"
        problems.add("damaged", file, line, message)
