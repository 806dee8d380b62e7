"""Compare values of a metric in two runs bit for bit, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.reading.columns import column_of

if TYPE_CHECKING:
    from foundry_fastlog.reading.columns import Columns

__all__ = ["Difference", "Exact", "find_difference"]

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """How the values of a metric of one rank differ in two runs.

    Attributes:
        metric: The metric.
        rank: The rank.
        run: The name of the run that is compared with the first.
        unit: What steps are: ``step``, or ``epoch`` where the metric has epoch summaries alone.
        common: How many steps both have.
        differing: At how many of these the values differ.
        first_step: The lowest of them; None where they are the same.
        values: What the first and the other run have there.
        only_first: How many steps the first run alone has.
        only_first_step: The lowest of them, or None.
        only_other: How many steps the other run alone has.
        only_other_step: The lowest of them, or None.
    """

    metric: str
    rank: int
    run: str
    unit: str
    common: int
    differing: int = 0
    first_step: float | None = None
    values: tuple[Any, Any] | None = None
    only_first: int = 0
    only_first_step: float | None = None
    only_other: int = 0
    only_other_step: float | None = None

    @property
    def same(self) -> bool:
        """Whether both have the same values at the same steps."""
        return not (self.differing or self.only_first or self.only_other)


class Exact:
    """The values of metrics of a run as they were recorded, of all ranks.

    Args:
        columns: What was read of it.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._batches = columns.batches()
        self._rank = columns.array("rank", self._batches)[1]

    def __call__(self, name: str) -> dict[int, tuple[str, _Array, _Array]]:
        """Return by rank what its steps are, the steps, ascending, and the values."""
        column = column_of(name)
        if self._columns.kinds.get(column, "null") == "null":
            return {}
        _, values, there = self._columns.array(column, self._batches)
        found = {}
        for unit in ("step", "epoch"):
            _, places, known = self._columns.array(unit, self._batches)
            chosen = np.ones(len(values), bool)
            for valid in (there, known):
                chosen = chosen if valid is None else chosen & valid
            for rank in np.unique(self._rank[chosen]).tolist():
                mine = np.flatnonzero(chosen & (self._rank == rank))
                if rank not in found:
                    mine = mine[np.argsort(places[mine], kind="stable")]
                    found[rank] = unit, places[mine], values[mine]
        return found


def find_difference(
    metric: str,
    rank: int,
    run: str,
    first: tuple[str, _Array, _Array] | None,
    other: tuple[str, _Array, _Array] | None,
) -> Difference:
    """Compare the values of a metric of one rank in two runs.

    Floats are the same if their bits are: 0.0 and -0.0 differ, NaN is NaN. An integer and a float
    are the same if they are the same number. Of values that were recorded several times at a step,
    the first is compared with the first, and so on.
    """
    unit = (first or other or ("step",))[0]
    nothing = unit, np.empty(0, np.int64), np.empty(0)
    _, places_a, values_a = first or nothing
    _, places_b, values_b = other or nothing
    if first and other and first[0] != other[0]:  # one in steps, the other in epochs
        places_b, values_b = nothing[1:]
    if np.array_equal(places_a, places_b):
        at_a = at_b = np.arange(len(places_a))
    else:
        keys_a, keys_b = _keys(places_a, places_b)
        _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
        at_a, at_b = np.sort(at_a), np.sort(at_b)
    differ = np.flatnonzero(~_are_same(values_a[at_a], values_b[at_b]))
    only_a = np.delete(places_a, at_a)
    only_b = np.delete(places_b, at_b)
    place, values = None, None
    if len(differ):
        place = places_a[at_a[differ[0]]].item()
        values = values_a[at_a[differ[0]]], values_b[at_b[differ[0]]]
        values = tuple(one.item() if isinstance(one, np.generic) else one for one in values)
    return Difference(
        metric,
        rank,
        run,
        unit,
        len(at_a),
        len(differ),
        place,
        values,
        len(only_a),
        only_a[0].item() if len(only_a) else None,
        len(only_b),
        only_b[0].item() if len(only_b) else None,
    )


def _keys(a: _Array, b: _Array) -> tuple[_Array, _Array]:
    """Give each of two sorted lists of steps keys of their own: a step, and its how-manieth."""
    steps = np.unique(np.concatenate([a, b]))
    places = [np.searchsorted(steps, one) for one in (a, b)]
    counts = []
    for place in places:
        begins = np.flatnonzero(np.append(True, place[1:] != place[:-1])[: len(place)])
        lengths = np.diff(np.append(begins, len(place)))
        counts.append(np.arange(len(place)) - np.repeat(begins, lengths))
    most = max((int(count.max()) for count in counts if len(count)), default=0) + 1
    return places[0] * most + counts[0], places[1] * most + counts[1]


def _are_same(a: _Array, b: _Array) -> _Array:
    """Say which values are the same."""
    kinds = {a.dtype.kind, b.dtype.kind}
    same: _Array
    if kinds == {"f"}:
        same = (a.view(np.int64) == b.view(np.int64)) | (np.isnan(a) & np.isnan(b))
    elif "O" in kinds:  # texts; of a metric that has others, too, these as they stand in JSON
        pairs = zip(a.tolist(), b.tolist(), strict=True)
        same = np.array([str(x) == str(y) for x, y in pairs], bool)
    elif "f" in kinds:
        whole, real = (b, a) if a.dtype.kind == "f" else (a, b)
        fits = np.abs(real) < 2.0**63
        number = np.where(fits, real, 0).astype(np.int64)
        minus_zero = np.signbit(real) & (real == 0)
        same = fits & (number == real) & (number == whole.astype(np.int64)) & ~minus_zero
    else:
        same = a.astype(np.int64) == b.astype(np.int64)
    return same
