"""Axes of charts: where values lie on them, and which values get labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timezone

from foundry_fastlog.base.formatting import format_number, format_seconds, printable

__all__ = ["Scale", "axis_words", "nice_ticks", "short_number"]

_SECONDS = (
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    10800,
    21600,
    43200,
    86400,
)
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Scale:
    """Maps values to whole cells, dots or pixels: ``low`` to 0, ``high`` to ``size - 1``.

    Args:
        low: The lowest value; with `log` above 0.
        high: The highest value, at least as high.
        size: How many places there are.
        log: Whether the axis is logarithmic.
    """

    def __init__(self, low: float, high: float, size: int, *, log: bool = False) -> None:
        self._log = log
        self.low, high = (math.log(low), math.log(high)) if log else (low, high)
        # Halved, because the span between two finite floats may be infinite.
        self.half_span = (high / 2 - self.low / 2) or 0.5
        self.size = size

    def share(self, value: float) -> float:
        """Return how far along the axis a value is: 0 at its beginning, 1 at its end."""
        at = math.log(value) if self._log else value
        return (at / 2 - self.low / 2) / self.half_span

    def __call__(self, value: float) -> int:
        """Return the place of a value; of one that is beyond an end, that end."""
        return min(self.size - 1, max(0, round(self.share(value) * (self.size - 1))))

    def middle(self) -> float:
        """Return the value in the middle of the axis."""
        middle = self.low + self.half_span
        return math.exp(middle) if self._log else middle


def nice_ticks(
    low: float, high: float, most: int, *, log: bool = False, seconds: bool = False
) -> list[float]:
    """Choose round values between two ends, so many at most.

    Args:
        low: The lower end; with `log` above 0.
        high: The higher end.
        most: How many there may be, 2 or more.
        log: Whether the axis is logarithmic: powers of ten, where two are between its ends.
        seconds: Whether they are durations, which are divided by 60 and 24.
    """
    if log:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        if len(powers) > 1:
            return [10.0**power for power in powers[:: -(-len(powers) // most)]]
    span = high - low
    if not 0 < span / most < math.inf:  # none, or beyond the smallest or largest numbers
        return [low] if span == 0 else [low, high]
    unit = 86400.0 if seconds and span / most > _SECONDS[-1] else 1.0
    if seconds and unit == 1 and span / most > 0.5:
        step = next(float(one) for one in _SECONDS if span / one <= most)
    else:
        size = 10.0 ** math.floor(math.log10(span / most / unit)) * unit
        step = next((n * size for n in (1, 2, 5) if span / (n * size) <= most), 10 * size)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, min(last, first + most) + 1)]


def short_number(value: float) -> str:
    """Format a number for an axis: ``13.8k``, ``1.2M``, ``0.25``, ``1e-05``."""
    size = abs(value)
    for unit, letter in _UNITS:
        if unit <= size < 1e15:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def axis_words(x: str) -> tuple[str, Callable[[float], str]]:
    """Return what an x axis is called, and how its values are written.

    Args:
        x: What it shows; see ``points.Asked``.
    """
    if x == "time":
        return "time (UTC)", _moment
    if x == "relative":
        return "since the first record", lambda value: format_seconds(value) if value else "0"
    return printable(x, 40), format_number


def _moment(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):  # of a clock that was wrong
        return format_number(seconds)
