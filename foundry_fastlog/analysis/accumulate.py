"""Statistics over numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:  # of the extension
    from foundry_fastlog.reading.scan import MetricSum

__all__ = ["MetricStats", "percentile", "seconds_between", "stats_of"]


@dataclass(frozen=True)
class MetricStats:
    """One metric over a run.

    Attributes:
        name: The metric's key.
        count: Values recorded, of any type, including null.
        numbers: How many of them were finite numbers; ``True`` is 1, ``False`` 0.
        nonfinite: How many were NaN or infinite.
        first: First value recorded; any JSON type, or NaN.
        last: Last value recorded.
        min: Smallest finite number, None if there is none.
        min_step: Step of the first line with that number.
        max: Largest finite number.
        max_step: Step of the first line with that number.
        mean: Mean of the finite numbers.
    """

    name: str
    count: int
    numbers: int
    nonfinite: int
    first: Any
    last: Any
    min: float | None
    min_step: int | None
    max: float | None
    max_step: int | None
    mean: float | None


def stats_of(sums: MetricSum, name: str) -> MetricStats:
    """Return what the native reader found of a metric, under a name."""
    some = sums["numbers"] > 0
    low, high = sums["min"][0], sums["max"][0]
    return MetricStats(
        name=name,
        count=sums["count"],
        numbers=sums["numbers"],
        nonfinite=sums["nonfinite"],
        first=_value_of(sums["first"]),
        last=_value_of(sums["last"]),
        min=low if some else None,
        min_step=sums["min_step"],
        max=high if some else None,
        max_step=sums["max_step"],
        mean=float(min(high, max(low, sums["mean"]))) if some else None,
    )


def _value_of(value: tuple[Any, bool]) -> Any:  # noqa: ANN401  # any JSON
    return orjson.loads(value[0]) if value[1] else value[0]


def seconds_between(first: str, last: str) -> float | None:
    """Return the seconds from one timestamp to another; None where one cannot be parsed."""
    try:
        begin, end = (datetime.fromisoformat(t.replace("Z", "+00:00")) for t in (first, last))
        return (end - begin).total_seconds()
    except (ValueError, TypeError):  # not a time, or one without and one with a time zone
        return None


def percentile(ascending: list[float], fraction: float) -> float:
    """Return a percentile, interpolated linearly between neighbours (numpy's default).

    Args:
        ascending: Sorted values, at least one.
        fraction: 0.5 for the median.
    """
    place = (len(ascending) - 1) * fraction
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    low, high = ascending[below], ascending[above]
    half_step = (high / 2 - low / 2) * (place - below)  # halved: finite for any two finite floats
    return low + half_step + half_step
