"""What the live page asks for: the runs, a run's facts, a curve of a window.

All of it blocks while it reads; `server.py` calls it in threads.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.pages.curves import (
    MOST_MARKS,
    Points,
    Rows,
    clock_of,
    drawn,
    epoch_name,
    spread,
    steps_at,
    system_names,
)
from foundry_fastlog.pages.encoding import encode
from foundry_fastlog.pages.facts import describe
from foundry_fastlog.pages.ranks import rank_map
from foundry_fastlog.reading.run import Run

if TYPE_CHECKING:
    import numpy as np

    from foundry_fastlog.analysis.run_summary import RunSummary
    from foundry_fastlog.analysis.runs import Runs
    from foundry_fastlog.reading.curves import Curve

    _Array = np.ndarray[Any, Any]

__all__ = ["LiveRun", "LiveRuns", "id_of", "path_of", "rows_of"]

_Kept = TypeVar("_Kept")

_MOST_OPEN = 64
_MOST_KNOTS = 4000
_NARROW = 1 << 15  # steps; a window of so many is read for all metrics at once
_KEPT_S = 2.0
_NO_POINTS = ("f8", "i8", "i8", "?", "f8", "?", "i8")


def rows_of(runs: Runs) -> dict[str, dict[str, Any]]:
    """Return what the table of runs shows, by `id_of` the run."""
    metrics = runs.main_metrics()[:1] if len(runs) else []
    return {
        id_of(run): {
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


def id_of(run: RunSummary) -> str:
    """Return a run's path below the directory as a URL has it: a file name may be no text."""
    return quote(os.fsencode(run.run), safe="/")


