"""Split the wall time of a run's starts, exactly: in whole microseconds, each counted once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foundry_fastlog.analysis.start_times import LAYERS, StartTimes
from foundry_fastlog.base.formatting import format_seconds, text_of

__all__ = ["Split", "StartSplit", "split_times"]

_Array = np.ndarray[Any, Any]

_NONE = np.empty(0, np.int64)
_FEWEST = 10  # steps for a mean that means something, as in ml-goodput
_DEVIATIONS = 3
_TOO_FAST = 4  # times as fast as usual: step numbers that were skipped, not trained


@dataclass
class StartSplit:
    """How the time of one start was spent, in microseconds.

    Attributes:
        begin: Where what is counted of it begins.
        wall: How much is counted of it.
        dead: How much time was before it in which no start ran.
        parts: Time by kind; they sum to ``wall``.
        steps: Steps that it trained first.
        again: Steps that it trained again.
        counted: How many ends of steps are in what is counted of it.
        stall: Its longest stall.
        stall_at: The place of the step behind that; None for none.
    """

    begin: int
    wall: int
    dead: int
    parts: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    again: int = 0
    counted: int = 0
    stall: int = 0
    stall_at: int | None = None


@dataclass(frozen=True)
class Split:
    """How the time of all starts was spent.

    Attributes:
        ideal_s: Seconds of an ideal step; None without steps.
        limit_s: Seconds that a step may take before the rest is a stall.
        starts: The starts, in their order.
        notes: What is to be said of it.
        unit: How far the numbers of steps that follow each other usually are apart.
    """

    ideal_s: float | None
    limit_s: float | None
    starts: list[StartSplit]
    notes: list[str]
    unit: int


@dataclass(frozen=True)
class _Stretches:
    """The time of a start between the ends of its steps.

    The first stretch is that before the first step, the last one that behind the last.

    Attributes:
        layers: By kind of block, how much of each stretch it takes; ``untimed``: no block does.
        counts: How many steps each of those between has; empty without steps.
        follows: Which of them come behind another of the same pass.
        keys: What two that trained the same steps have in common; empty without their numbers.
        passes: Which pass each of the keys is in.
    """

    layers: dict[str, _Array]
    counts: _Array
    follows: _Array
    keys: _Array
    passes: _Array

    @property
    def taken(self) -> _Array:
        """Time of steps and of nothing known, from the first step's to that behind the last."""
        return (self.layers["step"] + self.layers["untimed"])[1:]


def split_times(times: Sequence[StartTimes]) -> Split:
    """Split the time of starts.

    Args:
        times: The starts, in their order.
    """
    notes: list[str] = []
    splits = _windows(times, notes)
    unit = _unit_of(times)
    stretches = [_stretches_of(one, split, unit) for one, split in zip(times, splits, strict=True)]
    usual = _usual(stretches)
    for stretch in stretches:
        taken = stretch.taken[:-1]
        skips = (stretch.counts > unit) & (stretch.counts * usual > _TOO_FAST * taken)
        if skips.any():  # no more steps than there was time for
            stretch.counts[skips] = np.maximum(1, np.rint(taken[skips] / usual).astype(np.int64))
    ideal, limit, sampled = _ideal_of(times, stretches)
    if ideal is not None and sampled < _FEWEST:
        notes.append(f"the ideal step is the mean of few: {sampled}")
    again = _trained_again(stretches)
    for one, split, stretch, repeated in zip(times, splits, stretches, again, strict=True):
        _fill(split, one, stretch, repeated, ideal, limit)
    sources = dict.fromkeys(one.source for one in times if one.source not in ("", "blocks"))
    notes += [
        f"steps end with the records of the metric {name}: no block of a step is timed"
        for name in sources
    ]
    ideal_s, limit_s = (None if one is None else one / 1e6 for one in (ideal, limit))
    return Split(ideal_s, limit_s, splits, notes, unit)


def _windows(times: Sequence[StartTimes], notes: list[str]) -> list[StartSplit]:
    """Choose what is counted of each start: what no earlier one took."""
    splits: list[StartSplit] = []
    reached: int | None = None
    by = times[0] if times else None
    for one in times:
        begin = one.begin if reached is None else max(one.begin, reached)
        wall = max(0, one.end - begin)
        dead = 0 if reached is None else max(0, one.begin - reached)
        if reached is not None and by is not None and one.begin < reached:
            twice = min(one.end, reached) - one.begin
            notes.append(_overlap(by, one, twice / 1e6, whole=not wall))
        splits.append(StartSplit(begin, wall, dead))
        if reached is None or one.end > reached:
            reached, by = one.end, one
    return splits


def _overlap(before: StartTimes, one: StartTimes, seconds: float, *, whole: bool) -> str:
    hosts = [text_of(start.report.entry.get("host")) for start in (before, one)]
    numbers = before.report.number, one.report.number
    said = f"starts {numbers[0]} and {numbers[1]} overlap by {format_seconds(seconds)}: "
    if hosts[0] != hosts[1]:
        said += f"they ran at once, or the clocks of {hosts[0]} and {hosts[1]} differ; "
    else:
        said += "they ran at once; "
    return said + ("the later one is not counted" if whole else "that time is counted once")


def _unit_of(times: Sequence[StartTimes]) -> int:
    """Return how far the numbers of steps that follow each other usually are apart."""
    apart = [
        np.diff(one.numbers)[np.diff(one.passes) == 0] for one in times if len(one.numbers) > 1
    ]
    found = _joined(apart)
    return max(1, int(np.median(found))) if len(found) else 1


