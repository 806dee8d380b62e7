"""The colours of runs: a run keeps its own in every chart, as it follows from its name."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

__all__ = ["COLOURS", "styles_of"]

#: Okabe and Ito's, without black and yellow, which one of both backgrounds would hide.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#8c8c00", "#999999"),
)


def styles_of(names: Sequence[str]) -> list[tuple[int, int]]:
    """Choose a colour and a dash for each run.

    A name's checksum says which colour it has. Where another name has that colour already, it takes
    the next one that is free; once all are taken, the colours are used again with the next dash.

    Args:
        names: The names of the runs that are shown together, in any order.

    Returns:
        For each its place in `COLOURS`, and the number of its dash; 0 is a solid line.
    """
    taken: dict[tuple[int, int], int] = {}
    found: dict[int, tuple[int, int]] = {}
    for number in sorted(range(len(names)), key=lambda at: (names[at], at)):
        first = zlib.crc32(names[number].encode("utf-8", "backslashreplace"))
        places = [
            ((first + further) % len(COLOURS), number_of_dash)
            for number_of_dash in [len(taken) // len(COLOURS)]
            for further in range(len(COLOURS))
        ]
        place = next(one for one in places if one not in taken)
        taken[place] = number
        found[number] = place
    return [found[number] for number in range(len(names))]
