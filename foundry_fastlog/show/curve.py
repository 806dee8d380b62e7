"""Draw curves in a terminal: braille dots, or ASCII if the terminal supports only that.

A line goes through all its points, so that a spike of one step is seen, however many steps a
column has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foundry_fastlog.base.formatting import format_number
from foundry_fastlog.show.axes import Scale, nice_ticks

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.text import Text

__all__ = ["Axes", "Line", "draw_chart", "draw_curves", "format_number"]

Points = Sequence[tuple[float, float]]
_Dots = set[tuple[int, int]]

# Braille cells are 2 dots wide and 4 high; the bit of each dot by (column, row).
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_BRAILLE = 0x2800
_STYLES = ("cyan", "yellow")
# What tells lines apart where there is no colour: letters, or marks on the lines after the first.
_LETTERS = "*o+x#@%&"
_MARKS = "●◆▲■○◇△□"
_NARROWEST = 79  # where legends begin to be folded
_EVERY = 14  # cells between the marks of a line
_ODD = {"nan": "\u00d7!", "inf": "↑^", "-inf": "↓v"}  # a cross, and arrows


@dataclass(frozen=True)
class Line:
    """A curve to draw.

    Attributes:
        name: What it is called, printable.
        points: Its points, finite and by x.
        style: Its style, as rich has it.
        dots: Whether it is drawn as a mark for each point, instead of a line.
        faint: Whether it stands behind the next one, without a name or marks of its own.
        odd: Its NaN and infinite values, which are marked on the edges.
    """

    name: str
    points: Points
    style: str = ""
    dots: bool = False
    faint: bool = False
    odd: Points = ()


@dataclass(frozen=True)
class Axes:
    """The axes of a chart.

    Attributes:
        x: What the x axis is called.
        write: Writes a value of the x axis.
        log_x: Whether it is logarithmic; then all points are above 0, likewise for y.
        log_y: See above.
        ends: Values of the x axis that it shows, beside those of the points.
        ticks: Whether it has labels between its ends.
        seconds: Whether they are durations.
        verticals: Where there are vertical lines.
        feet: Where the lower edge is marked.
    """

    x: str = "step"
    write: Callable[[float], str] = format_number
    log_x: bool = False
    log_y: bool = False
    ends: tuple[float, ...] = ()
    ticks: bool = True
    seconds: bool = False
    verticals: tuple[float, ...] = ()
    feet: tuple[float, ...] = ()


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
    lines = [
        Line(name, points, style, dots=number > 0)
        for number, ((name, points), style) in enumerate(zip(curves.items(), _STYLES, strict=False))
    ]
    axes = Axes(ends=ends or (), ticks=False)
    return draw_chart(lines, axes, width=width, height=height, ascii_only=ascii_only)


def draw_chart(
    lines: Sequence[Line],
    axes: Axes,
    *,
    width: int,
    height: int = 10,
    ascii_only: bool = False,
) -> Text:
    """Draw several curves over the same axes.

    Args:
        lines: The curves; at least one has a point.
        axes: The axes.
        width: Columns to fill, including axis labels.
        height: Rows of the plot.
        ascii_only: Draw with ASCII only.

    Returns:
        The plot as rich text, with a legend above and the x axis below.
    """
    from rich.text import Text

    everything = [point for line in lines for point in line.points]
    odd_x = [x for line in lines for x, _ in line.odd if x > 0 or not axes.log_x]
    steps = [*(x for x, _ in everything), *odd_x, *axes.ends]
    values = [value for _, value in everything]
    low, high = min(values), max(values)
    middle = Scale(low, high, height, log=axes.log_y).middle()
    labels = [format_number(value) for value in (high, middle, low)]
    margin = max(map(len, labels)) + 2
    cells = max(10, width - margin)
    canvas = _Canvas(cells, height, (min(steps), max(steps)), (low, high), axes, ascii_only)

    for x in axes.verticals:
        canvas.vertical(x)
    for x in axes.feet:
        canvas.foot(x)
    legend = Text(" " * margin)
    used = margin
    named = [line for line in lines if not line.faint]
    for line in lines:
        if line.faint:
            canvas.line(line, "", 0)
            continue
        number = named.index(line)
        symbol = canvas.symbol(line, number)
        if not line.points and not line.odd:
            continue
        if line.dots:
            canvas.marks(line, symbol)
        else:
            canvas.line(line, symbol[-1] if ascii_only or number else "", number / len(named))
        if used > margin and used + len(symbol) + 1 + len(line.name) > max(width, _NARROWEST):
            legend.append("\n" + " " * margin)
            used = margin
        legend.append(symbol, line.style).append(f" {line.name}   ")
        used += len(symbol) + len(line.name) + 4
    for line in lines:
        canvas.odd(line)
    bar = "|" if ascii_only else "│"
    text = Text(no_wrap=True).append_text(legend)
    for y in range(height):
        label = {0: labels[0], height // 2: labels[1], height - 1: labels[2]}.get(y, "")
        text.append(f"\n{label:>{margin - 2}} ", "dim").append(bar, "dim")
        for symbol, style in canvas.row(y):
            text.append(symbol, style)
    return text.append("\n" + " " * margin + canvas.axis(axes), "dim")


class _Canvas:
    """The cells of a chart: braille masks and marks, each with its style."""

    def __init__(
        self,
        cells: int,
        height: int,
        x_ends: tuple[float, float],
        y_ends: tuple[float, float],
        axes: Axes,
        ascii_only: bool,
    ) -> None:
        self._cells, self._height, self._ascii = cells, height, ascii_only
        self._wide, self._high = (1, 1) if ascii_only else (2, 4)
        self._foot, self._bar = ("'", ":") if ascii_only else ("▵", "┊")
        self._x_ends = x_ends
        self._across = Scale(*x_ends, cells * self._wide, log=axes.log_x)
        self._up = Scale(*y_ends, height * self._high, log=axes.log_y)
        self._masks: dict[tuple[int, int], tuple[int, str]] = {}
        self._marks: dict[tuple[int, int], tuple[str, str]] = {}

    def symbol(self, line: Line, number: int) -> str:
        """Return how a line looks, for the legend."""
        if self._ascii:
            letter = _LETTERS[number % len(_LETTERS)]
            return letter if line.dots else letter * 2
        mark = _MARKS[(max(number, 1) - 1) % len(_MARKS)]
        return mark if line.dots else f"⠒{mark}" if number else "⠒⠒"

    def line(self, line: Line, mark: str, phase: float) -> None:
        """Draw a line through points, with marks on it."""
        at: dict[int, int] = {}  # the row of the line in columns of cells
        for column, row in self._walk(line.points):
            cell = self._cell(column, row)
            at[cell[1]] = cell[0]
            bit = 1 if self._ascii else _DOTS[column % 2][(self._height * 4 - 1 - row) % 4]
            self._masks[cell] = self._masks.get(cell, (0, ""))[0] | bit, line.style
            if self._ascii:
                self._marks[cell] = mark or _LETTERS[0], line.style
        if mark and not self._ascii and at:
            first, last = min(at), max(at)
            begin = first + round(phase * _EVERY)
            for x in range(begin if begin <= last else first, last + 1, _EVERY):
                near = min(at, key=lambda other: abs(other - x))
                self._marks[at[near], near] = mark, line.style

    def _walk(self, points: Points) -> Iterable[tuple[int, int]]:
        """Dots (column, row from the bottom) of a line through points."""
        before: tuple[int, int] | None = None
        for x, value in points:
            column, row = self._across(x), self._up(value)
            if before is None:
                yield column, row
            elif (column, row) != before:
                # Walk from the last point, so that gaps and jumps do not break the line.
                steps = max(abs(column - before[0]), abs(row - before[1]))
                for i in range(1, steps + 1):
                    yield (
                        before[0] + round((column - before[0]) * i / steps),
                        before[1] + round((row - before[1]) * i / steps),
                    )
            before = column, row

    def _cell(self, column: int, row: int) -> tuple[int, int]:
        return (self._height * self._high - 1 - row) // self._high, column // self._wide

    def marks(self, line: Line, mark: str) -> None:
        """Draw a mark for each point."""
        for x, value in line.points:
            self._marks[self._cell(self._across(x), self._up(value))] = mark, line.style

    def vertical(self, x: float) -> None:
        """Draw a vertical line behind everything."""
        for y in range(self._height):
            self._marks[y, self._across(x) // self._wide] = self._bar, "dim"

    def foot(self, x: float) -> None:
        """Mark a place on the lower edge, behind everything."""
        self._marks[self._height - 1, self._across(x) // self._wide] = self._foot, "dim"

    def odd(self, line: Line) -> None:
        """Mark NaN and infinities, above the others: minus infinity below, the others on top."""
        for x, value in line.odd:
            y = self._height - 1 if value == -math.inf else 0
            self._marks[y, self._across(x) // self._wide] = (
                _ODD[str(value)][self._ascii],
                "bold red",
            )

    def row(self, y: int) -> Iterable[tuple[str, str]]:
        """Give the cells of a row from the top, with their styles."""
        for x in range(self._cells):
            mask, style = self._masks.get((y, x), (0, ""))
            mark = self._marks.get((y, x))
            if mark is not None and not (mask and mark[1] == "dim"):
                yield mark
            else:
                yield (chr(_BRAILLE + mask), style) if mask else (" ", "")

    def axis(self, axes: Axes) -> str:
        """Write the x axis: its name, its ends, and what fits between them."""
        low, high = self._x_ends
        left = f"{axes.x} {axes.write(low)}"
        right = axes.write(high)
        words = list(left + right.rjust(self._cells - len(left)))
        if axes.ticks and high > low:
            for tick in nice_ticks(low, high, 6, log=axes.log_x, seconds=axes.seconds):
                label = axes.write(tick)
                begin = self._across(tick) // self._wide - len(label) // 2
                around = slice(max(0, begin - 2), begin + len(label) + 2)
                if begin > 1 and set(words[around]) == {" "}:
                    words[begin : begin + len(label)] = label
        return "".join(words)
