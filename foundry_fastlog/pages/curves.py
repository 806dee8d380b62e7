"""The curves of a run as a page holds them: buckets of values, and a clock that tells the time.

A clock has the times, and the epochs, of the first value of each bucket; curves whose values were
recorded together share one. Between its entries the page interpolates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.pages.buckets import Buckets, bucket
from foundry_fastlog.pages.encoding import encode
from foundry_fastlog.reading.columns import column_of
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.cursor import process_name
from foundry_fastlog.reading.run import Run

if TYPE_CHECKING:
    import numpy as np

    from foundry_fastlog.reading.columns import Columns

    _Array = np.ndarray[Any, Any]

__all__ = [
    "MOST_MARKS",
    "CurveReader",
    "Points",
    "Rows",
    "clock_of",
    "drawn",
    "epoch_name",
    "fitting",
    "spread",
    "steps_at",
    "system_names",
]

#: Values of a stream that are in memory at a time.
_MOST_CELLS = 32 << 20
_MOST_PATTERNS = 200
#: NaN and infinite values whose steps a curve keeps, from the first to the last; all are counted.
MOST_MARKS = 500
_NUMBERS = ("int64", "float64", "bool")


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
            # Each line is held against each pattern, so all are better not asked for by name.
            patterns = exactly(part) if len(part) < _MOST_PATTERNS else None
            columns = self._run.arrow("metrics", names=patterns, starts=self._starts)
            of_part = Rows(columns)
            for name in part:
                if (found := of_part.of(name)) is not None:
                    yield from self._metric(name, found)

    def system(self) -> Iterator[dict[str, Any]]:
        """Read the figures of the machine, by the steps at which the metrics were then."""
        if "system" not in self._run.streams:
            return
        figures = Rows(self._run.arrow("system", starts=self._starts))
        for shown, name in system_names(self._run).items():
            if (found := figures.of(name)) is not None:
                entry = self._entry(shown, found._replace(steps=steps_at(found.times, self._main)))
                yield entry | {"kind": "system"}

    def _metric(self, name: str, found: Points) -> Iterator[dict[str, Any]]:
        """The values of a metric by step, and those of whole epochs where these had ended."""
        stepped = found.take(found.has_step)
        if len(stepped.values):
            if self._main is None or len(stepped.times) > len(self._main[0]):
                self._main = stepped.times, stepped.steps
            yield self._entry(name, stepped)
        epochs = found.take(~found.has_step)
        if len(epochs.values):
            steps = steps_at(epochs.times, self._main)
            entry = self._entry(epoch_name(name), epochs._replace(steps=steps))
            yield entry | {"kind": "epoch"}

    def _entry(self, name: str, points: Points) -> dict[str, Any]:
        entry, arrays, found, finite = drawn(name, points, self._points)
        self._blobs.append(encode(arrays))
        place = {"blob": len(self._blobs) - 1, "clock": self._clock(found, finite)}
        return {**entry, **place, "values": len(finite.values)}

    def _clock(self, found: Buckets, points: Points) -> int:
        """Return the place of the arrays that tell the time."""
        arrays = clock_of(found, points)
        key = sha256(b"".join(one.tobytes() for one in arrays)).digest()
        if key not in self._clocks:
            self._blobs.append(encode(arrays))
            self._clocks[key] = len(self._blobs) - 1
        return self._clocks[key]


def clock_of(found: Buckets, points: Points) -> list[_Array]:
    """Return steps, milliseconds, and epochs where any value has one: of each bucket's first.

    Args:
        found: The buckets.
        points: The values that are in them.
    """
    import numpy as np

    ends = found.last_at[-1:] if not found.is_single else found.last_at[:0]
    return points.at(np.concatenate([found.first_at, ends])).clock()


def epoch_name(name: str) -> str:
    """Return what a page calls the values of a metric that were recorded of whole epochs."""
    return f"{name} (epoch)"


def system_names(run: Run) -> dict[str, str]:
    """Return the names of the machine's figures, by what a page calls them beside the metrics."""
    if "system" not in run.streams:
        return {}
    metrics = set(run.names())
    return {f"{name} (system)" if name in metrics else name: name for name in run.names("system")}


