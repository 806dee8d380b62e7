"""What is done to the points of a curve before it is drawn: smoothed, averaged over runs, thinned.

All functions take and give numpy arrays of float64, and never change those they are given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Mean", "mean_of_runs", "smooth", "thin", "usual_distance"]

_Array = np.ndarray[Any, Any]


def smooth(places: _Array, values: _Array, weight: float, unit: float | None = None) -> _Array:
    """Smooth values by an exponential moving average without the bias of its beginning.

    The average at a value is ``sum(w_i v_i) / sum(w_i)`` over the values up to it, with
    ``w_i = weight ** (d_i / unit)``, where `d_i` is how far back a value is. Evenly spaced values
    give Adam's bias-corrected average (Kingma and Ba 2015, section 3), which is also TensorBoard's;
    of others, those that are further away count less.

    Args:
        places: Where the values are, such as their steps; ascending.
        values: The values, finite.
        weight: 0 leaves them as they are; 1 gives the mean of all values so far.
        unit: The distance over which a value loses the factor `weight`. Default: the median
            distance of neighbours.

    Raises:
        ValueError: The weight is not between 0 and 1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"smoothing must be between 0 and 1, got {weight}")
    if weight == 0 or len(values) < 2:
        return values.astype(float)
    unit = unit or usual_distance(places) or 1.0
    decays = np.power(weight, np.diff(places.astype(float)) / unit).tolist()
    found = np.empty(len(values))
    scale = float(np.abs(values).max()) or 1.0  # so that no sum of large values overflows
    above, below = float(values[0]) / scale, 1.0
    found[0] = above
    rest = (values[1:] / scale).tolist()
    for number, (decay, value) in enumerate(zip(decays, rest, strict=True), 1):
        above = above * decay + value
        below = below * decay + 1.0
        found[number] = above / below
    return np.clip(found, -1.0, 1.0) * scale


def usual_distance(places: _Array) -> float:
    """Return the median distance of neighbours that are apart; 0 where none are."""
    distances = np.diff(places.astype(float))
    return float(np.median(distances[distances > 0])) if (distances > 0).any() else 0.0


@dataclass(frozen=True)
class Mean:
    """The mean of several curves.

    Attributes:
        x: Where it is.
        mean: The mean of those that have a value there.
        error: Its standard error: the standard deviation (n - 1) by the root of n; 0 for n = 1.
        count: How many, n.
    """

    x: _Array
    mean: _Array
    error: _Array
    count: _Array


def mean_of_runs(curves: Iterable[tuple[_Array, _Array]]) -> Mean:
    """Average curves over all places at which one of them has a value.

    Between two of its values a curve is interpolated linearly; before the first and after the last
    it does not count. Of several values at a place the last counts.

    Args:
        curves: Places, ascending, and values of each.
    """
    single = [(x[last], y[last]) for x, y in curves for last in [_lasts(x)]]
    grid = np.unique(np.concatenate([np.empty(0), *(x for x, _ in single)]))
    count = np.zeros(len(grid), np.int64)
    mean, squares = np.zeros(len(grid)), np.zeros(len(grid))
    for x, y in single:  # Welford 1962: one pass, in the memory of one curve
        if not len(x):
            continue
        inside = slice(*np.searchsorted(grid, [x[0], np.nextafter(x[-1], np.inf)]))
        value = np.interp(grid[inside], x, y)
        count[inside] += 1
        delta = value - mean[inside]
        mean[inside] += delta / count[inside]
        squares[inside] += delta * (value - mean[inside])
    deviation = np.sqrt(squares / np.maximum(count - 1, 1))
    return Mean(grid, mean, deviation / np.sqrt(np.maximum(count, 1)), count)


def _lasts(x: _Array) -> _Array:
    """Say which of sorted places are the last of their kind."""
    return np.append(x[1:] != x[:-1], np.ones(min(1, len(x)), bool))


def thin(x: _Array, y: _Array, columns: int, *, log: bool = False) -> _Array:
    """Choose the points that a line of so many columns needs: no spike is lost.

    Of each column the first, last, smallest and largest are kept, so that the line covers the
    same dots as one through all points (M4, Jugel et al. 2014).

    Args:
        x: Places, ascending; with `log` above 0.
        y: Values, finite.
        columns: Columns of dots.
        log: Whether the axis is logarithmic.

    Returns:
        Their numbers, ascending.
    """
    if len(x) <= 4 * columns:
        return np.arange(len(x))
    at = np.log(x) if log else x / 2
    span = float(at[-1] - at[0]) or 1.0
    column = np.minimum(((at - at[0]) / span * columns).astype(np.int64), columns - 1)
    begins = np.flatnonzero(np.append([True], column[1:] != column[:-1]))
    ends = np.append(begins[1:], len(x))
    kept = [begins, ends - 1]
    for extreme in (np.minimum, np.maximum):
        is_it = y == np.repeat(extreme.reduceat(y, begins), ends - begins)
        where = np.flatnonzero(is_it)
        kept.append(where[np.unique(np.searchsorted(begins, where, "right"), return_index=True)[1]])
    return np.unique(np.concatenate(kept))
