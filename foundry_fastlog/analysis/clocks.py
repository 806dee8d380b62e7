"""A wall clock that was set back while a process recorded, and what its times are by the right one.

The order of lines is known by their numbers, so a time that goes back says by how much the clock
was set. It is set to what is right: what was recorded before is as much earlier.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["SET_BACK", "Clock"]

_Array = np.ndarray[Any, Any]

SET_BACK = 1_000_000
"""Microseconds: what threads that race cannot explain."""


class Clock:
    """Where a clock was set back.

    Args:
        times: When lines were recorded, in microseconds, in the order of their numbers.
        seqs: Their numbers.
        taken: How long each is at least behind the one before.
        like: What another stream of the process says; it counts where it was set as often.

    Attributes:
        most: The farthest that it was set back at once; 0 where it never was.
        steps: By how much it was ahead before each time, and behind the last: 0.
    """

    def __init__(
        self, times: _Array, seqs: _Array, taken: _Array, like: Clock | None = None
    ) -> None:
        back = times[:-1] - times[1:]
        at = np.flatnonzero(back > SET_BACK)
        sets = back[at] + taken[1:][at]
        self.most = int(back.max(initial=0)) if len(at) else 0
        self._seqs = seqs[1:][at]
        self.steps = np.append(np.cumsum(sets[::-1])[::-1], 0)
        if like is not None and len(like.steps) == len(self.steps):
            self.steps = like.steps

    def ahead(self, seqs: _Array) -> _Array:
        """Return by how much it was ahead when each line was recorded."""
        found: _Array = self.steps[np.searchsorted(self._seqs, seqs, side="right")]
        return found

    def right(self, moment: int, begin: int, end: int) -> int:
        """Return a moment of before or behind: what is nearer to a time that is known."""
        by_any = [moment - ahead for ahead in self.steps[::-1].tolist()]  # as it is first
        nearest: int = min(by_any, key=lambda one: max(begin - one, one - end, 0))
        return nearest
