"""How long each rank took for each timed block, step by step: read natively, in bounded memory.

What comes out is a table of blocks x ranks x steps of each block's own time: without the blocks in
it, so that a slow block is seen where it is slow and not again in those around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.analysis.text_numbers import TextNumbers
from foundry_fastlog.reading.columns import known_rows
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run

if TYPE_CHECKING:
    from foundry_fastlog.reading.columns import Columns
    from foundry_fastlog.reading.scan import ColumnPart

__all__ = ["BlockStats", "RankTimes", "read_rank_times"]

_Array = np.ndarray[Any, Any]

_BATCH_BYTES = 96 << 20  # of files that are read at once; their columns take about as much
_LONGEST_S = 1e9  # no recorder writes a longer block
_MOST_CELLS = 64 << 20  # blocks x ranks x steps, four bytes each


@dataclass(frozen=True)
class BlockStats:
    """Durations of a block on one rank, with the blocks in it.

    Attributes:
        count: How often it was timed.
        total_s: Sum of its durations.
        median_s: Their median.
        p95_s: Their 95th percentile.
    """

    count: int
    total_s: float
    median_s: float
    p95_s: float


@dataclass(frozen=True)
class RankTimes:
    """Times of blocks by rank and step.

    Attributes:
        ranks: The ranks that timed blocks with a step, ascending.
        names: The blocks, in the order in which they appeared. The time on a device is a block of
            its own, with the kind of device in parentheses.
        on_device: Which of them are times on a device; they overlap with the others.
        steps: The first step of each column, ascending.
        width: How many step numbers a column covers: 1, or a power of two where single steps would
            take too much memory. Times are means over the steps of a column then.
        own_s: Seconds in a block itself per step, blocks x ranks x columns; NaN where there was
            none. Of a step that several starts recorded, the mean over these.
        ends: When the last block of a step ended on each rank, in seconds since `origin`, ranks x
            columns; NaN where it has no such step.
        joint: Likewise, of the last collective block.
        origin: Seconds since 1970.
        stats: Durations by block and rank.
        without_step: How many blocks had no step; they are in none of this.
    """

    ranks: tuple[int, ...]
    names: tuple[str, ...]
    on_device: tuple[bool, ...]
    steps: _Array
    width: int
    own_s: _Array
    ends: _Array
    joint: _Array
    origin: float
    stats: dict[tuple[str, int], BlockStats]
    without_step: int

    def last_step(self, column: int) -> int:
        """Return the last step of a column."""
        return int(self.steps[column]) + self.width - 1

    def spent(self) -> list[float]:
        """Return the seconds in each block itself, of all ranks and steps."""
        # Row by row: all at once takes a copy of the largest array that there is.
        return [
            float(sum(np.nansum(row, dtype="f8") for row in of_block)) * self.width
            for of_block in self.own_s
        ]


@dataclass
class _Rows:
    """Blocks of some ranks: what is needed of their lines."""

    block: _Array
    parent: _Array  # -1 for none
    rank: _Array
    step: _Array
    seconds: _Array
    time: _Array
    start: _Array


@dataclass
class _Part:
    """The table of some ranks, over their own columns."""

    ranks: _Array
    columns: _Array
    own_s: _Array  # sums, blocks x ranks x columns; NaN where there was none
    counts: _Array  # steps of a column, ranks x columns
    ends: _Array
    joint: _Array

    def folded(self) -> _Part:
        """Return the same with columns of twice as many steps."""
        columns, starts = np.unique(self.columns >> 1, return_index=True)
        known = np.add.reduceat(~np.isnan(self.own_s), starts, axis=2, dtype="i4") > 0
        sums = np.add.reduceat(np.nan_to_num(self.own_s), starts, axis=2)
        return _Part(
            self.ranks,
            columns,
            np.where(known, sums, np.float32(np.nan)),
            np.add.reduceat(self.counts, starts, axis=1),
            np.fmax.reduceat(self.ends, starts, axis=1),
            np.fmax.reduceat(self.joint, starts, axis=1),
        )


class _Reading:
    """Reads ranks batch by batch into tables."""

    def __init__(self, is_collective: Callable[[str], bool]) -> None:
        self._is_collective = is_collective
        self.names = TextNumbers()
        self.devices: set[int] = set()  # the blocks that are times on one
        self.stats: dict[tuple[int, int], BlockStats] = {}
        self.without_step = 0
        self.shift = 0
        self.parts: list[_Part] = []

    def add(self, columns: Columns, ranks_left: int) -> None:
        """Add the blocks of some ranks."""
        rows = self._rows(columns) if columns.rows else None
        if rows is None or not len(rows.rank):
            return
        self._note_stats(rows)
        part = self._table(rows)
        for _ in range(self.shift):
            part = part.folded()
        self.parts.append(part)
        ranks = ranks_left + sum(len(one.ranks) for one in self.parts)
        while len(self.names.texts) * ranks * len(self.parts[-1].columns) > _MOST_CELLS:
            self.shift += 1
            self.parts = [one.folded() for one in self.parts]

    def _rows(self, columns: Columns) -> _Rows:
        """Take what is needed of lines, blocks on devices as blocks of their own."""
        found = [self._batch(columns, batch) for batch in columns.batches()]
        fields = ("block", "parent", "rank", "step", "seconds", "time", "start")
        return _Rows(*(np.concatenate([getattr(one, name) for one in found]) for name in fields))

    def _batch(self, columns: Columns, batch: list[ColumnPart]) -> _Rows:
        parts = dict(zip(columns.names, batch, strict=True))
        block = self.names.numbers(parts["name"])
        parent = np.where(known_rows(parts["parent"]), self.names.numbers(parts["parent"]), -1)
        rank, start = (columns.array(name, [batch])[1] for name in ("rank", "start"))
        seconds = columns.array("duration_s", [batch])[1].astype("f8")
        _, time, timed = columns.array("timestamp", [batch])
        time = time * 1e-6 if timed is None else np.where(timed, time * 1e-6, -np.inf)
        step, known = columns.array("step", [batch])[1], known_rows(parts["step"])
        self.without_step += int((~known).sum())
        sound = known & (seconds >= 0) & (seconds <= _LONGEST_S)
        rows = _Rows(*(one[sound] for one in (block, parent, rank, step, seconds, time, start)))
        measured = sound & known_rows(parts["device_duration_s"])
        return self._with_devices(columns, batch, rows, measured[sound], measured)

    def _with_devices(
        self,
        columns: Columns,
        batch: list[ColumnPart],
        rows: _Rows,
        of: _Array,
        measured: _Array,
    ) -> _Rows:
        """Add a row for each time on a device: `of` says which rows have one, `measured` lines."""
        if not of.any():
            return rows
        seconds = columns.array("device_duration_s", [batch])[1].clip(0.0, _LONGEST_S)
        devices = columns.array("device", [batch])[1]
        kinds = np.array([str(one).partition(":")[0] for one in devices[measured].tolist()], "O")

        def placed(blocks: _Array) -> _Array:
            found = np.full(len(blocks), -1, "i8")
            for device in set(kinds.tolist()):
                for number in np.unique(blocks[(kinds == device) & (blocks >= 0)]).tolist():
                    name = f"{self.names.texts[number]} ({device})"
                    at = self.names.number(name)
                    self.devices.add(at)
                    found[(kinds == device) & (blocks == number)] = at
            return found

        return _Rows(
            np.concatenate([rows.block, placed(rows.block[of])]),
            np.concatenate([rows.parent, placed(rows.parent[of])]),
            *(
                np.concatenate([one, one[of] if one is not rows.seconds else seconds[measured]])
                for one in (rows.rank, rows.step, rows.seconds, rows.time, rows.start)
            ),
        )

    def _note_stats(self, rows: _Rows) -> None:
        """Note durations by block and rank."""
        ranks, place = np.unique(rows.rank, return_inverse=True)
        blocks = len(self.names.texts)
        for key, chosen in _grouped(place * blocks + rows.block).items():
            seconds = np.sort(rows.seconds[chosen])
            ascending = cast("list[float]", seconds)  # is looked at in four places
            median, p95 = (float(percentile(ascending, share)) for share in (0.5, 0.95))
            rank, block = divmod(key, blocks)
            found = BlockStats(len(seconds), float(seconds.sum()), median, p95)
            self.stats[block, int(ranks[rank])] = found

    def _table(self, rows: _Rows) -> _Part:
        ranks, rank = np.unique(rows.rank, return_inverse=True)
        steps, column = np.unique(rows.step, return_inverse=True)
        shape = (len(ranks), len(steps))
        cells = rank * len(steps) + column
        own = np.full((len(self.names.texts), *shape), np.nan, "f4")
        inside = _grouped(rows.parent)
        several = len(rows.start) > 0 and bool((rows.start != rows.start[0]).any())
        for block, chosen in _grouped(rows.block).items():
            sums: _Array = np.bincount(cells[chosen], rows.seconds[chosen], math.prod(shape))
            there = np.bincount(cells[chosen], minlength=len(sums)) > 0
            inner = inside.get(block, chosen[:0])
            sums -= np.bincount(cells[inner], rows.seconds[inner], len(sums))
            if several:  # a step that was trained again takes the mean of its starts
                sums = sums / _starts_of(cells[chosen], rows.start[chosen], len(sums))
            own[block] = np.where(there, np.maximum(sums, 0.0), np.nan).reshape(shape)
        joint = np.array([self._is_collective(name) for name in self.names.texts])[rows.block]
        known = np.bincount(cells, minlength=math.prod(shape)) > 0
        return _Part(
            ranks,
            steps,
            own,
            known.reshape(shape).astype("i4"),
            self._last(cells, rows.time, shape),
            self._last(cells[joint], rows.time[joint], shape),
        )

    @staticmethod
    def _last(cells: _Array, times: _Array, shape: tuple[int, ...]) -> _Array:
        """Return when the last block of each rank and step ended."""
        found = np.full(math.prod(shape), -np.inf)
        np.maximum.at(found, cells, times)
        found[np.isinf(found)] = np.nan
        return found.reshape(shape)

    def result(self) -> RankTimes:
        """Put the tables of all ranks together."""
        columns = np.unique(np.concatenate([np.empty(0, "i8"), *(p.columns for p in self.parts)]))
        ranks = np.concatenate([np.empty(0, "i8"), *(part.ranks for part in self.parts)])
        order = np.argsort(ranks, kind="stable")
        shape = (len(ranks), len(columns))
        blocks = sorted({block for block, _ in self.stats})  # a parent may not have ended yet
        own = np.full((len(blocks), *shape), np.nan, "f4")
        ends, joint = np.full(shape, np.nan), np.full(shape, np.nan)
        row = 0
        places = np.argsort(order)
        self.parts.reverse()
        while self.parts:  # each is freed as it is taken over
            part = self.parts.pop()
            at = places[row : row + len(part.ranks)]
            where = np.searchsorted(columns, part.columns)
            steps = np.maximum(part.counts, 1)
            for to, block in enumerate(blocks):
                if block < len(part.own_s):
                    own[to][np.ix_(at, where)] = part.own_s[block] / steps
            ends[np.ix_(at, where)] = part.ends
            joint[np.ix_(at, where)] = part.joint
            row += len(part.ranks)
        origin = float(np.nanmin(ends)) if np.isfinite(ends).any() else 0.0
        names = self.names.texts
        return RankTimes(
            tuple(ranks[order].tolist()),
            tuple(names[block] for block in blocks),
            tuple(block in self.devices for block in blocks),
            columns << self.shift,
            1 << self.shift,
            own,
            ends - origin,
            joint - origin,
            origin,
            {(names[block], rank): found for (block, rank), found in self.stats.items()},
            self.without_step,
        )


def _starts_of(cells: _Array, starts: _Array, count: int) -> _Array:
    """Return in how many starts each cell has rows, at least 1."""
    numbers = int(starts.max(initial=0)) + 1
    pairs = np.unique(cells * numbers + starts)
    return np.maximum(np.bincount(pairs // numbers, minlength=count), 1)


def _grouped(keys: _Array) -> dict[int, _Array]:
    """Return the places of each key that is not below 0."""
    order = np.argsort(keys.astype("u2") if keys.max(initial=0) < 0xFFFF else keys, kind="stable")
    ascending = keys[order]
    bounds = np.flatnonzero(np.diff(ascending)) + 1
    places = np.split(order, bounds) if len(order) else []
    return {int(keys[one[0]]): one for one in places if keys[one[0]] >= 0}


def read_rank_times(
    run: Run,
    is_collective: Callable[[str], bool],
    *,
    steps: tuple[int | None, int | None] | None = None,
    ranks: Iterable[int] | None = None,
    starts: Starts = "latest",
) -> RankTimes:
    """Read the timed blocks of a run into a table by rank and step.

    Args:
        run: The run.
        is_collective: Whether a block of this name is a collective operation.
        steps: As for ``Run.arrow``.
        ranks: Only these ranks.
        starts: As for ``Run.lines``.

    Raises:
        LookupError: There are steps, but none of these.
        ValueError: An unknown start.
    """
    reading = _Reading(is_collective)
    batches = list(_batches(run, ranks))
    left = sum(map(len, batches))
    for batch in batches:
        left -= len(batch)
        # Held by nobody here: what was read of one batch is freed before the next one.
        reading.add(run.arrow("performance", steps=steps, ranks=batch, starts=starts), left)
    found = reading.result()
    if steps is not None and not len(found.steps):
        there = read_rank_times(run, is_collective, ranks=ranks, starts=starts)
        if len(there.steps):
            low, high = ("" if step is None else step for step in steps)
            raise LookupError(
                f"no rank of {run.path} timed a step in {low}:{high}; "
                f"it has steps {there.steps[0]} to {there.last_step(-1)}"
            )
    return found


def _batches(run: Run, ranks: Iterable[int] | None) -> Iterator[list[int]]:
    """Divide the ranks that timed blocks, so that few files are in memory at once."""
    wanted = None if ranks is None else set(ranks)
    sizes: dict[int, int] = {}
    for series in run.series:
        rank = series.writer.rank
        if series.stream == "performance" and (wanted is None or rank in wanted):
            sizes[rank] = sizes.get(rank, 0) + series.size
    batch: list[int] = []
    size = 0
    for rank, more in sorted(sizes.items()):
        if batch and size + more > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(rank)
        size += more
    if batch:
        yield batch