def steps_at(times: _Array, known: tuple[_Array, _Array] | None) -> _Array:
    """Say at which step a run was.

    Args:
        times: When, in microseconds.
        known: Times and steps of values; None without metrics.

    Returns:
        For each time the last step before it; without metrics the milliseconds since the first.
    """
    import numpy as np

    if known is None or not len(known[0]):
        return np.asarray((times - times.min()) // 1000)
    moments, steps = known
    order = np.argsort(moments, kind="stable")
    places = np.searchsorted(moments[order], times, side="right") - 1
    found: _Array = steps[order[np.maximum(places, 0)]]
    return found


def spread(count: int, most: int) -> _Array:
    """Return the places of at most so many of `count` things, evenly, both ends among them."""
    import numpy as np

    return np.unique(np.linspace(0, max(0, count - 1), min(count, most)).astype("i8"))


def fitting(names: Iterable[str], patterns: Iterable[str] | None) -> list[str]:
    """Return the names that are, or fit, one of the patterns (``val_*``); without patterns all."""
    if patterns is None:
        return list(names)
    wanted = list(patterns)
    return [name for name in names if any(name == p or fnmatchcase(name, p) for p in wanted)]


def drawn(
    name: str, points: Points, most: int
) -> tuple[dict[str, Any], list[_Array], Buckets, Points]:
    """Divide the values of a metric into buckets.

    Args:
        name: What the page calls it.
        points: The values, each with a step.
        most: How many buckets there may be; see `bucket`.

    Returns:
        What the page says of the curve, the arrays that it draws, the buckets, and the finite
        values by step.
    """
    import numpy as np

    from foundry_fastlog.analysis.shaping import usual_distance

    finite = np.isfinite(points.values)
    bad = np.flatnonzero(~finite)
    bad = bad[np.argsort(points.steps[bad], kind="stable")]
    marks = [
        [int(points.steps[at]), _kind(float(points.values[at]))]
        for at in bad[spread(len(bad), MOST_MARKS)].tolist()
    ]
    distance = usual_distance(np.sort(points.steps))
    points = points.take(finite)
    if (np.diff(points.steps) < 0).any():
        # By step, and of one step in the order of time.
        points = points.at(np.lexsort((points.times, points.steps)))
    found = bucket(points.steps, points.values, most)
    entry = {
        "name": name,
        "level": found.level,
        "single": found.is_single,
        "marks": marks,
        "bad": len(bad),
        "distance": distance,
        "last": float(points.values[-1]) if len(points.values) else None,
    }
    return entry, _arrays(found, points.steps, points.values), found, points


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


class Points(NamedTuple):
    """Values of a metric; the arrays have one element for each.

    Attributes:
        values: As float64.
        times: Microseconds since 1970.
        steps: Where `has_step` is false anything may stand; the same goes for epochs.
        has_step: Which have one.
        epochs: The epochs.
        has_epoch: Which have one.
        rows: Which rows of the stream they are of.
    """

    values: _Array
    times: _Array
    steps: _Array
    has_step: _Array
    epochs: _Array
    has_epoch: _Array
    rows: _Array

    def take(self, chosen: _Array) -> Points:
        """Return those that are chosen."""
        return self if chosen.all() else Points(*(one[chosen] for one in self))

    def at(self, places: _Array) -> Points:
        """Return those at some places."""
        return Points(*(one[places] for one in self))

    def clock(self) -> list[_Array]:
        """Return steps, milliseconds since 1970, and epochs where any has one: NaN for others."""
        import numpy as np

        clock = [self.steps, self.times // 1000]
        return [*clock, np.where(self.has_epoch, self.epochs, np.nan)][: 2 + self.has_epoch.any()]


class Rows:
    """The rows of a stream, of which each metric takes its own."""

    def __init__(self, columns: Columns) -> None:
        import numpy as np

        self._columns = columns
        self._batches = columns.batches()  # once: there may be ten thousand columns
        self._times, _ = self._column("timestamp")
        self._places = *self._column("step"), *self._column("epoch")
        self._rows = np.arange(len(self._times))

    def of(self, name: str) -> Points | None:
        """Return the values of a metric; None if they are no numbers, or there are none."""
        column = column_of(name)
        if self._columns.kinds.get(column) not in _NUMBERS:
            return None
        values, present = self._column(column)
        found = Points(values.astype("f8"), self._times, *self._places, self._rows).take(present)
        return found if len(found.values) else None

    def kinds(self) -> set[tuple[str, bool]]:
        """Return the columns that have numbers, with whether there are rows that have a step."""
        import numpy as np

        _, has_step, *_ = self._places
        somewhere = set(np.unique(has_step).tolist())
        kinds = self._columns.kinds.items()
        return {(name, one) for name, kind in kinds if kind in _NUMBERS for one in somewhere}

    def moments(self) -> tuple[_Array, _Array]:
        """Return times and steps of the rows that have a step."""
        steps, present, *_ = self._places
        return self._times[present], steps[present]

    def numbers(self, rows: _Array) -> tuple[list[int], list[tuple[str, int]]]:
        """Return the ``seq`` of each of some rows, and whose they are: [name, how many]s."""
        import numpy as np

        seqs = self._column("seq")[0][rows]
        starts, labels = self._column("start")[0][rows], self._column("label")[0][rows]
        others = (starts[1:] != starts[:-1]) | (labels[1:] != labels[:-1])
        begins = np.flatnonzero(np.append(np.ones(min(1, len(rows)), bool), others))
        counts = np.diff(begins, append=len(rows)).tolist()
        names = [process_name(int(starts[at]), labels[at]) for at in begins.tolist()]
        return seqs.tolist(), list(zip(names, counts, strict=True))

    def reached(self) -> dict[str, int]:
        """Return how far each process was read; see ``Cursor.reached``."""
        seqs, processes = self.numbers(self._rows)
        found: dict[str, int] = {}
        for name, count in processes:
            part, seqs = seqs[:count], seqs[count:]
            found[name] = max(found.get(name, 0), 1 + max(part))
        return found

    def _column(self, name: str) -> tuple[_Array, _Array]:
        """Return a column, and in which rows it has a value."""
        import numpy as np

        if name not in self._columns.kinds:  # the stream has no epochs
            absent = np.zeros(len(self._columns))
            return absent, absent.astype("?")
        _, values, present = self._columns.array(name, self._batches)
        return values, np.ones(len(values), "?") if present is None else present


def _kind(value: float) -> str:
    return "NaN" if value != value else "inf" if value > 0 else "-inf"
