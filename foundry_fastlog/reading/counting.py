"""Which values of a run count, where launches recorded a step again: see docs/format.md.

For each metric, and each timed block, a later start takes over from the first step at which one of
its ranks recorded that name; before it the earlier values stay. A process that says that it went
back to a step takes back what it had recorded from there. Errors, messages and figures of the
machine are history.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from foundry_fastlog.run.files import Writer

__all__ = [
    "RECOUNTED",
    "Counting",
    "Rewinds",
    "Starts",
    "first_steps",
    "is_marker",
    "number_starts",
]

#: Which starts to read: what counts of all of them, everything, or one.
Starts = Literal["latest", "all"] | int

#: The streams in which a later start takes over from earlier ones.
RECOUNTED = ("metrics", "performance")

Record = dict[str, Any]

# Kinds of places within a training: two names alike in one are not the same in another.
_STEP, _EPOCH = "step", "epoch"
_Name = tuple[str, str]


def number_starts(writers: Iterable[Writer], entries: Iterable[int]) -> dict[Writer, int]:
    """Say which start of the run each writer is of.

    Args:
        writers: The writers that have files.
        entries: Numbers of the starts that have an entry. Those of format 1 have none: their
            attempts were counted anew for each stamp of the file names, and are numbered in that
            order.
    """
    all_writers = list(writers)
    known = frozenset(entries)
    older = sorted({(w.stamp, w.attempt) for w in all_writers if w.attempt not in known})
    numbers = {start: number for number, start in enumerate(older)}
    return {
        w: w.attempt if w.attempt in known else numbers[w.stamp, w.attempt] for w in all_writers
    }


def is_marker(record: Record) -> bool:
    """Whether a line has no values, but tells of others: of drops, or of a step back."""
    return "dropped" in record or "rewind" in record


def first_steps(records: Iterable[Record]) -> dict[_Name, float]:
    """Return the first step, or epoch of a summary, at which each name comes."""
    first: dict[_Name, float] = {}
    for record in records:
        place, kind = _place(record)
        if place is not None:
            for name in _names(record):
                if place < first.get((kind, name), math.inf):
                    first[kind, name] = place
    return first


class Counting:
    """What counts of one stream.

    Args:
        firsts: Per start, as `first_steps()` returns them.

    Attributes:
        left_out: How many values were left out, by name.
    """

    def __init__(self, firsts: Mapping[int, Mapping[_Name, float]]) -> None:
        self.left_out: Counter[str] = Counter()
        self._cutoffs: dict[int, dict[_Name, float]] = {}
        later: dict[_Name, float] = {}
        for start in sorted(firsts, reverse=True):
            self._cutoffs[start] = dict(later)
            for name, step in firsts[start].items():
                later[name] = min(step, later.get(name, math.inf))

    def affects(self, start: int) -> bool:
        """Whether a later start takes over anything from one."""
        return bool(self._cutoffs.get(start))

    def keep(self, start: int, record: Record, rewound_to: float = math.inf) -> Record | None:
        """Return a record with what counts of it, or None.

        Args:
            start: The start that it is of.
            record: A parsed line; not changed.
            rewound_to: The least step that its writer went back to later on.
        """
        cutoffs = self._cutoffs.get(start, {})
        place, kind = _place(record)
        if place is None or (not cutoffs and rewound_to is math.inf):
            return record
        if kind == _STEP and place >= rewound_to:
            gone = list(_names(record))
        else:
            gone = [n for n in _names(record) if place >= cutoffs.get((kind, n), math.inf)]
        if not gone:
            return record
        self.left_out.update(gone)
        for part in ("metrics", "summary"):
            values = record.get(part)
            if isinstance(values, dict) and len(gone) < len(values):
                return _without(record, part, frozenset(gone))
        return None


class Rewinds:
    """The steps that a writer went back to.

    Args:
        lines: ``seq`` and step of each line that says so, in their order.
    """

    def __init__(self, lines: list[tuple[int, int]]) -> None:
        self._seqs: list[int] = []
        self._least: list[float] = []
        least = math.inf
        for seq, step in reversed(lines):
            least = min(least, step)
            self._seqs.insert(0, seq)
            self._least.insert(0, least)

    def __bool__(self) -> bool:
        """Whether it ever did."""
        return bool(self._seqs)

    def after(self, seq: int) -> float:
        """Return the least step that it went back to behind a line; infinity for none."""
        at = bisect_right(self._seqs, seq)
        return self._least[at] if at < len(self._seqs) else math.inf


def _place(record: Record) -> tuple[float | None, str]:
    if (step := record.get("step")) is not None:
        return step, _STEP
    return record.get("epoch"), _EPOCH


def _names(record: Record) -> Iterable[str]:
    values = record.get("metrics", record.get("summary"))
    if isinstance(values, dict):
        return values
    name = record.get("name")
    return (name,) if isinstance(name, str) else ()


def _without(record: Record, part: str, names: frozenset[str]) -> Record:
    kept = {**record, part: {n: v for n, v in record[part].items() if n not in names}}
    for marks in ("nonfinite", "missing"):
        if isinstance(kept.get(marks), dict):
            kept[marks] = {n: mark for n, mark in kept[marks].items() if n not in names}
            if not kept[marks]:
                del kept[marks]
    return kept
