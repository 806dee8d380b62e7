"""What the live page asks for: the runs, a run's facts, a curve of a window, and what is new.

All of it blocks while it reads; `server.py` calls it in threads.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.pages.buckets import bucket
from foundry_fastlog.pages.curves import Rows, drawn
from foundry_fastlog.pages.encoding import encode
from foundry_fastlog.pages.facts import describe
from foundry_fastlog.reading.columns import column_of
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import RunNotFoundError

if TYPE_CHECKING:
    import numpy as np

    from foundry_fastlog.analysis.run_summary import RunSummary
    from foundry_fastlog.analysis.runs import Runs
    from foundry_fastlog.reading.columns import Columns
    from foundry_fastlog.reading.curves import Curve

    _Array = np.ndarray[Any, Any]

__all__ = ["Follower", "LiveRun", "LiveRuns", "rows_of"]

_MOST_OPEN = 64
_MOST_KNOTS = 4000
_MOST_NEW = 500  # values of a metric in an update; more are sent as buckets
_NARROW = 1 << 15  # steps; a window of so many is read for all metrics at once
_KEPT_S = 2.0
_GONE = (OSError, RunNotFoundError)


def rows_of(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return what the table of runs shows, by their path below the directory."""
    metrics = runs.main_metrics()[:1] if len(runs) else []
    return {
        run.run: {
            "name": printable(run.run if run.run != "." else run.path.absolute().name),
            "path": printable(str(run.path.absolute())),
            "state": run.state,
            "error": run.error,
            "started": run.started,
            "step": run.step,
            "wall_s": run.duration_s,
            "metric": metrics[0] if metrics else "loss",
            "value": _number(run, metrics[0]) if metrics else None,
        }
        for run in runs
    }


def _number(run: RunSummary, name: str) -> float | None:
    value = run.metrics[name].last if name in run.metrics else None
    return float(value) if isinstance(value, (int, float)) and value - value == 0 else None


