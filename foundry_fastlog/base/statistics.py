"""Statistics over a list of numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

__all__ = ["describe", "mean_of", "total_of"]


def mean_of(numbers: Sequence[float]) -> float:
    """Return the mean of one or more finite numbers, without intermediate overflow."""
    try:
        mean = math.fsum(numbers) / len(numbers)
    except OverflowError:
        mean = float(sum(map(Fraction, numbers)) / len(numbers))
    # Rounding may move it outside the range of its numbers, where no mean can be.
    return float(min(max(numbers), max(min(numbers), mean)))


def total_of(numbers: Sequence[float]) -> float:
    """Return the sum of finite numbers, exactly rounded; infinite if no float is large enough."""
    try:
        return math.fsum(numbers)
    except OverflowError:  # perhaps only on the way
        exact = sum(map(Fraction, numbers))
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def describe(numbers: Sequence[float]) -> dict[str, Any]:
    """Compute statistics of finite numbers, without intermediate overflow.

    ``mean`` and ``total`` are exactly rounded; ``std`` is the corrected two-pass algorithm of Chan,
    Golub and LeVeque (The American Statistician 37, 1983), summed exactly.

    Args:
        numbers: Any number of them.

    Returns:
        ``count``, ``mean``, ``std`` (of a sample: n - 1; 0.0 for a single number), ``min``, ``max``
        and ``total``. Without any numbers, all but ``count`` are None. ``std`` and ``total`` are
        infinite if no float is large enough.
    """
    count = len(numbers)
    if not count:
        return {"count": 0, **dict.fromkeys(("mean", "std", "min", "max", "total"))}
    low, high, mean = min(numbers), max(numbers), mean_of(numbers)
    # In units of half the largest distance from the mean: no square overflows or underflows.
    scale = max(high / 2 - mean / 2, mean / 2 - low / 2)
    std = 0.0
    if count > 1 and scale > 0:
        distances = [(number / 2 - mean / 2) / scale for number in numbers]
        squares = math.fsum(map(operator.mul, distances, distances))
        squares -= math.fsum(distances) ** 2 / count  # the mean is rounded
        std = 2 * (scale * math.sqrt(max(0.0, squares) / (count - 1)))
    total = total_of(numbers)
    return {"count": count, "mean": mean, "std": std, "min": low, "max": high, "total": total}
