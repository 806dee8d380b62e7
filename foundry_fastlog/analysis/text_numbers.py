"""Numbers for texts of columns: millions of rows, few different texts, no loop over rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from foundry_fastlog.reading.scan import ColumnPart

__all__ = ["TextNumbers"]

_Array = np.ndarray[Any, Any]

_MOST_NAMES = 1000
_OTHERS = "(other blocks)"


@dataclass
class TextNumbers:
    """Numbers texts in the order of their appearance, many at a time."""

    texts: list[str] = field(default_factory=list)
    _hashes: _Array = field(default_factory=lambda: np.empty(0, "u8"))
    _numbers: _Array = field(default_factory=lambda: np.empty(0, "i4"))

    def number(self, text: str) -> int:
        """Return the number of a text."""
        if text not in self.texts:
            if len(self.texts) >= _MOST_NAMES and text != _OTHERS:
                return self.number(_OTHERS)
            self.texts.append(text)
        return self.texts.index(text)

    def numbers(self, part: ColumnPart) -> _Array:
        """Return the numbers of a column of texts."""
        rows, _, _, values, text = part
        offsets = np.frombuffer(memoryview(values or bytes(8)), "<i8", rows + 1)
        data = np.frombuffer(memoryview(text or b""), "u1")
        hashes = _hashes_of(offsets, data)
        places = self._places(hashes)
        if (places < 0).any():
            unknown = np.flatnonzero(places < 0)
            _, first = np.unique(hashes[unknown], return_index=True)
            raw = data.tobytes()
            for row in unknown[np.sort(first)].tolist():
                name = raw[offsets[row] : offsets[row + 1]].decode()
                self._learn(int(hashes[row]), self.number(name))
            places = self._places(hashes)
        found: _Array = self._numbers[places]
        return found

    def _places(self, hashes: _Array) -> _Array:
        """Return where in what is known texts are, -1 for those that are not."""
        if not len(self._hashes):
            return np.full(len(hashes), -1)
        found: _Array = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        found[self._hashes[found] != hashes] = -1
        return found

    def _learn(self, hashed: int, number: int) -> None:
        at = int(np.searchsorted(self._hashes, np.uint64(hashed)))
        self._hashes = np.insert(self._hashes, at, np.uint64(hashed))
        self._numbers = np.insert(self._numbers, at, number)


def _hashes_of(offsets: _Array, data: _Array) -> _Array:
    """Hash texts by random weights of their bytes' places."""
    sizes = np.diff(offsets)
    data = data[offsets[0] : offsets[-1]]
    longest = int(sizes.max(initial=0))
    weights = np.random.default_rng(1).integers(1 << 63, size=longest + 1, dtype="u8") * 2 + 1
    hashes: _Array = sizes.astype("u8") * np.uint64(0x9E3779B97F4A7C15)
    if len(data):
        starts = offsets[:-1] - offsets[0]
        places = np.arange(len(data)) - np.repeat(starts, sizes)
        filled = sizes > 0
        weighted = (data.astype("u8") + np.uint64(1)) * weights[places]
        hashes[filled] += np.add.reduceat(weighted, starts[filled])
    return hashes
