"""Colours of curves: they follow from names, so a run keeps its colour in every view."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

__all__ = ["COLORS", "DASHES", "ink", "styles_of"]

#: Okabe and Ito 2008, which colour-blind eyes tell apart; yellow is too light for a line.
COLORS = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7"),
    *("#56b4e9", "#d55e00", "#8c8c00", "#999999"),
)
#: Lengths of lines and gaps, in widths of the line.
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (1.5, 1.5), (6, 2, 1.5, 2))


def styles_of(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Give each name a colour and a dash, as numbers in ``COLORS`` and ``DASHES``.

    The colour is the CRC-32 of the name, modulo their number. Where names of one chart meet in a
    colour, the first in the alphabet has it, and the others the next that is free; with more names
    than colours, the next dash begins.
    """
    found: dict[str, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()
    for number, name in enumerate(sorted(set(names))):
        dash = number // len(COLORS) % len(DASHES)
        if number % (len(COLORS) * len(DASHES)) == 0:
            taken.clear()
        first = zlib.crc32(name.encode("utf-8", "backslashreplace"))
        tries = ((first + more) % len(COLORS) for more in range(len(COLORS)))
        color = next(color for color in tries if (color, dash) not in taken)
        taken.add((color, dash))
        found[name] = color, dash
    return found


def ink(color: str, background: str = "#ffffff", contrast: float = 4.5) -> str:
    """Return a colour for text: the same, darker or lighter until it can be read.

    Args:
        color: As ``#rrggbb``, likewise the next.
        background: What it stands on.
        contrast: The least ratio of luminances (WCAG 2.1, 1.4.3).
    """
    behind = _luminance(background)
    towards = 0 if behind > 0.18 else 255  # where black and white stand out alike
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    share, found = 0.0, color
    while _contrast(_luminance(found), behind) < contrast and share < 1:
        share += 0.05
        mixed = [round(part + (towards - part) * share) for part in parts]
        found = "#{:02x}{:02x}{:02x}".format(*mixed)
    return found


def _contrast(light: float, behind: float) -> float:
    return (max(light, behind) + 0.05) / (min(light, behind) + 0.05)


def _luminance(color: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2.1 defines it."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
