"""Repeats a measurement on a noisy machine: same bound, limited number of tries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

TRIES = 4


@dataclass(frozen=True)
class Reading:
    """One measurement: whether it is within the bound, and its text."""

    passed: bool
    text: str


@dataclass(frozen=True)
class Outcome:
    """All tries of a gate; it passed if the last try did."""

    readings: tuple[Reading, ...]

    @property
    def passed(self) -> bool:
        """Whether the last try was within the bound."""
        return self.readings[-1].passed

    def __str__(self) -> str:
        """Return every try, so that a pass on the third try is visible."""
        return "; then ".join(reading.text for reading in self.readings)


def until_passed(measure: Callable[[], Reading], tries: int = TRIES) -> Outcome:
    """Measure until a reading is within its bound, at most `tries` times.

    A regression affects every try; other processes on the machine affect some. So one good try
    shows that the code meets the bound, and `tries` bad ones in a row fail the gate.

    Args:
        measure: Makes one complete measurement, including its verification.
        tries: Maximum number of measurements.

    Returns:
        All readings.
    """
    readings: list[Reading] = []
    while len(readings) < tries:
        readings.append(measure())
        if readings[-1].passed:
            break
    return Outcome(tuple(readings))
