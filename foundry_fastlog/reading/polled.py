"""What a cursor finds new in a run: lines, columns, and what else happened."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING

from foundry_fastlog.reading.lines import Record, parse_line
from foundry_fastlog.run.checks import Problems, SeriesCheck
from foundry_fastlog.run.files import STREAMS, Series, Writer

if TYPE_CHECKING:  # loaded when columns are asked for
    from foundry_fastlog.reading.columns import Columns

__all__ = ["Line", "Polled", "RewoundTo"]

#: Timestamp, series, parsed line, raw bytes without newline.
Line = tuple[str, Series, Record, bytes]

#: The series and ``seq`` of a line that says that its writer went back, and to which step.
RewoundTo = tuple[Series, int, int]


@dataclass
class Polled:
    """The result of one poll: whole lines, in memory, as they were when it was made.

    Attributes:
        series: The series that have new lines; their segments hold those alone.
        numbers: The start that each writer of the run is of.
        starts: Numbers of the starts that are new since the last poll.
        rewinds: What went back to an earlier step.
        anew: Files were replaced, truncated or removed, or starts got other numbers: what came
            before may no longer be what the run has. A file that was read to its end, and is
            followed by others, is not looked at again.
        more: Whether more can be read at once.
        refused: A file could not be read, and nothing behind it was: the next poll tries again.
        unread: How many files and rings could not be read since the cursor was created.
        notes: Messages for people: truncated files and, once lines or columns were looked at,
            damaged lines.
    """

    series: list[Series] = field(default_factory=list)
    numbers: dict[Writer, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)
    rewinds: list[RewoundTo] = field(default_factory=list)
    anew: bool = False
    more: bool = False
    refused: bool = False
    unread: int = 0
    notes: list[str] = field(default_factory=list)

    @cached_property
    def lines(self) -> list[Line]:
        """The new lines, merged by time, in writing order within each process."""
        batches: list[list[Line]] = []
        damaged: list[str] = []
        for series in self.series:
            lines: list[Line] = []
            for raw in (raw for seg in series.segments for raw in seg.pending.split(b"\n")[:-1]):
                record = parse_line(series.stream, raw)
                if isinstance(record, str):
                    damaged.append(_skipped(series, record))
                else:
                    lines.append((record["timestamp"], series, record, raw))
            batches.append(lines)
        if "columns" not in self.__dict__:  # else they are told already
            self.notes += damaged
        return list(heapq.merge(*batches, key=itemgetter(0)))

    @cached_property
    def columns(self) -> dict[str, Columns]:
        """The new lines by columns, by stream, each row with its ``start``; all of them count.

        Raises:
            ImportError: The extension is missing; the message says how to build it.
        """
        from foundry_fastlog.reading.columns import Columns
        from foundry_fastlog.reading.scan import Choice, scan_series

        found: dict[str, Columns] = {}
        damaged: list[str] = []
        for number, stream in enumerate(STREAMS):
            chosen = [series for series in self.series if series.stream == stream]
            if not chosen:
                continue
            choice = Choice(starts={one: self.numbers[one.writer] for one in chosen})
            problems = Problems()
            scan = scan_series(chosen, choice, [SeriesCheck(one) for one in chosen], problems)
            found[stream] = Columns(scan.frame(number))
            of = {segment.path.name: one for one in chosen for segment in one.segments}
            damaged += [
                _skipped(of[problem.file], problem.message)
                for problem in problems
                if problem.kind == "damaged"  # gaps are to be expected of a part
            ]
        if "lines" not in self.__dict__:
            self.notes += damaged
        return found


def _skipped(series: Series, damage: str) -> str:
    return f"{series.stream} of {series.writer.display}: skipped a {damage}"
