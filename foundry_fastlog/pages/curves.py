"""The curves of a run as a page holds them: buckets of values, and a clock that tells the time.

A clock has the times, and the epochs, of the first value of each bucket; curves whose values were
recorded together share one. Between its entries the page interpolates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from foundry_fastlog.pages.buckets import Buckets, bucket
from foundry_fastlog.pages.encoding import encode
from foundry_fastlog.reading.columns import column_of
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run

if TYPE_CHECKING:
    import numpy as np

    from foundry_fastlog.reading.columns import Columns

    _Array = np.ndarray[Any, Any]

__all__ = ["CurveReader", "fitting"]

#: Values of a stream that are in memory at a time.
_MOST_CELLS = 32 << 20
#: NaN and infinite values whose steps a curve keeps; the rest are counted.
_MOST_MARKS = 500
_NUMBERS = ("int64", "float64", "bool")
_WILD = re.compile(r"[*?[]")


class CurveReader:
    """Reads the curves of a run, and collects what goes into the page.

    Args:
        run: The run.
        starts: Which starts count.
        points: How many buckets a curve may have; see `bucket`.
        blobs: Receives the encoded arrays; an entry of a curve names them by their place there.
    """

    def __init__(self, run: Run, starts: Starts, points: int, blobs: list[str]) -> None:
        self._run = run
        self._starts = starts
        self._points = points
        self._blobs = blobs
        self._clocks: dict[bytes, int] = {}
        self._main: tuple[_Array, _Array] | None = None  # times and steps of the busiest metric

    def metrics(self, names: Sequence[str], rows: int) -> Iterator[dict[str, Any]]:
        """Read metrics.

        Args:
            names: Their names, as recorded.
            rows: About how many lines there are.

        Yields:
            An entry per curve, in the order of the names: ``name``, ``blob`` and ``clock`` (places
            of its arrays), ``level``, ``single``, ``values`` (how many), ``marks`` (NaN and
            infinite values as ``[step, kind]``) and ``bad`` (how many of these).
        """
        chunk = max(1, _MOST_CELLS // max(1, rows))
        for begin in range(0, len(names), chunk):
            part = names[begin : begin + chunk]
            columns = self._run.arrow(
                "metrics", names=[_WILD.sub(r"[\g<0>]", name) for name in part], starts=self._starts
            )
            for name in part:
                yield from self._metric(columns, name)
                yield from self._summaries(columns, name)

    def system(self) -> Iterator[dict[str, Any]]:
        """Read the figures of the machine, by the steps at which the metrics were then."""
        if "system" not in self._run.streams:
            return
        columns = self._run.arrow("system", starts=self._starts)
        for name in self._run.names("system"):
            for entry in self._timed(columns, name):
                yield entry | {"kind": "system"}

    def _metric(self, columns: Columns, name: str) -> Iterator[dict[str, Any]]:
        if columns.kinds.get(column_of(name)) not in _NUMBERS:
            return
        metric = columns.metric(name)
        if not len(metric):
            return
        times = metric.time.view("i8")
        if self._main is None or len(times) > len(self._main[0]):
            self._main = times, metric.steps
        epochs = _epochs(columns, column_of(name))
        yield self._entry(name, metric.steps, metric.values.astype("f8"), times, epochs)

    def _summaries(self, columns: Columns, name: str) -> Iterator[dict[str, Any]]:
        """The values of whole epochs: each stands where its epoch had ended."""
        if column_of(name) in columns.kinds and "epoch" in columns.kinds:
            for entry in self._timed(columns, name, of_epochs=True):
                yield entry | {"name": f"{name} (epoch)", "kind": "epoch"}

    def _timed(
        self, columns: Columns, name: str, *, of_epochs: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Values without a step of their own."""
        import numpy as np

        batches = columns.batches()
        kind, values, valid = columns.array(column_of(name), batches)
        if kind not in _NUMBERS:
            return
        chosen = np.ones(len(values), "?") if valid is None else valid
        times = columns.array("timestamp", batches)[1]
        epochs = None
        if of_epochs:
            _, epochs, has_epoch = columns.array("epoch", batches)
            has_step = columns.array("step", batches)[2]
            chosen = chosen & (False if has_step is None else ~has_step)
            chosen = chosen & (True if has_epoch is None else has_epoch)
            epochs = epochs[chosen]
        if chosen.any():
            times, values = times[chosen], values[chosen].astype("f8")
            yield self._entry(name, self._steps_at(times), values, times, epochs)

    def _steps_at(self, times: _Array) -> _Array:
        """Return the last step before each time; without metrics, milliseconds since the first."""
        import numpy as np

        if self._main is None:
            return (times - times.min()) // 1000
        known, steps = self._main
        order = np.argsort(known, kind="stable")
        places = np.searchsorted(known[order], times, side="right") - 1
        return steps[order[np.maximum(places, 0)]]

    def _entry(
        self, name: str, steps: _Array, values: _Array, times: _Array, epochs: _Array | None
    ) -> dict[str, Any]:
        import numpy as np

        finite = np.isfinite(values)
        bad = np.flatnonzero(~finite)
        marks = sorted(
            [int(steps[at]), _kind(float(values[at]))] for at in bad[:_MOST_MARKS].tolist()
        )
        kept = [steps, values, times, *([] if epochs is None else [epochs])]
        if len(bad):
            kept = [one[finite] for one in kept]
        if (np.diff(kept[0]) < 0).any():
            # By step, and of one step in the order of time.
            order = np.lexsort((kept[2], kept[0]))
            kept = [one[order] for one in kept]
        steps, values, times, *rest = kept
        found = bucket(steps, values, self._points)
        self._blobs.append(encode(_arrays(found, steps, values)))
        return {
            "name": name,
            "blob": len(self._blobs) - 1,
            "clock": self._clock(found, steps, times, *rest),
            "level": found.level,
            "single": found.is_single,
            "values": len(values),
            "marks": marks,
            "bad": len(bad),
            "last": float(values[-1]) if len(values) else None,
        }

    def _clock(
        self, found: Buckets, steps: _Array, times: _Array, epochs: _Array | None = None
    ) -> int:
        """Return the place of the arrays that tell the time of a curve."""
        import numpy as np

        ends = found.last_at[-1:] if not found.is_single else found.last_at[:0]
        places = np.concatenate([found.first_at, ends])
        arrays = [steps[places], np.round(times[places] / 1000)]
        arrays += [] if epochs is None else [epochs[places].astype("f8")]
        key = sha256(b"".join(one.tobytes() for one in arrays)).digest()
        if key not in self._clocks:
            self._blobs.append(encode(arrays))
            self._clocks[key] = len(self._blobs) - 1
        return self._clocks[key]


