"""Statistics over streams of numbers, in bounded memory.

Values are buffered in lists and added in batches, because a batch costs a few C calls where single
values would cost a few Python statements each.
"""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import dataclass
from typing import Any

from foundry_fastlog.base.statistics import mean_of

__all__ = ["BATCH", "Curve", "Durations", "MetricStats", "Values", "percentile", "total"]

#: Number of buffered values at which an accumulator adds them.
BATCH = 8192

#: Durations per name that are kept for percentiles; beyond this, a random sample.
MAX_SAMPLES = 1 << 20

_NUMBERS = {int, float}


@dataclass(frozen=True)
class MetricStats:
    """One metric over a run.

    Attributes:
        name: The metric's key.
        count: Values recorded, of any type, including null.
        numbers: How many of them were finite numbers.
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


class Curve:
    """A series of (step, value) points whose resolution is halved when it grows long.

    Args:
        limit: Maximum number of points; each is the mean of equally many values.
    """

    def __init__(self, limit: int = 2048) -> None:
        self._limit = limit
        self._width = 1
        self._steps: list[float] = []
        self._values: list[float] = []
        self._open_steps: list[float] = []
        self._open_values: list[float] = []

    def extend(self, steps: list[Any], values: list[Any]) -> None:
        """Append points in order. All values must be finite."""
        self._open_steps += steps
        self._open_values += values
        while len(self._steps) + len(self._open_steps) // self._width > self._limit:
            self._halve()
        width = self._width
        whole = len(self._open_steps) // width * width
        for start in range(0, whole, width):
            self._steps.append(mean_of(self._open_steps[start : start + width]))
            self._values.append(mean_of(self._open_values[start : start + width]))
        del self._open_steps[:whole], self._open_values[:whole]

    def _halve(self) -> None:
        # An odd last point is moved back to the open ones, spread over its width.
        if len(self._steps) % 2:
            self._open_steps[:0] = [self._steps.pop()] * self._width
            self._open_values[:0] = [self._values.pop()] * self._width
        self._steps = [mean_of(self._steps[i : i + 2]) for i in range(0, len(self._steps), 2)]
        self._values = [mean_of(self._values[i : i + 2]) for i in range(0, len(self._values), 2)]
        self._width *= 2

    def points(self) -> list[tuple[float, float]]:
        """Return the points by step, including the unfinished last one."""
        points = list(zip(self._steps, self._values, strict=True))
        if self._open_steps:
            points.append((mean_of(self._open_steps), mean_of(self._open_values)))
        return sorted(points)


class Values:
    """Accumulates the values of one metric.

    Args:
        name: The metric's key.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: list[Any] = []  # the buffer; append to both, then call fold()
        self.steps: list[int | None] = []
        self.curve = Curve()
        self._means: list[tuple[int, float]] = []
        self._count = 0
        self._numbers = 0
        self._nonfinite = 0
        self._first: Any = None
        self._last: Any = None
        self._min: float = math.inf
        self._max: float = -math.inf
        self._min_step: int | None = None
        self._max_step: int | None = None

    def fold(self) -> None:
        """Add the buffered values and empty the buffer."""
        values, steps = self.values, self.steps
        if not values:
            return
        if not self._count:
            self._first = values[0]
        self._last = values[-1]
        self._count += len(values)
        if not (set(map(type, values)) <= _NUMBERS and all(map(math.isfinite, values))):
            kept = []
            for value, step in zip(values, steps, strict=True):
                if type(value) in _NUMBERS:
                    if math.isfinite(value):
                        kept.append((value, step))
                    else:
                        self._nonfinite += 1
            values = [value for value, _ in kept]
            steps = [step for _, step in kept]
        if values:
            self._fold_numbers(values, steps)
        self.values, self.steps = [], []

    def _fold_numbers(self, values: list[Any], steps: list[int | None]) -> None:
        self._numbers += len(values)
        self._means.append((len(values), mean_of(values)))
        if len(self._means) >= BATCH:
            self._means = [(self._numbers, self._mean())]
        low, high = min(values), max(values)
        if low < self._min:
            self._min, self._min_step = low, steps[values.index(low)]
        if high > self._max:
            self._max, self._max_step = high, steps[values.index(high)]
        if None in steps:  # epoch summaries have no step, so no place on a curve
            pairs = [(s, v) for s, v in zip(steps, values, strict=True) if s is not None]
            self.curve.extend([s for s, _ in pairs], [v for _, v in pairs])
        else:
            self.curve.extend(steps, values)

    def _mean(self) -> float:
        mean = 2 * math.fsum(count / self._numbers * (mean / 2) for count, mean in self._means)
        means = [mean for _, mean in self._means]
        return min(max(means), max(min(means), mean))

    def stats(self) -> MetricStats:
        """Add what is buffered and return the statistics."""
        self.fold()
        some = self._numbers > 0
        return MetricStats(
            name=self.name,
            count=self._count,
            numbers=self._numbers,
            nonfinite=self._nonfinite,
            first=self._first,
            last=self._last,
            min=self._min if some else None,
            min_step=self._min_step,
            max=self._max if some else None,
            max_step=self._max_step,
            mean=self._mean() if some else None,
        )


class Durations:
    """Accumulates the durations of one timer; percentiles from a sample if there are very many."""

    def __init__(self) -> None:
        self.values: list[float] = []  # the buffer; append, then call fold()
        self.count = 0
        self.total = 0.0
        self.max = 0.0
        self.errors = 0
        self._samples = array("d")
        self._random = random.Random(0)  # noqa: S311  # a sample, the same at every call

    def fold(self) -> None:
        """Add the buffered durations and empty the buffer."""
        values = self.values
        if not values:
            return
        self.total = total([self.total, *values])
        self.max = max(self.max, *values)
        room = MAX_SAMPLES - len(self._samples)
        self._samples.extend(values[:room])
        for seen, value in enumerate(values[room:], self.count + room + 1):
            slot = int(self._random.random() * seen)  # reservoir sampling
            if slot < MAX_SAMPLES:
                self._samples[slot] = value
        self.count += len(values)
        self.values = []

    @property
    def sampled(self) -> bool:
        """Whether the percentiles are from a sample."""
        return self.count > len(self._samples)

    def sorted_samples(self) -> list[float]:
        """Return the durations, or a sample of them, ascending."""
        return sorted(self._samples)


def total(values: list[float]) -> float:
    """Return the sum of finite numbers; infinite if it overflows."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.copysign(math.inf, math.fsum(value / len(values) for value in values))


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
