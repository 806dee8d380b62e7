"""Timed blocks as traces have them: their times, where they nest, and whose they are."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from foundry_fastlog.reading.lines import Record
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import Writer

__all__ = [
    "Lanes",
    "ThreadBlocks",
    "duration_of",
    "nanoseconds_of",
    "natural",
    "process_ids",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)
# Nanoseconds. Ends are known to a microsecond, durations exactly, so nested blocks may appear to
# overlap by this much.
_ROUNDING = 10_000
_LONGEST_S = 1e9
_DEEPEST = 1 << 16


def nanoseconds_of(timestamp: str) -> int:
    """Parse a line's timestamp to nanoseconds since 1970; 0 if it is damaged or before 1970."""
    try:
        moment = datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007 - below
    except ValueError:
        return 0
    return max(0, (moment.replace(tzinfo=timezone.utc) - _EPOCH) // _MICROSECOND * 1000)


def duration_of(record: Record, field: str = "duration_s") -> int:
    """Return a block's duration in nanoseconds."""
    return int(min(max(record[field], 0.0), _LONGEST_S) * 1e9 + 0.5)


def natural(value: object, most: int = _DEEPEST) -> int:
    """Return a number from a line, or 0 if no recorder could have written it."""
    return value if type(value) is int and 0 <= value <= most else 0


def process_ids(run: Run) -> list[tuple[Writer, int]]:
    """Return the writers' process ids: a child's from its label, others' from run.json."""
    found = [
        (writer, int(writer.children[-1][1:].partition("x")[0]))
        for writer in run.writers
        if writer.children
    ]
    attempts = run.info.get("attempts")
    for attempt in attempts if isinstance(attempts, list) else []:
        if isinstance(attempt, dict) and isinstance(attempt.get("pid"), int):
            start = (attempt.get("label", ""), attempt.get("stamp", ""))
            found += [(w, attempt["pid"]) for w in run.writers if (w.label, w.stamp) == start]
    return found


class ThreadBlocks:
    """The blocks of one thread, in the order of their ends.

    Two blocks that nest or follow each other only overlap by rounding, which is corrected here.
    Larger overlaps are left as they are: interleaved coroutines, or a clock that was set.

    Args:
        apart: Nanoseconds by which a block begins before those inside it. Formats that have a
            beginning and an end as events of their own cannot tell two that begin at once.
    """

    def __init__(self, apart: int = 0) -> None:
        self._apart = apart
        self._ends: list[int] = []  # per depth, the end of its latest block
        self._first: list[int | None] = []  # per depth, where the first child block begins

    def place(self, depth: int, begin: int, end: int) -> tuple[int, int]:
        """Adjust the ends of a block, by rounding errors at most.

        Args:
            depth: The number of enclosing blocks.
            begin: Its start in nanoseconds.
            end: Its end.
        """
        while len(self._ends) <= depth + 1:
            self._ends.append(-_ROUNDING - 1)  # before everything: times count from the first block
            self._first.append(None)
        # Any block that ended earlier, at this depth or further out, ended before this one began.
        # Those that enclose this one but not that one need room to begin in between.
        before = max(
            end + (depth - outer) * self._apart for outer, end in enumerate(self._ends[: depth + 1])
        )
        if 0 < before - begin <= _ROUNDING:
            begin = before
        # The blocks inside it lie within it.
        inner, self._first[depth + 1] = self._first[depth + 1], None
        if inner is not None and 0 < begin - inner + self._apart <= _ROUNDING:
            begin = inner - self._apart
        last = max(self._ends[depth + 1 :])
        if 0 < last - end <= _ROUNDING:
            end = last
        end = max(begin, end)
        self._ends[depth] = end
        if self._first[depth] is None:
            self._first[depth] = begin
        return begin, end


class Lanes:
    """Puts blocks of a thread on lanes in which they nest.

    Most threads need one. Coroutines that take turns overlap without nesting, and so do blocks
    around a clock that was set: these go to further lanes.
    """

    def __init__(self) -> None:
        self._lanes: list[list[tuple[int, int, int]]] = []  # begin, end and depth, in order

    def choose(self, depth: int, begin: int, end: int) -> int:
        """Return the number of the first lane where a block encloses others or follows them.

        Args:
            depth: The number of enclosing blocks.
            begin: Its start in nanoseconds.
            end: Its end.
        """
        for number, lane in enumerate(self._lanes):
            place = len(lane)
            while place and begin < lane[place - 1][0] and lane[place - 1][1] <= end:
                place -= 1
            if place and begin < lane[place - 1][1]:
                continue
            del lane[place:]
            if lane and lane[-1][2] == depth:  # what encloses one encloses both
                begin = lane.pop()[0]
            lane.append((begin, end, depth))
            return number
        self._lanes.append([(begin, end, depth)])
        return len(self._lanes) - 1
