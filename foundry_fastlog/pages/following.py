"""What is new of a run that is being looked at: values of curves, and that something was said."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from foundry_fastlog.pages.buckets import bucket
from foundry_fastlog.pages.curves import Points, Rows, steps_at
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.run.files import RunNotFoundError

if TYPE_CHECKING:
    import numpy as np

    _Array = np.ndarray[Any, Any]

__all__ = ["Follower", "Wanted"]

_MOST_NEW = 500  # values of a metric in an update; more are sent as buckets
_LOOKED_BACK = 50  # lines, to find a step
_DRAWN = ("metrics", "system")
_GONE = (OSError, RunNotFoundError)


class Wanted(NamedTuple):
    """A curve that a client follows.

    Attributes:
        name: What its page calls it.
        kind: As for `LiveRun.curve`.
        of: What was recorded, if it is called otherwise.
    """

    name: str
    kind: str = ""
    of: str = ""


class Follower:
    """What is new of a run, from now on. For one thread at a time.

    Args:
        path: The run's directory.
    """

    def __init__(self, path: Path) -> None:
        self._cursor = Cursor(path, ["metrics", "errors", "log", "system"])
        self._cursor.last(0)
        self._known: tuple[_Array, _Array] | None = None  # times and steps of late
        self._names: set[tuple[str, bool]] = set()
        late = Cursor(path, ["metrics"]).last(_LOOKED_BACK).columns
        if "metrics" in late:
            self._note(Rows(late["metrics"]))

    def poll(self, wanted: Collection[Wanted]) -> dict[str, Any]:
        """Return what is new.

        Args:
            wanted: The curves whose values are wanted.

        Returns:
            ``at``: when values were recorded, as `_place` has it; ``values``: by curve the place of
            its own in ``at``, and its values; ``said``: there are messages, errors or names that
            were not there before; ``anew``: curves must be read again; ``gone``. Empty if nothing
            is new.
        """
        try:
            polled = self._cursor.poll()
        except _GONE:
            return {"gone": True}
        if not (polled.series or polled.anew or polled.starts or polled.rewinds):
            return {}
        columns = polled.columns
        rows = {stream: Rows(columns[stream]) for stream in _DRAWN if stream in columns}
        if "metrics" in rows:
            self._note(rows["metrics"])
        found = {one.name: new for one in wanted if (new := self._new(rows, one)) is not None}
        at, values = _told(found)
        kinds = {kind for one in rows.values() for kind in one.kinds()}
        is_fresh = bool(kinds - self._names)
        self._names |= kinds
        is_anew = polled.anew or polled.starts or polled.rewinds or polled.more
        return {
            "at": at,
            "values": values,
            "said": "log" in columns or "errors" in columns or is_fresh,
            "anew": bool(is_anew or (self._known is None and "system" in rows)),
        }

    @property
    def reached(self) -> dict[str, dict[str, int]]:
        """How far it is, by stream and process: what is told later has no lower number."""
        return {stream: self._cursor.reached(stream) for stream in _DRAWN}

    def _note(self, rows: Rows) -> None:
        """Remember at which steps the run was when."""
        import numpy as np

        times, steps = rows.moments()
        if len(times):
            order = np.argsort(times, kind="stable")
            before = [one[-1:] for one in self._known or (times[:0], steps[:0])]
            self._known = (
                np.append(before[0], times[order]),
                np.append(before[1], steps[order]),
            )

    def _new(self, rows: dict[str, Rows], wanted: Wanted) -> tuple[Rows, Points] | None:
        """Return the new values of a curve, with the rows of its stream."""
        found = rows.get("system" if wanted.kind == "system" else "metrics")
        points = found.of(wanted.of or wanted.name) if found else None
        if found is None or points is None:
            return None
        if wanted.kind != "system":
            points = points.take(points.has_step ^ (wanted.kind == "epoch"))
        if wanted.kind:
            if self._known is None:  # all is read again
                return None
            points = points._replace(steps=steps_at(points.times, self._known))
        return (found, points) if len(points.values) else None


def _told(
    found: Mapping[str, tuple[Rows, Points]],
) -> tuple[list[dict[str, Any]], dict[str, list[Any]]]:
    """Return new values as JSON has them; those that were recorded together share their places."""
    import numpy as np

    places: dict[tuple[int, bytes], int] = {}
    shared: list[dict[str, Any]] = []
    values: dict[str, list[Any]] = {}
    for name, (rows, points) in found.items():
        if len(points.values) > _MOST_NEW:
            points = _few(points)
        key = id(rows), points.rows.tobytes() + points.steps.tobytes()
        place = places.setdefault(key, len(shared))
        if place == len(shared):
            shared.append(_place(rows, points))
        said = [one if np.isfinite(one) else str(one) for one in points.values.tolist()]
        values[name] = [place, said]
    return shared, values


def _place(rows: Rows, points: Points) -> dict[str, Any]:
    """Say where values belong.

    Returns:
        ``clock``: lists of steps, of milliseconds and, where any has one, of epochs; ``numbers``:
        the ``seq`` of each value's line; ``of``: the processes, each with how many values are its.
    """
    clock = [one.tolist() for one in points.clock()]
    if len(clock) > 2:  # JSON has no NaN
        clock[2] = [None if epoch != epoch else epoch for epoch in clock[2]]
    numbers, processes = rows.numbers(points.rows)
    return {"clock": clock, "numbers": numbers, "of": processes}


def _few(points: Points) -> Points:
    """Return few of many values, each extreme among them."""
    import numpy as np

    points = points.at(np.argsort(points.steps, kind="stable"))
    is_finite = np.isfinite(points.values)
    finite = np.flatnonzero(is_finite)
    few = bucket(points.steps[finite], points.values[finite], _MOST_NEW // 4)
    ends = [few.first_at, few.last_at, few.low_at, few.high_at]
    odd = np.flatnonzero(~is_finite)[:_MOST_NEW]
    return points.at(np.union1d(finite[np.unique(np.concatenate(ends))], odd))