def _stretches_of(one: StartTimes, split: StartSplit, unit: int) -> _Stretches:
    begin, end = split.begin, split.begin + split.wall
    # What ended before is in the time of an earlier start.
    here = (one.ends > begin) | (begin == one.begin)
    first = begin if one.first is None else min(max(one.first, begin), end)
    ends = one.ends[here]
    head = [begin, min(first, int(ends[0]))] if len(ends) else [begin]
    edges = np.concatenate([np.array(head, np.int64), ends, np.array([end], np.int64)])
    spent, below = {}, np.zeros(len(edges) - 1, np.int64)
    for layer, cover in zip(LAYERS, one.covers, strict=True):
        covered = np.diff(cover.until(edges))
        spent[layer], below = covered - below, covered
    spent["untimed"] = np.diff(edges) - below
    passes = one.passes[here]
    follows = np.append(False, passes[1:] == passes[:-1])[: len(passes)]
    counts = np.ones(len(passes), np.int64)
    keys = _NONE
    if len(one.numbers):
        numbers = one.numbers[here]
        steps = np.append(0, np.diff(numbers))[: len(numbers)]
        # Of the first record of a pass nobody knows how many steps it ends.
        counts = np.maximum(1, np.where(follows, steps, np.minimum(unit, numbers + 1)))
        keys = -(-numbers // unit)
    return _Stretches(spent, counts, follows, keys, passes[: len(keys)])


def _usual(stretches: Sequence[_Stretches]) -> float:
    """Return the median time of a step, by the numbers of the steps."""
    found = [one.taken[:-1][one.follows] / one.counts[one.follows] for one in stretches]
    every = _joined(found)
    return float(np.median(every)) if len(every) else 0.0


def _ideal_of(
    times: Sequence[StartTimes], stretches: Sequence[_Stretches]
) -> tuple[float | None, float | None, int]:
    """Return the ideal step, the limit of one, and of how many steps that is the mean."""
    taken = _joined(one.taken[:-1][one.follows] for one in stretches)
    counts = _joined(one.counts[one.follows] for one in stretches)
    if not len(taken):  # the first steps alone, where it is known when they began
        known = [s for one, s in zip(times, stretches, strict=True) if one.first is not None]
        taken, counts = _joined(s.taken[:-1] for s in known), _joined(s.counts for s in known)
    if not len(taken):
        return None, None, 0
    each = taken / counts
    middle = np.median(each)
    spread = float(np.median(np.abs(each - middle)))
    normal = each <= middle + _DEVIATIONS * spread
    ideal = float(taken[normal].sum() / counts[normal].sum())
    # Where many are faster than usual, the mean is below the median: no normal step stalls.
    limit = max(ideal, float(middle)) + _DEVIATIONS * spread
    return ideal, limit, int(counts[normal].sum())


def _trained_again(stretches: Sequence[_Stretches]) -> list[_Array]:
    """Say which steps an earlier pass, of whichever start, had recorded."""
    passes, before = [], 0
    for stretch in stretches:
        passes.append(before + stretch.passes)
        before = int(passes[-1].max(initial=before - 1)) + 1
    place = _joined(passes)
    known, where = np.unique(_joined(one.keys for one in stretches), return_inverse=True)
    first = np.full(len(known), before, np.int64)
    np.minimum.at(first, where, place)
    repeated, at, found = first[where] < place, 0, []
    for stretch in stretches:
        mine = repeated[at : at + len(stretch.keys)]
        at += len(mine)
        found.append(mine if len(mine) else np.zeros(len(stretch.counts), bool))
    return found


def _joined(parts: Iterable[_Array]) -> _Array:
    """Join arrays, of which there may be none."""
    return np.concatenate([_NONE, *parts])


def _fill(
    split: StartSplit,
    one: StartTimes,
    stretch: _Stretches,
    repeated: _Array,
    ideal: float | None,
    limit: float | None,
) -> None:
    """Split the time of a start by what its stretches are."""
    spent = {name: values.copy() for name, values in stretch.layers.items()}
    step, untimed, other = spent["step"], spent["untimed"], spent["other"]
    stalls = np.zeros(len(step), np.int64)
    start_up = int(step[0] + untimed[0] + other[0])
    step[0] = untimed[0] = other[0] = 0
    if len(stretch.counts):
        allowed = np.append(stretch.counts, 1) * (np.inf if limit is None else limit)
        allowed[0] = stretch.counts[0] * (ideal or 0.0)
        beyond = np.maximum(0.0, np.ceil(stretch.taken - allowed)).astype(np.int64)
        gone = np.minimum(beyond, untimed[1:])  # what no block explains goes first
        untimed[1:] -= gone
        step[1:] -= beyond - gone
        start_up += int(beyond[0])  # the first step compiles, and fills caches
        stalls[2:] = beyond[1:]
    if len(stretch.counts) and one.first is None:  # nothing but its end is known of a step
        start_up += int(other[1])
        other[1] = 0
        step[1:-1] += untimed[1:-1]
        untimed[1:-1] = 0
    inner = slice(1, -1)
    redone = sum(int(spent[name][inner][repeated].sum()) for name in ("step", "untimed", "data"))
    for name in ("step", "untimed", "data"):
        spent[name][inner][repeated] = 0
    other[1:] += untimed[1:]
    other[-1] += step[-1]  # of a step that did not end
    step[-1] = 0
    kinds = ("step", "data", "checkpoint", "evaluation")
    split.parts = {kind: int(spent[kind].sum()) for kind in kinds}
    split.parts |= {"start_up": start_up, "stalls": int(stalls.sum()), "again": redone}
    split.parts["other"] = int(other.sum())
    split.counted = len(stretch.counts)
    split.steps = int(stretch.counts[~repeated].sum())
    split.again = int(stretch.counts[repeated].sum())
    if stalls.any():
        split.stall = int(stalls.max())
        split.stall_at = int(stalls.argmax()) - 1
