"""What is sent to other tools, and what these must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from foundry_fastlog.reading.run import Run

__all__ = ["Row", "SyncError", "Target"]


class SyncError(RuntimeError):
    """A run cannot be sent; the message says why, and what to do."""


@dataclass(frozen=True)
class Row:
    """Values that were recorded together.

    Attributes:
        number: Its place among all rows of the run that were ever sent to the target.
        stream: ``metrics``, ``system``, or ``rewind``: what has this step or a later one no longer
            counts.
        time: When, in seconds since 1970.
        step: The step; None where there is none.
        values: By name; NaN and infinities are themselves.
        rank: Of the process.
        start: The number of its start.
    """

    number: int
    stream: str
    time: float
    step: int | None
    values: dict[str, Any]
    rank: int
    start: int

    @property
    def group(self) -> str:
        """What the names of its values begin with: those of metrics with nothing."""
        return "system/" if self.stream == "system" else ""

    @property
    def place(self) -> str:
        """The same, in a run that has all ranks beside each other."""
        return f"rank{self.rank}/{self.group}" if self.rank else self.group


class Target(Protocol):
    """Where rows are sent.

    Attributes:
        rate: At most so many rows a second, unless somebody says otherwise; None for no limit.
    """

    rate: float | None

    def open(self, run: Run, known: dict[str, Any]) -> int | None:
        """Begin, or go on.

        Args:
            run: The run.
            known: What it said of itself the last time; it may change this.

        Returns:
            How many rows are there already; None if a row that is sent again is seen once.

        Raises:
            ImportError: A package is missing; the message says which.
            SyncError: It cannot be reached.
        """

    def send(self, rows: list[Row]) -> None:
        """Send rows.

        Raises:
            Exception: It cannot be reached now.
        """

    def confirmed(self, number: int) -> int:
        """Return how many rows are safe with it, once `number` were sent."""

    def close(self, state: str) -> None:
        """End; `state` is the run's."""