class LiveRun:
    """A run that is being looked at. Its methods may be called by several threads.

    Args:
        path: The run's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._run = Run(path)
        self._lock = ForkLock()
        self._window: tuple[tuple[int, int], Rows, float] | None = None

    def names(self) -> dict[str, Any]:
        """Return the names of the curves, which is soon known."""
        run = self._look()
        names = run.names() if "metrics" in run.streams else []
        return {"curves": [{"name": name} for name in names]}

    def facts(self) -> dict[str, Any]:
        """Describe the run as it is now."""
        return describe(self._look(), "latest")

    def _look(self) -> Run:
        """Open the run anew; what curves are drawn of is kept, unless it has another start."""
        run = Run(self.path)
        with self._lock:
            self._run = run if run.starts != self._run.starts else self._run
        return run

    def curve(self, name: str, points: int, steps: tuple[int, int] | None) -> dict[str, Any]:
        """Return a curve, or a window of it: out of the pyramid, or of narrow ones the values."""
        if steps is not None and steps[1] - steps[0] <= _NARROW:
            found = self._narrow(steps).of(name)
            if found is not None:
                entry, arrays, *_ = drawn(name, found.take(found.has_step), max(2, points // 4))
                return {**entry, "arrays": encode(arrays)}
        with self._lock:
            curve = self._run.curve(name, points=points, steps=steps)
        return _drawn(name, curve)

    def _narrow(self, steps: tuple[int, int]) -> Rows:
        """Read a window, once for all charts that ask for it at about the same time."""
        with self._lock:
            window, rows, until = self._window or ((0, 0), None, 0.0)
            if rows is None or window != steps or time.monotonic() > until:
                rows = Rows(Run(self.path).arrow("metrics", steps=steps))
                self._window = steps, rows, time.monotonic() + _KEPT_S
            return rows

    def clock(self, name: str) -> str:
        """Return steps and milliseconds of a metric's values, as far apart as a page can hold."""
        import numpy as np

        metric = Run(self.path).metric(name)
        steps, times = metric.steps, metric.time.view("i8") // 1000
        if (np.diff(steps) < 0).any():
            order = np.argsort(steps, kind="stable")
            steps, times = steps[order], times[order]
        places = np.unique(np.linspace(0, max(0, len(steps) - 1), _MOST_KNOTS).astype("i8"))
        # On both sides of the longest pauses, too: between knots the page interpolates.
        pauses = np.argsort(np.diff(times))[-_MOST_KNOTS // 4 :] if len(times) > 1 else places[:0]
        places = np.unique(np.concatenate([places, pauses, pauses + 1]))[: len(steps) * 2]
        places = places[places < len(steps)]
        return encode([steps[places], times[places]])


class LiveRuns:
    """The runs that are open, the latest ones asked for."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, LiveRun] = OrderedDict()
        self._lock = ForkLock()

    def get(self, path: Path) -> LiveRun:
        """Return a run.

        Raises:
            RunNotFoundError: It is gone.
        """
        with self._lock:
            found = self._open.pop(path, None)
        found = found or LiveRun(path)
        with self._lock:
            self._open[path] = found
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return found

    def forget(self, path: Path) -> None:
        """Open a run anew the next time: its directory may have been replaced."""
        with self._lock:
            self._open.pop(path, None)


class Follower:
    """What is new of a run, from now on. For one thread at a time.

    Args:
        path: The run's directory.
    """

    def __init__(self, path: Path) -> None:
        self._cursor = Cursor(path, ["metrics", "errors", "log"])
        self._cursor.last(0)

    def poll(self, names: Collection[str]) -> dict[str, Any]:
        """Return what is new.

        Args:
            names: The metrics whose values are wanted.

        Returns:
            ``at``: lists of steps and of milliseconds; ``values``: by metric the place of its two
            in ``at``, and its values; ``said``: there are messages or errors; ``anew``: curves must
            be read again; ``gone``. Empty if nothing is new.
        """
        try:
            polled = self._cursor.poll()
        except _GONE:
            return {"gone": True}
        if not (polled.series or polled.anew or polled.starts or polled.rewinds):
            return {}
        columns = polled.columns
        at, values = _values(columns["metrics"], names) if "metrics" in columns else ([], {})
        return {
            "at": at,
            "values": values,
            "said": "log" in columns or "errors" in columns,
            "anew": bool(polled.anew or polled.starts or polled.rewinds or polled.more),
        }


def _values(
    columns: Columns, names: Iterable[str]
) -> tuple[list[list[list[int]]], dict[str, list[Any]]]:
    """Return the new values of metrics; those that were recorded together share steps and times."""
    import numpy as np

    places: dict[bytes, int] = {}
    shared: list[list[list[int]]] = []
    found: dict[str, list[Any]] = {}
    for name in names:
        if columns.kinds.get(column_of(name)) not in ("int64", "float64", "bool"):
            continue
        metric = columns.metric(name)
        steps, values = metric.steps, metric.values.astype("f8")
        times = metric.time.view("i8") // 1000
        if len(steps) > _MOST_NEW:  # few of many, each extreme among them
            order = np.argsort(steps, kind="stable")
            steps, values, times = steps[order], values[order], times[order]
            finite = np.flatnonzero(np.isfinite(values))
            few = bucket(steps[finite], values[finite], _MOST_NEW // 4)
            ends = [few.first_at, few.last_at, few.low_at, few.high_at]
            odd = np.flatnonzero(~np.isfinite(values))[:_MOST_NEW]
            kept = np.union1d(finite[np.unique(np.concatenate(ends))], odd)
            steps, values, times = steps[kept], values[kept], times[kept]
        place = places.setdefault(steps.tobytes() + times.tobytes(), len(shared))
        if place == len(shared):
            shared.append([steps.tolist(), times.tolist()])
        said = [value if np.isfinite(value) else str(value) for value in values.tolist()]
        found[name] = [place, said]
    return shared, found


def _drawn(name: str, curve: Curve) -> dict[str, Any]:
    """Return a curve as `assets/curve.js` takes it."""
    import numpy as np

    some = curve.count > 0
    first_step, first, count = curve.first_step[some], curve.first[some], curve.count[some]
    single = bool((count == 1).all())
    arrays: list[_Array] = [first_step, first]
    if not single:
        for place in ("last", "min", "max"):
            arrays.append(getattr(curve, f"{place}_step")[some] - first_step)
            arrays.append(getattr(curve, place)[some])
        ends = [curve.first[some], curve.last[some], curve.min[some], curve.max[some]]
        arrays += [count, np.sum([end / 4 for end in ends], axis=0)]
    bad = curve.nonfinite > 0
    return {
        "name": name,
        "single": single,
        "level": curve.level,
        "bad": int(curve.nonfinite.sum()),
        "marks": [[int(step), "not finite"] for step in curve.steps[bad][:500]],
        "last": float(curve.last[some][-1]) if some.any() else None,
        "arrays": encode(arrays),
    }
