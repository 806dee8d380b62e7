"""Statistics over a list of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["describe", "mean_of"]


def mean_of(numbers: Sequence[float]) -> float:
    """Return the mean of one or more finite numbers, without intermediate overflow."""
    try:
        mean = math.fsum(numbers) / len(numbers)
    except OverflowError:
        # Halved, so that rounding up cannot overflow.
        mean = 2 * math.fsum(number / 2 / len(numbers) for number in numbers)
    # Rounding may move it outside the range of its numbers, where no mean can be.
    return float(min(max(numbers), max(min(numbers), mean)))


def describe(numbers: Sequence[float]) -> dict[str, Any]:
    """Compute statistics of finite numbers, exactly rounded, without intermediate overflow.

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
    try:
        total = math.fsum(numbers)
    except OverflowError:
        total = math.copysign(math.inf, mean)
    # In units of half the largest distance from the mean: no square overflows or underflows.
    scale = max(high / 2 - mean / 2, mean / 2 - low / 2)
    std = 0.0
    if count > 1 and scale > 0:
        squares = math.fsum(((number / 2 - mean / 2) / scale) ** 2 for number in numbers)
        std = 2 * (scale * math.sqrt(squares / (count - 1)))
    return {"count": count, "mean": mean, "std": std, "min": low, "max": high, "total": total}
