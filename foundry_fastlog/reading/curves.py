"""Curves of a run's metrics at all scales, for charts: any window in few points, and no spike lost.

The native part (``csrc/reader/pyramid.hpp``) has buckets of 2^k steps for each metric. A cursor
brings what is new, so a curve of a growing run costs what was added. Where nothing counted before
changes by it, nothing is read again; otherwise all is: a new start, a rewind, a replaced file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.arguments import bounds_of, check_type, ranks_of, whole_number
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.reading.counting import (
    Counting,
    Cutoffs,
    Firsts,
    Spared,
    Starts,
    find_spared,
    known_firsts,
    split_starts,
)
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.curve_cache import Cached, read_cache, write_cache
from foundry_fastlog.run.checks import Problems, SeriesCheck
from foundry_fastlog.run.files import Series, Writer
from foundry_fastlog.run.start_entries import read_entry

if TYPE_CHECKING:  # the extension, and optional packages
    import numpy as np

    from foundry_fastlog.reading.polled import Polled
    from foundry_fastlog.reading.scan import Frame, Pyramids

    _Array = np.ndarray[Any, Any]

__all__ = ["Curve", "Curves", "Limits"]

#: Stands for all ranks; see csrc/reader/pyramid.hpp.
_ALL_RANKS = -1
_INTS = ("index", "first_step", "last_step", "min_step", "max_step")
_FLOATS = ("first", "last", "min", "max")
_MOST_POINTS = 1 << 40
#: Bytes of a run that are read at a time.
_READ_BYTES = 64 << 20

_Ranks = int | Iterable[int] | None
Look = Callable[[str, tuple[int, int], "_Ranks"], "Frame"]

_Part = tuple[int, int]
_Rewinds = dict[Writer, list[tuple[int, int]]]


@dataclass(frozen=True)
class Limits:
    """How much of a run's metrics is kept.

    Attributes:
        size: Bytes that the curves of single ranks take at most, and those of all ranks together.
        most: Buckets of a metric at its finest level.
        least: The same where `size` would allow for fewer.
        raw: Buckets of a window whose values are looked at again.
    """

    size: int = 32 << 20
    most: int = 1 << 16
    least: int = 64
    raw: int = 1 << 18


class Curve:
    """A metric over its steps, in buckets of ``1 << level`` steps each, by step.

    The arrays have one element for each bucket that has values. A bucket without finite ones has
    NaN for its values, and 0 for their steps.

    Args:
        name: The name of the metric.
        level: The buckets' level.
        buckets: Their bytes, as the native part has them.
        reached: See below.

    Attributes:
        name: The name of the metric.
        level: Each bucket has ``1 << level`` steps; at 0 it is one step.
        steps: The first step that each bucket could have.
        first: The value at the lowest step; the smallest where that has several.
        first_step: The lowest step.
        last: The value at the highest step; the largest where that has several.
        last_step: The highest step.
        min: The smallest value.
        min_step: The lowest step that has it.
        max: The largest value.
        max_step: The lowest step that has it.
        count: How many finite values.
        nonfinite: How many NaN and infinite ones.
        reached: How far each process was read, as ``Cursor.reached`` says it: what has a lower
            number is in the curve.
    """

    def __init__(
        self, name: str, level: int, buckets: bytes, reached: Mapping[str, int] | None = None
    ) -> None:
        import numpy as np

        kinds = [(one, "<i8") for one in _INTS] + [(one, "<f8") for one in _FLOATS]
        kinds += [("count", "<i8"), ("nonfinite", "<i8")]
        found = np.frombuffer(buckets, np.dtype(kinds))
        self.name = name
        self.level = level
        self.reached = reached or {}
        self.steps: _Array = found["index"] << level
        self.first: _Array = found["first"]
        self.first_step: _Array = found["first_step"]
        self.last: _Array = found["last"]
        self.last_step: _Array = found["last_step"]
        self.min: _Array = found["min"]
        self.min_step: _Array = found["min_step"]
        self.max: _Array = found["max"]
        self.max_step: _Array = found["max_step"]
        self.count: _Array = found["count"]
        self.nonfinite: _Array = found["nonfinite"]

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"Curve({self.name!r}, {len(self):,} buckets of {1 << self.level:,} steps)"


@dataclass
class _Known:
    """What says which values count."""

    firsts: dict[_Part, Firsts] = field(default_factory=dict)
    rewinds: _Rewinds = field(default_factory=dict)
    spared: Spared = field(default_factory=dict)

    def cutoffs(self, numbers: Mapping[Writer, int]) -> dict[Writer, Cutoffs]:
        """Return from where on later starts took over, by writer, for the names of its start."""
        return Counting("metrics", self.firsts).cutoffs(numbers, self.spared, own=True)

    def add_firsts(
        self, part: _Part, found: Iterable[tuple[str, int | None, float | None]]
    ) -> None:
        """Take in where names of a part of a start began."""
        firsts = self.firsts.setdefault(part, {})
        for name, place in known_firsts(found).items():
            firsts[name] = min(place, firsts.get(name, place))


class Curves:
    """The curves of a run's metrics, up to date at each call.

    Args:
        path: The run's directory.
        starts: Which starts count.
        look: Reads the values of a metric, from a step to a step, of some ranks.
        limits: How much is kept.
    """

    def __init__(
        self, path: Path, starts: Starts, look: Look, limits: Limits | None = None
    ) -> None:
        self._path = path
        self._starts = starts
        self._look = look
        self._limits = limits or Limits()
        self._lock, self._pid = ForkLock(), os.getpid()  # threads and children share a Run
        self._cursor: Cursor | None = None
        self._pyramids: Pyramids | None = None
        self._several = self._refused = False
        self._used = _Known()  # by what was counted
        self._found = _Known()
        self._numbers: dict[Writer, int] = {}
        self._entry_of = functools.cache(functools.partial(read_entry, path))
        self._ranks: set[int] = set()
        self._read = self._written = 0  # bytes

    def draw(
        self,
        name: str,
        points: int,
        steps: tuple[int | None, int | None] | None,
        ranks: _Ranks,
    ) -> Curve:
        """Draw a metric; see ``Run.curve``."""
        check_type("name", name, str, "a str")
        points = min(whole_number("points", points), _MOST_POINTS)
        if points < 2:
            raise ValueError(f"points must be 2 or more, got {points}")
        window = bounds_of(steps)
        wanted = None if ranks is None else set(ranks_of(ranks))
        with self._lock:
            return self._draw(name, points, window, wanted)

    def _draw(
        self, name: str, points: int, window: tuple[int, int], wanted: set[int] | None
    ) -> Curve:
        if self._pid != os.getpid():  # a thread of the parent's may have been half through
            self._pid, self._cursor, self._pyramids = os.getpid(), None, None
        try:
            pyramids = self._update()
        except BaseException:  # Ctrl-C among them: what was read last may be in no curve
            self._cursor = self._pyramids = None
            raise
        assert self._cursor is not None
        reached = self._cursor.reached("metrics")
        if self._refused:  # what is behind a file that cannot be read is not in the curves
            values = self._values(name, window, wanted)
            level, buckets, *_ = values.draw(sorted(self._ranks), name, *window, points)
            return Curve(name, level, buckets, reached)
        if wanted is None and self._several:
            chosen = [_ALL_RANKS]
        else:
            chosen = sorted(self._ranks if wanted is None else self._ranks & wanted)
        level, buckets, is_coarse, *span = pyramids.draw(chosen, name, *window, points)
        if is_coarse:
            values = self._values(name, (span[0], span[1]), wanted)
            level, buckets, *_ = values.draw(sorted(self._ranks), name, *window, points)
        return Curve(name, level, buckets, reached)

    def _values(self, name: str, steps: tuple[int, int], ranks: _Ranks) -> Pyramids:
        """Look at the values of a window again."""
        from foundry_fastlog.reading.scan import new_pyramids

        most = self._limits.raw
        found = new_pyramids(several_ranks=False, size=0, most=most, least=most)
        found.add(self._look(name, steps, ranks))
        return found

    def _update(self) -> Pyramids:
        """Take in what is new."""
        if self._cursor is None and not self._open():
            self._begin(_Known())
        while not self._fill():
            self._begin(self._found)
        assert self._pyramids is not None
        self._save(self._pyramids)
        return self._pyramids

    def _begin(self, known: _Known) -> None:
        """Begin with the run's first line, and with what is known of what counts."""
        self._cursor = Cursor(self._path, ["metrics"])
        self._pyramids = None
        self._used, self._found = known, _Known()
        self._ranks = set()
        self._read = self._written = 0

    def _fill(self) -> bool:
        """Read to the end; say whether what was taken in is what counts."""
        assert self._cursor is not None
        while True:
            polled = self._cursor.poll(_READ_BYTES // max(1, len(self._ranks)))
            if polled.anew:
                self._found = _Known()
                self._entry_of.cache_clear()
                return False
            self._numbers = polled.numbers
            self._ranks |= {writer.rank for writer in polled.numbers}
            if self._pyramids is None:
                self._several = len(self._ranks) > 1
                self._pyramids = self._new()
            self._take(polled, self._pyramids)
            if not polled.more:
                self._refused = polled.refused
                break
        if self._several != (len(self._ranks) > 1):
            return False
        if self._starts == "latest":
            self._found.spared = find_spared(self._numbers, self._entry_of)
        counts = self._used.rewinds == self._found.rewinds
        counts = counts and self._used.cutoffs(self._numbers) == self._found.cutoffs(self._numbers)
        if counts:
            self._used = _copy(self._found)
        return counts

    def _new(self) -> Pyramids:
        from foundry_fastlog.reading.scan import new_pyramids

        size, most, least = self._limits.size, self._limits.most, self._limits.least
        return new_pyramids(several_ranks=self._several, size=size, most=most, least=least)

    def _take(self, polled: Polled, pyramids: Pyramids) -> None:
        wanted = [
            series
            for series in polled.series
            if isinstance(self._starts, str) or polled.numbers[series.writer] == self._starts
        ]
        self._read += sum(series.size for series in wanted)
        parts = split_starts(wanted, polled.numbers, self._entry_of)
        if self._starts != "all":
            for series, seq, step in polled.rewinds:
                self._found.rewinds.setdefault(series.writer, []).append((seq, step))
        cutoffs = self._used.cutoffs(self._numbers) if parts else {}
        for part, chosen in parts.items():
            pyramids.add(self._scan(part, chosen, cutoffs))

    def _scan(self, part: _Part, chosen: list[Series], cutoffs: dict[Writer, Cutoffs]) -> Frame:
        """Read what is new of a part of a start."""
        from foundry_fastlog.reading.scan import Choice, scan_series

        latest = self._starts == "latest"
        choice = Choice(
            starts=dict.fromkeys(chosen, part[0]),
            counts=self._starts != "all",
            cutoffs=cutoffs,
            note_firsts=latest,
            rewinds=self._used.rewinds,
        )
        scan = scan_series(chosen, choice, [SeriesCheck(one) for one in chosen], Problems())
        if latest:
            self._found.add_firsts(part, scan.firsts())
        return scan.frame(0)

    def _open(self) -> bool:
        """Go on where a reader before has stopped."""
        return any(self._accept(cached) for cached in read_cache(self._path, self._starts))

    def _accept(self, cached: Cached) -> bool:
        try:
            facts = cached.facts
            self._begin(_Known())
            self._cursor = Cursor(self._path, ["metrics"], position=facts["position"])
            self._several, self._ranks = bool(facts["several"]), set(facts["ranks"])
            self._read = self._written = int(facts["read"])
            for start, rank, firsts in facts["firsts"]:
                part = int(start), int(rank)
                self._found.firsts[part] = {(kind, name): at for kind, name, at in firsts}
            for label, stamp, rewinds in facts["rewinds"]:
                found = [(seq, step) for seq, step in rewinds]
                self._found.rewinds[Writer.from_label(label, stamp)] = found
            for label, stamp, heirs in facts["spared"]:
                known = frozenset((int(start), int(rank)) for start, rank in heirs)
                self._found.spared[Writer.from_label(label, stamp)] = known
            self._used = _copy(self._found)
            pyramids = self._new()
            limits = [self._limits.size, self._limits.most, self._limits.least]
            sound = facts["limits"] == limits and all(
                pyramids.load(rank, name, level, buckets)
                for rank, name, level, buckets in cached.curves()
            )
        except (KeyError, TypeError, ValueError):  # of another version, or forged
            return False
        self._pyramids = pyramids
        return sound

    def _save(self, pyramids: Pyramids) -> None:
        """Let the next reader begin here, where that saves it something."""
        new = self._read - self._written
        if not is_worth_it(new, self._read):
            return
        assert self._cursor is not None
        facts = {
            "position": self._cursor.position,
            "several": self._several,
            "ranks": sorted(self._ranks),
            "read": self._read,
            "limits": [self._limits.size, self._limits.most, self._limits.least],
            "firsts": [
                [*part, [[kind, name, at] for (kind, name), at in firsts.items()]]
                for part, firsts in self._found.firsts.items()
            ],
            "rewinds": [[w.label, w.stamp, lines] for w, lines in self._found.rewinds.items()],
            "spared": [[w.label, w.stamp, sorted(n)] for w, n in self._found.spared.items()],
        }
        write_cache(self._path, self._starts, Cached.of(facts, pyramids.dump()))
        self._written = self._read


def is_worth_it(new: int, read: int) -> bool:
    """Say whether so many new bytes of those read make it worth to write a cache."""
    return new >= max(1 << 20, read >> 3)


def _copy(known: _Known) -> _Known:
    return _Known(
        {part: dict(firsts) for part, firsts in known.firsts.items()},
        {writer: list(lines) for writer, lines in known.rewinds.items()},
        known.spared,
    )
