"""Few points of many: by bucket of steps the first, last, smallest and largest value, and the mean.

A curve drawn from these has every spike that one of all values has, as M4 shows
(https://www.vldb.org/pvldb/vol7/p797-jugel.pdf); buckets have 2^k steps each, as those of
`Run.curve`, but they also keep the mean, for smooth lines, and where their values are from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    _Array = np.ndarray[Any, Any]

__all__ = ["Buckets", "bucket"]


@dataclass(frozen=True)
class Buckets:
    """Values in buckets of ``1 << level`` steps each, by step; arrays have one element for each.

    Attributes:
        level: At 0, a bucket is a step.
        first_at: Where in the values of `bucket` each bucket's first one is; the others likewise.
        last_at: Its last.
        low_at: Its smallest, the first of several.
        high_at: Its largest, the first of several.
        count: How many values it has.
        mean: Their mean.
    """

    level: int
    first_at: _Array
    last_at: _Array
    low_at: _Array
    high_at: _Array
    count: _Array
    mean: _Array

    def __len__(self) -> int:
        return len(self.count)

    @property
    def is_single(self) -> bool:
        """Whether no bucket has more than one value."""
        return bool((self.count == 1).all())


def bucket(steps: _Array, values: _Array, most: int) -> Buckets:
    """Divide values into at most so many buckets.

    Args:
        steps: Their steps (int64), ascending.
        values: As many finite ones (float64).
        most: How many buckets there may be, at least 2. There are up to four times as many where
            each then has a single value, which takes a quarter of the space.
    """
    import numpy as np

    places = np.flatnonzero(np.diff(steps, prepend=steps[:1] - 1))
    level, index = 0, steps
    if len(places) > (4 * most if len(places) == len(steps) else most):
        level, found = 1, steps[places] >> 1
        while (count := 1 + np.count_nonzero(np.diff(found))) > most:
            level, found = level + 1, found >> 1
            if count > 4 * most:  # what is equal stays equal
                found = found[np.flatnonzero(np.diff(found, prepend=found[:1] - 1))]
        index = steps >> level
        places = np.flatnonzero(np.diff(index, prepend=index[:1] - 1))
    counts = np.diff(places, append=len(steps))
    if not len(places):
        return Buckets(0, places, places, places, places, counts, np.empty(0))
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.add.reduceat(values, places) / counts
    if not np.isfinite(mean).all():  # a sum of large numbers
        mean = np.add.reduceat(values / np.repeat(counts, counts), places)
    lows, highs = np.minimum.reduceat(values, places), np.maximum.reduceat(values, places)
    return Buckets(
        level,
        places,
        places + counts - 1,
        _first_of(values, lows, places, counts),
        _first_of(values, highs, places, counts),
        counts,
        np.clip(mean, lows, highs),  # rounding may leave the range
    )


def _first_of(values: _Array, wanted: _Array, places: _Array, counts: _Array) -> _Array:
    """Return where each bucket first has the value that is wanted of it."""
    import numpy as np

    hits = np.flatnonzero(values == np.repeat(wanted, counts))
    found: _Array = hits[np.searchsorted(hits, places)]
    return found