def path_of(root: Path, name: str) -> Path:
    """Return the path of a run from what `id_of` called it."""
    return root / os.fsdecode(unquote_to_bytes(name))


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
        self._kept: dict[object, tuple[Any, float]] = {}
        self._main: str | None = None  # the metric that tells where the run was in time
        self._ranks: tuple[dict[str, Any] | None, float] = None, 0.0  # until when it is kept

    def names(self) -> dict[str, Any]:
        """Return the names of the curves, which is soon known."""
        run = self._look()
        names = run.names() if "metrics" in run.streams else []
        self._main = next(iter(names), None)
        return {"curves": [*({"name": name} for name in names), *_system_curves(run)]}

    def facts(self) -> dict[str, Any]:
        """Describe the run as it is now, with those of its curves that have numbers."""
        run = self._look()
        found = describe(run, "latest")
        counts = {
            row["name"]: row["count"]
            for row in found["metrics"]
            if row["min"] is not None or row["bad"]
        }
        names = run.names() if "metrics" in run.streams else []
        stepped = [name for name in names if name in counts]
        epochs = [name for name in names if epoch_name(name) in counts.keys() - set(names)]
        if stepped:
            self._main = max(stepped, key=lambda name: counts[name])
        curves: list[dict[str, str]] = [{"name": name} for name in stepped]
        curves += [{"name": epoch_name(name), "kind": "epoch", "of": name} for name in epochs]
        curves += [one for one in _system_curves(run) if f"{one['of']} (system)" in counts]
        return {**found, "curves": curves, "rank_map": self._compared(run)}

    def _compared(self, run: Run) -> dict[str, Any] | None:
        """Compare the ranks, for a twentieth of the time at most: that reads all timings."""
        known, until = self._ranks
        begun = time.monotonic()
        if begun >= until:
            known = rank_map(run, "latest")
            ended = time.monotonic()
            self._ranks = known, ended + 20 * (ended - begun)
        return known

    def _look(self) -> Run:
        """Open the run anew; what curves are drawn of is kept, unless it has another start."""
        run = Run(self.path)
        with self._lock:
            self._run = run if run.starts != self._run.starts else self._run
        return run

    def curve(
        self, name: str, points: int, steps: tuple[int, int] | None, kind: str = ""
    ) -> dict[str, Any]:
        """Return a curve, or a window of it: out of the pyramid, or of narrow ones the values.

        Args:
            name: Of the metric, or the figure of the machine.
            points: How many buckets there may be.
            steps: The first and the last step; None for all.
            kind: ``epoch``: the values of whole epochs; ``system``: a figure of the machine. These
                are drawn at the steps where the run was then, and have a clock of their own.
        """
        if kind:
            return self._timed(name, points, steps, kind)
        if steps is not None and steps[1] - steps[0] <= _NARROW:
            found = self._narrow(steps).of(name)
            if found is not None:
                entry, arrays, *_ = drawn(name, found.take(found.has_step), max(2, points // 4))
                return {**entry, "arrays": encode(arrays)}
        with self._lock:
            curve = self._run.curve(name, points=points, steps=steps)
        return _drawn(name, curve)

    def _timed(
        self, name: str, points: int, steps: tuple[int, int] | None, kind: str
    ) -> dict[str, Any]:
        """Return the curve of what was recorded at times, not at steps."""
        import numpy as np

        run = Run(self.path)
        if kind == "system":
            rows = self._keep(("system", _sizes(run)), lambda: Rows(run.arrow("system")))
        else:
            rows = Rows(run.arrow("metrics", names=exactly([name])))
        found = rows.of(name) or Points(*(np.empty(0, one) for one in _NO_POINTS))
        reached = rows.reached()
        if kind == "epoch":
            found = found.take(~found.has_step)
        found = found._replace(steps=steps_at(found.times, self._known(run)))
        if steps is not None:
            found = found.take((found.steps >= steps[0]) & (found.steps <= steps[1]))
        entry, arrays, buckets, finite = drawn(name, found, max(2, points // 4))
        clock = encode(clock_of(buckets, finite))
        return {**entry, "arrays": encode(arrays), "clock": clock, "reached": reached, "kind": kind}

    def _narrow(self, steps: tuple[int, int]) -> Rows:
        """Read a window, once for all charts that ask for it at about the same time."""
        run = Run(self.path)
        return self._keep((steps, _sizes(run)), lambda: Rows(run.arrow("metrics", steps=steps)))

    def _known(self, run: Run) -> tuple[_Array, _Array] | None:
        """Return times and steps of the main metric's values."""
        name = self._main or next(iter(run.names() if "metrics" in run.streams else ()), None)
        if name is None:
            return None
        metric = self._keep("main", lambda: run.metric(name))
        return metric.time.view("i8"), metric.steps

    def _keep(self, key: object, read: Callable[[], _Kept]) -> _Kept:
        """Read something, unless that was done just now."""
        with self._lock:
            now = time.monotonic()
            self._kept = {one: kept for one, kept in self._kept.items() if kept[1] > now}
            if key not in self._kept:
                found = read()
                self._kept[key] = found, time.monotonic() + _KEPT_S
            kept: _Kept = self._kept[key][0]
            return kept

    def clock(self, name: str) -> str:
        """Return steps, milliseconds and epochs of a metric's values, as many as a page can hold.

        Without any epoch there are two arrays; where a value has none, it is NaN.
        """
        import numpy as np

        found = Rows(Run(self.path).arrow("metrics", names=exactly([name]))).of(name)
        if found is None:
            return encode([np.empty(0), np.empty(0)])
        found = found.take(found.has_step)
        if (np.diff(found.steps) < 0).any():
            found = found.at(np.argsort(found.steps, kind="stable"))
        times = found.times // 1000
        places = spread(len(times), _MOST_KNOTS)
        # On both sides of the longest pauses, too: between knots the page interpolates.
        pauses = np.argsort(np.diff(times))[-_MOST_KNOTS // 4 :] if len(times) > 1 else places[:0]
        places = np.unique(np.concatenate([places, pauses, pauses + 1]))
        return encode(found.at(places).clock())


def _sizes(run: Run) -> tuple[tuple[str, str, int], ...]:
    """Return what differs once more was recorded: a page would never hear of that again."""
    return tuple((one.stream, one.writer.display, one.size) for one in run.series)


def _system_curves(run: Run) -> list[dict[str, str]]:
    return [
        {"name": shown, "kind": "system", "of": name} for shown, name in system_names(run).items()
    ]


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
    bad_steps = curve.steps[curve.nonfinite > 0]
    return {
        "name": name,
        "single": single,
        "level": curve.level,
        "bad": int(curve.nonfinite.sum()),
        "marks": [
            [step, "not finite"] for step in bad_steps[spread(len(bad_steps), MOST_MARKS)].tolist()
        ],
        "last": float(curve.last[some][-1]) if some.any() else None,
        "arrays": encode(arrays),
        "reached": curve.reached,
    }
