"""The values of metrics of one run as points: each with its step, and its place on the x axis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.identity import nearest
from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.columns import column_of

if TYPE_CHECKING:
    from foundry_fastlog.reading.columns import Columns
    from foundry_fastlog.reading.counting import Starts
    from foundry_fastlog.reading.curves import Curve
    from foundry_fastlog.reading.run import Run

__all__ = ["AXES", "Asked", "Points", "first_record", "read_points"]

_Array = np.ndarray[Any, Any]

#: What an x axis can be, besides a metric.
AXES = ("step", "epoch", "time", "relative")


@dataclass(frozen=True)
class Asked:
    """Which values of a run are asked for.

    Attributes:
        x: ``step``, ``epoch``, ``time`` (UTC, seconds since 1970), ``relative`` (seconds since the
            run's first record, pauses between starts among them), or the name of a metric.
        steps: The first and the last step, both included; None for no bound.
        ranks: These ranks, a curve each; ``"all"`` for one of each rank; None for the lowest rank
            that recorded the metric.
        starts: As for ``Run.lines``.
        points: How many buckets suffice where steps are drawn as they are; None for all values.
    """

    x: str = "step"
    steps: tuple[int | None, int | None] | None = None
    ranks: tuple[int, ...] | str | None = None
    starts: Starts = "latest"
    points: int | None = None


@dataclass(frozen=True)
class Points:
    """Values of a metric of one rank, by x.

    Attributes:
        metric: The metric's name.
        rank: The rank that recorded them.
        x: Where they are; float64, ascending.
        y: The values; float64, with NaN and infinities.
        steps: Their steps, or the epochs of epoch summaries; float64.
        starts: Numbers of their starts; all 0 where the run has one.
        summaries: Whether they are epoch summaries.
        unplaced: How many values have no place on the x axis.
    """

    metric: str
    rank: int
    x: _Array
    y: _Array
    steps: _Array
    starts: _Array
    summaries: bool = False
    unplaced: int = 0


def read_points(run: Run, names: Sequence[str], asked: Asked) -> list[Points]:
    """Read metrics of a run, by metric and rank; those that have no numbers are left out.

    A metric that has no value with a step is taken from the epoch summaries. On an axis of steps
    those are where their process was: at the highest step that it had recorded before.

    Raises:
        LookupError: There is no metric of the name that `x` has.
    """
    x = _known_axis(run, asked.x)
    asked = replace(asked, x=x)
    found: list[Points] = []
    if asked.points is not None and x == "step" and asked.steps is None and len(run.starts) < 2:
        for name in names:
            found += _from_curves(run, name, asked)
    known = {points.metric for points in found}
    if rest := [name for name in names if name not in known]:
        found += _from_rows(run, rest, asked)
    place = {name: number for number, name in enumerate(names)}
    return sorted(found, key=lambda points: (place[points.metric], points.rank))


def _known_axis(run: Run, x: str) -> str:
    """Return what is on the x axis: a metric as ``metrics.NAME`` where there could be a doubt."""
    if x in AXES:
        return x
    names = run.names()
    name = x if x in names else x.removeprefix("metrics.")
    if name not in names:
        near = ", ".join(printable(one, 60) for one in nearest(x, names)[:8])
        choices = f"-x takes {', '.join(AXES)} or a metric, and"
        raise LookupError(f"{choices} there is no metric {printable(x)}; there are: {near or '-'}")
    return f"metrics.{name}"


# ---- by steps, from the curves that are kept ------------------------------------------------


def _from_curves(run: Run, name: str, asked: Asked) -> list[Points]:
    """Draw a metric over its steps from the run's curves: first, last and extremes of buckets."""
    assert asked.points is not None
    found = []
    for rank in _candidates(run, asked):
        curve = run.curve(name, points=asked.points, ranks=rank, starts=asked.starts)
        if len(curve):
            found.append(_points_of(run, name, rank, curve, asked))
            if asked.ranks is None:
                break
    return found


def _candidates(run: Run, asked: Asked) -> tuple[int, ...]:
    """Return the ranks that may have a curve, in order."""
    if isinstance(asked.ranks, tuple):
        return tuple(rank for rank in run.ranks if rank in asked.ranks)
    return run.ranks


def _points_of(run: Run, name: str, rank: int, curve: Curve, asked: Asked) -> Points:
    some = curve.count > 0
    kinds = ("first", "min", "max", "last")
    steps = np.stack([getattr(curve, f"{kind}_step")[some] for kind in kinds], 1).astype(float)
    values = np.stack([getattr(curve, kind)[some] for kind in kinds], 1)
    order = np.argsort(steps[:, 1:3], axis=1, kind="stable") + 1  # the extreme that came first
    order = np.hstack([np.zeros_like(order[:, :1]), order, np.full_like(order[:, :1], 3)])
    x, y = (np.take_along_axis(one, order, 1).ravel() for one in (steps, values))
    new = np.append(True, (x[1:] != x[:-1]) | (y[1:] != y[:-1]))[: len(x)]
    x, y = x[new], y[new]
    odd = curve.steps[curve.nonfinite > 0]
    if len(odd):  # which they are, and where exactly, the buckets do not say
        span = int(odd[0]), int(odd[-1]) + (1 << curve.level) - 1
        values_there = run.metric(name, steps=span, ranks=rank, starts=asked.starts)
        y_there = _numbers_of(values_there.values)
        is_odd = ~np.isfinite(y_there)
        x = np.append(x, values_there.steps[is_odd].astype(float))
        y = np.append(y, y_there[is_odd])
        by_step = np.argsort(x, kind="stable")
        x, y = x[by_step], y[by_step]
    return Points(name, rank, x, y, x, np.zeros(len(x), np.int64))


# ---- by rows --------------------------------------------------------------------------------


class _Rows:
    """Lines of metrics by columns, those of each rank in the order in which it wrote them."""

    def __init__(self, columns: Columns) -> None:
        batches = columns.batches()
        kinds = columns.kinds

        def array(name: str) -> _Array:
            kind, values, valid = columns.array(name, batches)
            found = _numbers_of(values) if kind != "null" else np.full(len(values), np.nan)
            return found if valid is None else np.where(valid, found, np.nan)

        def present(name: str) -> _Array:
            kind, values, valid = columns.array(name, batches)
            some = np.ones(len(values), bool) if valid is None else valid
            if kind == "text":
                some = some & np.array([_is_number(value) for value in values], bool)
            return some & (kind != "null")

        self._array, self._present, self._kinds = array, present, kinds
        self.rank, self.start = (columns.array(name, batches)[1] for name in ("rank", "start"))
        self.time = array("timestamp") / 1e6
        self.step = array("step")
        self.epoch = array("epoch")

    def metric(self, name: str) -> tuple[_Array, _Array]:
        """Return the values of a metric, and in which rows it has one."""
        column = column_of(name)
        if column not in self._kinds:
            nothing = np.zeros(len(self.step), bool)
            return nothing.astype(float), nothing
        return self._array(column), self._present(column)


def _read_rows(run: Run, names: Iterable[str] | None, asked: Asked, ranks: Any) -> _Rows:  # noqa: ANN401 - as Run.arrow
    # Patterns that only the names themselves fit.
    wanted = None if names is None else exactly(names)
    columns = run.arrow(
        "metrics", names=wanted, steps=asked.steps, ranks=ranks, starts=asked.starts
    )
    return _Rows(columns)


def _from_rows(run: Run, names: Sequence[str], asked: Asked) -> list[Points]:
    """Read all values of metrics that count."""
    axis = [] if asked.x in AXES else [asked.x.removeprefix("metrics.")]
    if asked.ranks is not None:
        wanted = None if asked.ranks == "all" else asked.ranks
        rows = _read_rows(run, [*names, *axis], asked, wanted)
        ranks = np.unique(rows.rank).tolist()
        return [one for name in names for one in _of_ranks(run, rows, name, ranks, asked)]
    found = []
    rest = list(names)
    for ranks in (run.ranks[:1], run.ranks[1:]):  # nearly always the first rank has them all
        if rest and ranks:
            rows = _read_rows(run, [*rest, *axis], asked, ranks)
            for name in list(rest):
                lowest = np.unique(rows.rank[rows.metric(name)[1]])[:1].tolist()
                found += _of_ranks(run, rows, name, lowest, asked)
                if lowest:
                    rest.remove(name)
    return found


def _of_ranks(run: Run, rows: _Rows, name: str, ranks: list[int], asked: Asked) -> list[Points]:
    values, present = rows.metric(name)
    found = []
    for rank in ranks:
        mine = present & (rows.rank == rank)
        stepped = mine & ~np.isnan(rows.step)
        summaries = not stepped.any()
        chosen = np.flatnonzero(mine & ~np.isnan(rows.epoch) if summaries else stepped)
        if not len(chosen):
            continue
        place = rows.epoch if summaries else rows.step
        chosen = chosen[np.argsort(place[chosen], kind="stable")]
        x = _place(run, rows, chosen, rank, asked, summaries=summaries)
        known = np.isfinite(x)
        chosen, x = chosen[known], x[known]
        order = np.argsort(x, kind="stable")
        chosen, x = chosen[order], x[order]
        unplaced = int((~known).sum())
        arrays = (values[chosen], place[chosen], rows.start[chosen])
        found.append(Points(name, rank, x, *arrays, summaries, unplaced))
    return found


def _place(
    run: Run, rows: _Rows, chosen: _Array, rank: int, asked: Asked, *, summaries: bool
) -> _Array:
    """Return where rows are on the x axis; NaN for those that have no place there."""
    if asked.x == "epoch":
        return rows.epoch[chosen]
    if asked.x == "time":
        return rows.time[chosen]
    if asked.x == "relative":
        return rows.time[chosen] - first_record(run)
    if asked.x == "step":
        return _steps_reached(run, rows, chosen, rank, asked) if summaries else rows.step[chosen]
    values, present = rows.metric(asked.x.removeprefix("metrics."))
    place = rows.epoch if summaries else rows.step
    x = np.full(len(chosen), np.nan)
    for start in np.unique(rows.start[chosen]):
        there = np.flatnonzero(
            present & (rows.rank == rank) & (rows.start == start) & ~np.isnan(place)
        )
        if len(there):
            there = there[np.argsort(place[there], kind="stable")]
            mine = rows.start[chosen] == start
            wanted = place[chosen][mine]
            last = np.searchsorted(place[there], wanted, "right") - 1
            same = (last >= 0) & (place[there][last] == wanted)
            x[mine] = np.where(same, values[there][last], np.nan)
    return x


def first_record(run: Run) -> float:
    """Return when the run's first line of metrics was recorded, in seconds since 1970; or NaN."""
    first = next(run.entries(["metrics"], starts="all"), None)
    return np.nan if first is None else moment_of(first[0])


def _steps_reached(run: Run, rows: _Rows, chosen: _Array, rank: int, asked: Asked) -> _Array:
    """Return the highest step that was recorded before each epoch summary, in its start."""
    everything = _read_rows(run, None, replace(asked, steps=None), [rank])
    x = np.full(len(chosen), np.nan)
    for start in np.unique(rows.start[chosen]):
        mine = (everything.start == start) & ~np.isnan(everything.step)
        time = everything.time[mine]
        order = np.argsort(time, kind="stable")
        reached = np.maximum.accumulate(everything.step[mine][order])
        these = rows.start[chosen] == start
        before = np.searchsorted(time[order], rows.time[chosen][these], "right") - 1
        if len(reached):
            x[these] = np.where(before >= 0, reached[before], np.nan)
    return x


def _numbers_of(values: _Array) -> _Array:
    """Return values as float64; those that are no numbers are NaN."""
    if values.dtype != object:
        return values.astype(float)
    return np.array([float(v) if _is_number(v) else np.nan for v in values.tolist()], float)


_NUMBER = re.compile(r"-?(\d+(\.\d+)?([eE][+-]?\d+)?|inf)|nan")


def _is_number(value: object) -> bool:
    """Whether a value of a column that also has texts is a number, as it stands in JSON."""
    return isinstance(value, str) and _NUMBER.fullmatch(value) is not None
