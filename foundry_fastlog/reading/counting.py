"""Which values of a run count, where launches recorded a step again: see docs/format.md.

For each metric, and each timed block, a later start takes over from the first step at which one of
its ranks recorded that name; before it the earlier values stay, and so do those of a process that
goes on beside it. A process that says that it went back to a step takes back what it had recorded
from there. Errors, messages and figures of the machine are history.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from operator import itemgetter
from typing import Any, Literal

import orjson

from foundry_fastlog.run.checks import SeriesCheck
from foundry_fastlog.run.files import STREAMS, Series, Writer
from foundry_fastlog.run.launch import is_restart
from foundry_fastlog.run.start_entries import alive_in

__all__ = [
    "ALL_RANKS",
    "NOBODY",
    "PEERS",
    "RECOUNTED",
    "Counting",
    "Cutoffs",
    "Firsts",
    "Rewinds",
    "Spared",
    "Starts",
    "find_spared",
    "first_steps",
    "is_marker",
    "keep_lines",
    "known_firsts",
    "known_streams",
    "number_starts",
    "split_starts",
]

#: Which starts to read: what counts of all of them, everything, or one.
Starts = Literal["latest", "all"] | int

#: The streams in which a later start takes over from earlier ones.
RECOUNTED = ("metrics", "performance")

Record = dict[str, Any]

# Kinds of places within a training: two names alike in one are not the same in another.
_STEP, _EPOCH = "step", "epoch"
_Name = tuple[str, str]

_Part = tuple[int, int]  # a start, and a rank of it
_Group = tuple[int, frozenset[_Part]]  # a writer's start, and what alone takes over in later ones
_NONE = frozenset[_Part]()

#: Stand for a rank: that of all processes of a start, that of none, and that of peers, who take
#: over from nobody in particular.
ALL_RANKS, NOBODY, PEERS = -1, -2, -3

#: The first step, or epoch of a summary, at which each name of a start comes.
Firsts = dict[_Name, float]

#: By writer, what alone takes over from it in later starts.
Spared = dict[Writer, frozenset[tuple[int, int]]]

#: By name, the step and the epoch from which later starts took over; None for neither.
Cutoffs = dict[str, tuple[int | None, float | None]]


def known_streams(streams: Iterable[str]) -> frozenset[str]:
    """Check names of streams, or of one.

    Raises:
        ValueError: One of them is unknown.
    """
    wanted = frozenset([streams] if isinstance(streams, str) else streams)
    for stream in sorted(wanted):
        if stream not in STREAMS:
            raise ValueError(f"unknown stream {stream!r}; streams are {', '.join(STREAMS)}")
    return wanted


def number_starts(writers: Iterable[Writer], entries: Iterable[int]) -> dict[Writer, int]:
    """Say which start of the run each writer is of.

    Args:
        writers: The writers that have files.
        entries: Numbers of the starts that have an entry. Those of format 1 have none: their
            attempts were counted anew for each stamp of the file names, and are numbered in that
            order. An entry of format 2 may be lost: its start's number is in the writer's label.
    """
    all_writers = list(writers)
    first = min(entries, default=math.inf)  # format 2 went on behind all attempts of format 1
    older = sorted({(w.stamp, w.attempt) for w in all_writers if w.attempt < first})
    numbers = {}
    if any(one[1] >= other[1] for one, other in pairwise(older)):
        numbers = {start: number for number, start in enumerate(older)}
    return {w: numbers.get((w.stamp, w.attempt), w.attempt) for w in all_writers}


def find_spared(
    numbers: Mapping[Writer, int], entry_of: Callable[[int], Mapping[str, Any]]
) -> Spared:
    """Say what takes over from processes that lived when a later start began.

    They go on beside it: an evaluation beside a trainer that is started again, ranks of which one
    is. Only a successor takes over, from its own first steps: of a start's first process of a rank
    the one of the later start. A peer has none. But who lives while the launcher starts the whole
    job again is only slow to end.

    Args:
        numbers: The start of each writer.
        entry_of: Returns the entry of a start.
    """
    spared: dict[Writer, frozenset[_Part]] = {}
    for start in sorted(set(numbers.values()))[1:]:
        entry = entry_of(start)
        alive = alive_in(entry)
        if not alive:
            continue
        ranks = {w.rank for w, number in numbers.items() if number == start and not w.peer}
        for writer, number in numbers.items():
            lived = not alive.isdisjoint((writer.label, writer._replace(children=()).label))
            if not (number < start and lived):
                continue
            if is_restart(entry.get("launch"), entry_of(number).get("launch")):
                continue
            heir = NOBODY if writer.peer or writer.rank not in ranks else writer.rank
            spared[writer] = spared.get(writer, _NONE) | {(start, heir)}
    return spared


def split_starts(
    chosen: Iterable[Series],
    numbers: Mapping[Writer, int],
    entry_of: Callable[[int], Mapping[str, Any]],
) -> dict[_Part, list[Series]]:
    """Group series by their start; by their rank, peers apart, where others lived when it began.

    Args:
        chosen: The series.
        numbers: The start of each writer.
        entry_of: Returns the entry of a start.
    """
    parts: dict[_Part, list[Series]] = {}
    for series in chosen:
        start, rank = numbers[series.writer], PEERS if series.writer.peer else series.writer.rank
        part = start, rank if start and alive_in(entry_of(start)) else ALL_RANKS
        parts.setdefault(part, []).append(series)
    return parts


def is_marker(record: Record) -> bool:
    """Whether a line has no values, but tells of others: of drops, or of a step back."""
    return "dropped" in record or "rewind" in record


def known_firsts(found: Iterable[tuple[str, int | None, float | None]]) -> Firsts:
    """Return what `first_steps()` would, of names with their first step and epoch."""
    firsts: Firsts = {}
    for name, step, epoch in found:
        if step is not None:
            firsts[_STEP, name] = step
        if epoch is not None:
            firsts[_EPOCH, name] = epoch
    return firsts


def first_steps(stream: str, records: Iterable[Record]) -> Firsts:
    """Return the first step, or epoch of a summary, at which each name of a stream comes."""
    first: Firsts = {}
    for record in records:
        place, kind = _place(record)
        if place is not None:
            for name in _names(stream, record):
                if place < first.get((kind, name), math.inf):
                    first[kind, name] = place
    return first


def _take_over(cutoffs: dict[_Name, float], firsts: Mapping[_Name, float]) -> None:
    for name, step in firsts.items():
        cutoffs[name] = min(step, cutoffs.get(name, math.inf))


class Counting:
    """What counts of one stream.

    Args:
        stream: Its name.
        firsts: By part, as `first_steps()` returns them.

    Attributes:
        left_out: How many values were left out, by name.
    """

    def __init__(self, stream: str, firsts: Mapping[_Part, Mapping[_Name, float]]) -> None:
        self._stream = stream
        self.left_out: Counter[str] = Counter()
        self._parts = firsts
        self._firsts: dict[int, dict[_Name, float]] = {}
        for (start, _), found in firsts.items():
            _take_over(self._firsts.setdefault(start, {}), found)
        self._cutoffs: dict[_Group, dict[_Name, float]] = {}
        later: dict[_Name, float] = {}
        for start in sorted(self._firsts, reverse=True):
            self._cutoffs[start, _NONE] = dict(later)
            _take_over(later, self._firsts[start])

    def _find(self, start: int, spared: frozenset[_Part]) -> dict[_Name, float]:
        found = self._cutoffs.get((start, spared))
        if found is None:
            found = self._cutoffs[start, spared] = {}
            heirs = dict(spared)
            for later, firsts in self._firsts.items():
                if later > start:
                    heir = heirs.get(later)
                    taken = firsts if heir is None else self._parts.get((later, heir), {})
                    _take_over(found, taken)
        return found

    def cutoffs(
        self, numbers: Mapping[Writer, int], spared: Spared, *, own: bool = False
    ) -> dict[Writer, Cutoffs]:
        """Return from where on later starts took over, by writer; one object for many of them.

        Args:
            numbers: The start of each writer.
            spared: As `find_spared()` returns it.
            own: Leave out names that the start does not have itself.
        """
        by_group: dict[_Group, Cutoffs] = {}
        found = {}
        for writer, start in numbers.items():
            group = start, spared.get(writer, _NONE)
            if group not in by_group:
                names = {name for _, name in self._firsts.get(start, ())}
                cutoffs = self._cutoffs_of(group).items()
                by_group[group] = {n: at for n, at in cutoffs if not own or n in names}
            if by_group[group]:
                found[writer] = by_group[group]
        return found

    def _cutoffs_of(self, group: _Group) -> Cutoffs:
        found: Cutoffs = {}
        for (kind, name), place in self._find(*group).items():
            step, epoch = found.get(name, (None, None))
            found[name] = (int(place), epoch) if kind == _STEP else (step, place)
        return found

    def first_affected(
        self, start: int, spared: frozenset[_Part], rewound_to: tuple[float, float]
    ) -> tuple[int | None, float | None]:
        """Return from which step on, and which epoch, `keep()` may take out something."""
        steps, epochs = ([least] for least in rewound_to)
        for (kind, _), place in self._find(start, spared).items():
            (steps if kind == _STEP else epochs).append(place)
        step, epoch = min(steps), min(epochs)
        return None if step == math.inf else int(step), None if epoch == math.inf else epoch

    def affects(self, start: int, spared: frozenset[_Part]) -> bool:
        """Whether a later start takes over anything from one."""
        return bool(self._find(start, spared))

    def keep(
        self, start: int, spared: frozenset[_Part], record: Record, rewound_to: tuple[float, float]
    ) -> Record | None:
        """Return a record with what counts of it, or None.

        Args:
            start: The start that it is of.
            spared: What alone takes over from its writer in later ones.
            record: A parsed line; not changed.
            rewound_to: The least step and epoch that its writer went back to later on.
        """
        cutoffs = self._find(start, spared)
        place, kind = _place(record)
        if place is None or not (cutoffs or min(rewound_to) < math.inf):
            return record
        if place >= rewound_to[kind == _EPOCH]:
            gone = list(_names(self._stream, record))
        else:
            names = _names(self._stream, record)
            gone = [name for name in names if place >= cutoffs.get((kind, name), math.inf)]
        if not gone:
            return record
        self.left_out.update(gone)
        if self._stream == "performance":
            return None
        part = "summary" if record.get("metrics") is None else "metrics"
        return _without(record, part, frozenset(gone)) if len(gone) < len(record[part]) else None


def keep_lines(
    lines: list[bytes],
    origins: list[int],
    affected: list[int],
    keeps: list[Callable[[Record], Record | None] | None],
    checks: list[SeriesCheck],
) -> Iterator[tuple[int, bytes]]:
    """Keep what counts of lines of several series.

    Args:
        lines: The lines.
        origins: The number of each one's series.
        affected: Places of lines of which something may count no longer.
        keeps: Per series, what `Counting.keep()` says of a record; None if all of them count.
        checks: Per series, counts the lines of which nothing is kept.

    Yields:
        The number of its series, and the line.
    """
    gone = set()
    for place in affected:
        keep = keeps[origins[place]]
        record = orjson.loads(lines[place])
        if keep is None or is_marker(record):
            continue
        kept = keep(record)
        if kept is None:
            gone.add(place)
            checks[origins[place]].superseded += 1
        elif kept is not record:
            lines[place] = orjson.dumps(kept)
    for place, line in enumerate(lines):
        if place not in gone:
            yield origins[place], line


class Rewinds:
    """The steps, and the epochs of summaries, that a writer went back to.

    Args:
        lines: ``seq``, step and epoch, or None, of each line that says so.
    """

    def __init__(self, lines: Iterable[tuple[int, int, float | None]]) -> None:
        self._seqs: list[int] = []
        self._least: list[tuple[float, float]] = []
        step = epoch = math.inf
        for seq, to, of in sorted(lines, key=itemgetter(0), reverse=True):
            step, epoch = min(step, to), min(epoch, math.inf if of is None else of)
            self._seqs.append(seq)
            self._least.append((step, epoch))
        self._seqs.reverse()
        self._least.reverse()

    def __bool__(self) -> bool:
        """Whether it ever did."""
        return bool(self._seqs)

    def after(self, seq: int) -> tuple[float, float]:
        """Return the least step and epoch that it went back to behind a line; infinity for none."""
        at = bisect_right(self._seqs, seq)
        return self._least[at] if at < len(self._seqs) else (math.inf, math.inf)


def _place(record: Record) -> tuple[float | None, str]:
    if (step := record.get("step")) is not None:
        return step, _STEP
    return record.get("epoch"), _EPOCH


def _names(stream: str, record: Record) -> Iterable[str]:
    if stream == "performance":
        return (record["name"],)
    values = record.get("metrics")
    if values is None:
        values = record.get("summary")
    return values if isinstance(values, dict) else ()


def _without(record: Record, part: str, names: frozenset[str]) -> Record:
    kept = {**record, part: {n: v for n, v in record[part].items() if n not in names}}
    for marks in ("nonfinite", "missing"):
        if isinstance(kept.get(marks), dict):
            kept[marks] = {n: mark for n, mark in kept[marks].items() if n not in names}
            if not kept[marks]:
                del kept[marks]
    return kept