def fitting(names: Iterable[str], patterns: Iterable[str] | None) -> list[str]:
    """Return the names that are, or fit, one of the patterns (``val_*``); without patterns all."""
    if patterns is None:
        return list(names)
    wanted = list(patterns)
    return [name for name in names if any(name == p or fnmatchcase(name, p) for p in wanted)]


def _arrays(found: Buckets, steps: _Array, values: _Array) -> list[_Array]:
    """Return what a page draws: steps and values, or those of four places and count and mean."""
    first = found.first_at
    if found.is_single:
        return [steps[first], values[first]]
    ends = [
        one
        for at in (found.last_at, found.low_at, found.high_at)
        for one in (steps[at] - steps[first], values[at])
    ]
    return [steps[first], values[first], *ends, found.count, found.mean.astype("f4")]


def _epochs(columns: Columns, column: str) -> _Array | None:
    """Return the epoch of each value with a step; None where one has none."""
    if columns.kinds.get("epoch") not in ("int64", "float64"):
        return None
    batches = columns.batches()
    present: Any = True
    for name in ("step", column):
        _, _, valid = columns.array(name, batches)
        present = present if valid is None else valid & present
    _, epochs, known = columns.array("epoch", batches)
    if known is not None and not known[present].all():
        return None
    found: _Array = epochs[present] if present is not True else epochs
    return found


def _kind(value: float) -> str:
    return "NaN" if value != value else "inf" if value > 0 else "-inf"
