"""Draw curves in a terminal: braille dots, or ASCII if the terminal supports only that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from foundry_fastlog.base.formatting import format_number
from foundry_fastlog.base.statistics import mean_of

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.text import Text

__all__ = ["draw_curves", "format_number"]

Points = Sequence[tuple[float, float]]

# Braille cells are 2 dots wide and 4 high; the bit of each dot by (column, row).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800
_STYLES = ("cyan", "yellow")


class _Scale:
    """Maps values to whole cells or dots: ``low`` to 0, ``high`` to ``size - 1``."""

    def __init__(self, low: float, high: float, size: int) -> None:
        self.low = low
        # Halved, because the span between two finite floats may be infinite.
        self.half_span = (high / 2 - low / 2) or 0.5
        self.size = size

    def __call__(self, value: float) -> int:
        share = (value / 2 - self.low / 2) / self.half_span
        return min(self.size - 1, max(0, round(share * (self.size - 1))))


def _columns(points: Points, scale: _Scale) -> dict[int, float]:
    """Average the points of each column."""
    groups: dict[int, list[float]] = {}
    for step, value in points:
        groups.setdefault(scale(step), []).append(value)
    return {column: mean_of(values) for column, values in sorted(groups.items())}


def _line(points: Points, across: _Scale, up: _Scale) -> set[tuple[int, int]]:
    """Dots (column, row from the bottom) of a line through the points."""
    dots: set[tuple[int, int]] = set()
    before: tuple[int, int] | None = None
    for column, value in _columns(points, across).items():
        row = up(value)
        if before is None:
            dots.add((column, row))
        else:
            # Walk from the last point, so that gaps and jumps do not break the line.
            steps = max(column - before[0], abs(row - before[1]), 1)
            for i in range(1, steps + 1):
                dots.add(
                    (
                        before[0] + round((column - before[0]) * i / steps),
                        before[1] + round((row - before[1]) * i / steps),
                    )
                )
        before = (column, row)
    return dots


def draw_curves(
    curves: Mapping[str, Points],
    *,
    width: int,
    height: int = 10,
    ascii_only: bool = False,
    ends: tuple[float, float] | None = None,
) -> Text:
    """Draw one or two curves over the same axes.

    The first is drawn as a line, the second as marks, so that they differ even without colour.

    Args:
        curves: Points ``(step, value)`` by name, all finite, at least one per curve.
        width: Columns to fill, including axis labels.
        height: Rows of the plot.
        ascii_only: Draw with ASCII only.
        ends: The first and the last step of the axis. Default: those of the points.

    Returns:
        The plot as rich text, with a legend above and the steps below.
    """
    from rich.text import Text

    shown = list(curves.items())[:2]
    everything = [point for _, points in shown for point in points]
    steps = [*(step for step, _ in everything), *(ends or ())]
    values = [value for _, value in everything]
    low, high = min(values), max(values)
    labels = [format_number(value) for value in (high, low / 2 + high / 2, low)]
    margin = max(map(len, labels)) + 2
    cells = max(10, width - margin)

    grid: list[list[tuple[str, str]]] = [[(" ", "")] * cells for _ in range(height)]
    wide, high_dots = (1, 1) if ascii_only else (2, 4)
    across = _Scale(min(steps), max(steps), cells * wide)
    up = _Scale(low, high, height * high_dots)
    masks: dict[tuple[int, int], int] = {}
    for column, row in _line(shown[0][1], across, up):
        from_top = height * high_dots - 1 - row
        cell = (from_top // high_dots, column // wide)
        bit = 0 if ascii_only else _DOTS[column % 2][from_top % 4]
        masks[cell] = masks.get(cell, 0) | bit
    for (y, x), mask in masks.items():
        grid[y][x] = ("*" if ascii_only else chr(_BRAILLE + mask), _STYLES[0])
    line_mark, mark = ("*", "o") if ascii_only else ("⠒", "●")
    for _, points in shown[1:]:
        for column, value in _columns(points, _Scale(min(steps), max(steps), cells)).items():
            row = height - 1 - up(value) // high_dots
            grid[row][column] = (mark, _STYLES[1])

    text = Text(" " * margin, no_wrap=True)
    for (name, _), symbol, style in zip(shown, (line_mark * 2, mark), _STYLES, strict=False):
        text.append(symbol, style).append(f" {name}   ")
    bar = "|" if ascii_only else "│"
    for y, line in enumerate(grid):
        label = {0: labels[0], height // 2: labels[1], height - 1: labels[2]}.get(y, "")
        text.append(f"\n{label:>{margin - 2}} ", "dim").append(bar, "dim")
        for symbol, style in line:
            text.append(symbol, style)
    first, last = format_number(min(steps)), format_number(max(steps))
    axis = f"step {first}" + last.rjust(cells - len(first) - len("step "))
    return text.append("\n" + " " * margin + axis, "dim")
