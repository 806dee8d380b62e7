"""Spans of time that may overlap: how much of a time they cover, counted once."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Cover"]

_Array = np.ndarray[Any, Any]


class Cover:
    """What spans cover together, in whole numbers, so that sums are exact.

    Args:
        begins: Where the spans begin, in any order and unit.
        ends: Where they end; one that does not end behind its begin covers nothing.

    Attributes:
        begins: Where what is covered begins, ascending; pieces neither overlap nor touch.
        ends: Where it ends.
    """

    def __init__(self, begins: _Array, ends: _Array) -> None:
        some = ends > begins
        begins, ends = begins[some], ends[some]
        order = np.argsort(begins, kind="stable")  # blocks come nearly in order: fast
        begins, reach = begins[order], np.maximum.accumulate(ends[order])
        apart = begins[1:] > reach[:-1]
        closes = np.append(apart, True)[: len(begins)]
        self.begins: _Array = begins[np.append(True, apart)[: len(begins)]]
        self.ends: _Array = reach[closes]
        self._before = np.append(0, np.cumsum(self.ends - self.begins))

    def plus(self, begins: _Array, ends: _Array) -> Cover:
        """Return what these and further spans cover."""
        return Cover(np.append(self.begins, begins), np.append(self.ends, ends))

    def until(self, moments: _Array) -> _Array:
        """Return how much is covered before each moment."""
        if not len(self.begins):
            return np.zeros(len(moments), np.int64)
        at = np.searchsorted(self.begins, moments, side="right") - 1  # the piece that began last
        piece = np.maximum(at, 0)
        inside = np.minimum(moments, self.ends[piece]) - self.begins[piece]
        return np.where(at < 0, 0, self._before[piece] + inside)

    def encloses(self, begins: _Array, ends: _Array) -> _Array:
        """Say which spans lie within one piece of what is covered."""
        if not len(self.begins):
            return np.zeros(len(begins), bool)
        at = np.searchsorted(self.begins, begins, side="right") - 1
        return (at >= 0) & (ends <= self.ends[np.maximum(at, 0)])
