"""What a watch looks for in the lines of a run: spikes, NaN, many errors, no progress, a full disk.

Lines are looked at one by one, so the same code serves a process that follows a run and a thread of
the training itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.base.formatting import format_bytes, format_number, format_seconds, printable
from foundry_fastlog.reading.polled import Line

__all__ = ["Alert", "Detector", "WatchRules", "full_disk", "stalled"]

#: Makes the MAD of normally distributed values their standard deviation.
_NORMAL = 1.4826
#: Of nearly constant values no spread is trusted that is below this share of their median.
_LEAST_SPREAD = 1e-3
#: Values before a spike that are shown with it, and names beside its own.
_LED_THERE = 8
_BESIDE = 4
_MINUTE_S = 60.0


@dataclass(frozen=True)
class WatchRules:
    """What a watch looks for. None, or no pattern, switches a rule off.

    Attributes:
        spikes: Metrics in which a sudden rise is a spike, as patterns: ``*loss*``.
        window: How many values before one it is compared with.
        threshold: How many MADs (scaled by 1.4826, so for normal values standard deviations) above
            the median of the window a spike is.
        least: How many values there must be before the first spike.
        falls: A sudden fall is a spike, too.
        nonfinite: Metrics that must not be NaN or infinite, as patterns.
        stall_s: Seconds without a line of metrics or timings after which a live run has stalled.
        errors_per_minute: More errors than these, within a minute of the run, are too many.
        disk_free: Bytes that must be free on the run's file system.
    """

    spikes: tuple[str, ...] = ("*loss*",)
    window: int = 100
    threshold: float = 8.0
    least: int = 20
    falls: bool = False
    nonfinite: tuple[str, ...] = ("*",)
    stall_s: float | None = 600.0
    errors_per_minute: float | None = 10.0
    disk_free: int | None = 1 << 30

    def __post_init__(self) -> None:
        for name in ("spikes", "nonfinite"):
            if isinstance(value := getattr(self, name), str):
                raise TypeError(f"{name} takes several patterns, such as [{value!r}]")
            object.__setattr__(self, name, tuple(value))
        if not 2 <= self.least <= self.window:
            raise ValueError(
                f"least must be from 2 to window ({self.window}), got {self.least}: a spike is "
                "compared with the values before it"
            )
        for name in ("threshold", "stall_s", "errors_per_minute", "disk_free"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a number above 0, or None; got {value!r}")


@dataclass(frozen=True)
class Alert:
    """Something that a person should look at.

    Attributes:
        kind: ``spike``, ``nonfinite``, ``stalled``, ``errors``, ``disk``, ``killed`` or ``failed``.
        message: One line that says it.
        timestamp: When it was, UTC; that of the line that shows it, where there is one.
        step: Its step, where it has one.
        rank: Its rank, likewise.
        name: Its metric, likewise.
        value: Its value, likewise; ``"nan"``, ``"inf"`` and ``"-inf"`` as text.
        led_there: For a spike the last records up to it, each with its step and some values.
    """

    kind: str
    message: str
    timestamp: str
    step: int | None = None
    rank: int | None = None
    name: str | None = None
    value: Any = None
    led_there: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can have it, without what it does not have."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in fields.items() if value not in (None, ())}


@dataclass
class _Series:
    """The last values of one metric of one process, in order of time and of size."""

    values: deque[float] = field(default_factory=deque)
    ordered: list[float] = field(default_factory=list)
    outside: bool = False
    nonfinite: int = 0

    def add(self, value: float, most: int) -> None:
        """Take in a value; the oldest of more than `most` goes."""
        if len(self.values) == most:
            del self.ordered[bisect_left(self.ordered, self.values.popleft())]
        self.values.append(value)
        insort(self.ordered, value)

    def spread(self, distance: float, threshold: float) -> float | None:
        """Return the MAD of the values; None where a distance is surely within it."""
        ordered, count = self.ordered, len(self.ordered)
        middle = percentile(ordered, 0.5)
        # Half of the values are between the quartiles, so the MAD is no less than the nearer one.
        quarter = min(middle - ordered[count // 4], ordered[-1 - count // 4] - middle)
        if abs(distance) <= threshold * _NORMAL * quarter:
            return None
        return percentile(sorted(abs(value - middle) for value in ordered), 0.5)


class Detector:
    """Looks at lines, and says what is wrong with them.

    Args:
        rules: What to look for.
    """

    def __init__(self, rules: WatchRules) -> None:
        self._rules = rules
        self._series: dict[tuple[str, str], _Series] = {}
        self._before: dict[str, deque[dict[str, Any]]] = {}
        self._fits: dict[str, tuple[bool, bool]] = {}
        self._errors: deque[float] = deque()
        self._too_many = False

    def look(self, lines: Iterable[Line]) -> Iterator[Alert]:
        """Look at new lines, in order.

        Args:
            lines: As ``Polled.lines`` has them.

        Yields:
            What is wrong. A metric that stays outside, or nonfinite, is told of once, until it has
            come back.
        """
        for timestamp, series, record, _ in lines:
            if "rewind" in record:  # what comes next is compared with what comes after it
                self._forget(series.writer.label)
            elif "metrics" in record:
                yield from self._metrics(timestamp, series.writer.label, series.writer.rank, record)
            elif series.stream == "errors" or "error_type" not in record:  # else it is in both
                yield from self._error(timestamp, record)

    def _forget(self, label: str) -> None:
        self._series = {key: one for key, one in self._series.items() if key[0] != label}

    def _metrics(
        self, timestamp: str, label: str, rank: int, record: dict[str, Any]
    ) -> Iterator[Alert]:
        values, step = record["metrics"], record.get("step")
        lost = record.get("nonfinite") or {}
        before = self._before.setdefault(label, deque(maxlen=_LED_THERE))
        before.append({"step": step, **values, **lost})
        for name, value in values.items():
            spikes, must_be_finite = self._fit(name)
            if not (spikes or must_be_finite):
                continue
            key = label, name
            if name in lost:
                if must_be_finite:
                    one = self._of(key)
                    one.nonfinite += 1
                    if one.nonfinite == 1:
                        yield _nonfinite(timestamp, name, lost[name], step, rank)
                continue
            if type(value) not in (int, float):
                continue
            one = self._of(key)
            one.nonfinite = 0
            if spikes:
                found = self._spike(one, value, _where(step, rank))
                if found is not None:
                    led_there = _led_there(before, name)
                    message = f"{printable(name, 80)} {found}"
                    yield Alert("spike", message, timestamp, step, rank, name, value, led_there)

    def _of(self, key: tuple[str, str]) -> _Series:
        one = self._series.get(key)
        if one is None:
            one = self._series[key] = _Series()
        return one

    def _fit(self, name: str) -> tuple[bool, bool]:
        found = self._fits.get(name)
        if found is None:
            patterns = self._rules.spikes, self._rules.nonfinite
            spikes, finite = (any(fnmatchcase(name, one) for one in some) for some in patterns)
            found = self._fits[name] = spikes, finite
        return found

    def _spike(self, one: _Series, value: float, where: str) -> str | None:
        """Compare a value with those before it; say what is wrong, once until it has come back."""
        rules, before = self._rules, len(one.values)
        said = None
        if before >= rules.least:
            middle = percentile(one.ordered, 0.5)
            distance = value - middle
            mad = one.spread(distance, rules.threshold)
            least = rules.threshold * max(_NORMAL * (mad or 0.0), _LEAST_SPREAD * abs(middle))
            outside = mad is not None and (distance > least or (rules.falls and -distance > least))
            if outside and not one.outside:
                said = (
                    f"{'rose' if distance > 0 else 'fell'} to {format_number(value)}{where}: the "
                    f"median of the {before} values before is {format_number(middle)}, their MAD "
                    f"{format_number(mad)}"
                )
            one.outside = outside
        one.add(value, rules.window)
        return said

    def _error(self, timestamp: str, record: dict[str, Any]) -> Iterator[Alert]:
        most = self._rules.errors_per_minute
        if most is None or record.get("level") not in ("ERROR", "CRITICAL"):
            return
        now = moment_of(timestamp)
        recent = self._errors
        recent.append(now)
        while recent[0] <= now - _MINUTE_S:
            recent.popleft()
        too_many = len(recent) > most
        if too_many and not self._too_many:
            last = printable(str(record.get("message", "")), 120)
            message = f"{len(recent)} errors within a minute; the last: {last}"
            yield Alert("errors", message, timestamp, record.get("step"))
        self._too_many = too_many


def _where(step: int | None, rank: int | None) -> str:
    at = "" if step is None else f" at step {step:,}"
    return at + (f" of rank {rank}" if rank else "")


def _nonfinite(timestamp: str, name: str, value: str, step: int | None, rank: int) -> Alert:
    message = f"{printable(name, 80)} is {value}{_where(step, rank)}"
    return Alert("nonfinite", message, timestamp, step, rank, name, value)


def _led_there(before: Iterable[dict[str, Any]], name: str) -> tuple[dict[str, Any], ...]:
    """Return the last records with a metric: the step, it, and what else was recorded with it."""
    having = [record for record in before if name in record]
    beside: dict[str, None] = {}
    for record in reversed(having):
        beside |= dict.fromkeys(key for key in record if key not in ("step", name))
    kept = ("step", name, *list(beside)[:_BESIDE])
    return tuple({key: record[key] for key in kept if key in record} for record in having)


def stalled(timestamp: str, since_s: float, last: str) -> Alert:
    """Say that a run makes no progress."""
    said = f"no metric and no timing for {format_seconds(since_s)}"
    return Alert("stalled", f"{said}; the last was at {last}" if last else said, timestamp)


def full_disk(timestamp: str, free: int) -> Alert:
    """Say that the run's file system has little room left."""
    return Alert("disk", f"only {format_bytes(free)} are free for the run", timestamp, value=free)
