"""Show charts of metrics on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from foundry_fastlog.analysis.series import CHECKPOINT, Chart, Series
from foundry_fastlog.analysis.shaping import thin
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.show.axes import axis_words
from foundry_fastlog.show.curve import Axes, Line, draw_chart
from foundry_fastlog.show.looks import Looks, enough, last_value, notes_of, visible

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

__all__ = ["render_charts"]

_MOST_LINES = 8  # of a chart
_WIDEST = 160
_LEAST_ROWS, _MOST_ROWS = 6, 16
_ROWS = 40  # of a page that is no terminal
_AROUND = 5  # rows of a chart that are no plot: title, legend, axis, a note, an empty one


def render_charts(
    charts: Sequence[Chart],
    console: Console,
    *,
    log_x: bool = False,
    log_y: bool = False,
    weight: float = 0.0,
    world: int = 1,
    ranked: bool = False,
    rows: int | None = None,
) -> None:
    """Show as many charts as fit on a screen, and name the others.

    Args:
        charts: The charts.
        console: Where they are shown.
        log_x: Whether the x axis is logarithmic.
        log_y: Whether the y axis is.
        weight: How much the curves are smoothed, likewise the next for ``notes_of``.
        world: See above.
        ranked: See above.
        rows: How many rows there are. Default: those of the screen.
    """
    if rows is None:
        rows = console.height if console.is_terminal else _ROWS
    fit = max(1, min(len(charts), rows // (_LEAST_ROWS + _AROUND)))
    height = min(_MOST_ROWS, max(_LEAST_ROWS, rows // fit - _AROUND))
    looks = Looks(charts)
    for number, chart in enumerate(charts[:fit]):
        if number:
            console.print()
        hidden = _render(chart, console, looks, height, log_x=log_x, log_y=log_y)
        for note in notes_of(chart, hidden=hidden, weight=weight, world=world, ranked=ranked):
            console.print(Padding(Text(note, "dim"), (0, 0, 0, 2), expand=False))
    if len(charts) > fit:
        rest = enough((chart.title for chart in charts[fit:]), 8)
        text = (
            f"... and {len(charts) - fit:,} more: {rest}; -m 'PATTERN' chooses, -o FILE draws all"
        )
        console.print()
        console.print(Text(text, "dim"))


def _render(
    chart: Chart, console: Console, looks: Looks, height: int, *, log_x: bool, log_y: bool
) -> int:
    """Show a chart; return how many values are not on its logarithmic axes."""
    width = min(console.width, _WIDEST) - 1
    faint = console.color_system is not None  # without colour it would hide the line
    lines: list[Line] = []
    hidden = 0
    for one in chart.series[:_MOST_LINES]:
        one, left_out = visible(one, log_x=log_x, log_y=log_y)
        hidden += left_out
        lines += _lines_of(one, looks, 2 * width, log_x=log_x, log_y=log_y, faint=faint)
    console.print(Text(printable(chart.title), "bold"), soft_wrap=True)
    if not any(line.points for line in lines):
        console.print(
            Text("  nothing to draw: no finite value has a place on these axes", "yellow")
        )
        return hidden
    name, write = axis_words(chart.x)
    marks = [mark for mark in chart.marks if mark.x > 0 or not log_x]
    feet = tuple(mark.x for mark in marks if mark.word == CHECKPOINT)
    bars = tuple(mark.x for mark in marks if mark.word != CHECKPOINT)
    axes = Axes(
        name,
        write,
        log_x=log_x,
        log_y=log_y,
        ticks=chart.x != "time",
        seconds=chart.x == "relative",
        verticals=bars,
        feet=feet,
        ends=(*bars, *feet),
    )
    ascii_only = console.options.ascii_only
    plot = draw_chart(lines, axes, width=width, height=height, ascii_only=ascii_only)
    console.print(plot, soft_wrap=True)
    if len(chart.series) > _MOST_LINES:
        rest = enough((looks(one).label for one in chart.series[_MOST_LINES:]), 6)
        more = f"  {len(chart.series) - _MOST_LINES:,} more curves are not shown: {rest}"
        console.print(Text(more, "dim"), soft_wrap=True)
    return hidden


def _lines_of(
    series: Series, looks: Looks, columns: int, *, log_x: bool, log_y: bool, faint: bool
) -> list[Line]:
    """Return the line of a curve, and behind it the values before smoothing or its error."""
    look = looks(series)
    behind = []
    if faint and series.error is not None:
        behind += [series.line - series.error, series.line + series.error]
    elif faint and series.smooth is not None:
        behind.append(series.y)
    lines = []
    for values in [*behind, series.line]:
        x, y = series.x, values
        if log_y and not (y > 0).all():
            x, y = x[y > 0], y[y > 0]
        kept = thin(x, y, columns, log=log_x)
        points = list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))
        lines.append(Line("", points, f"dim {look.color}", faint=True))
    name = f"{printable(look.label, 32)} {last_value(series)}"
    odd = zip(series.odd_x.tolist(), series.odd_y.tolist(), strict=True)
    # NaN last: where several are in a column, it is what is seen.
    ordered = sorted((x, y) for x, y in odd if x > 0 or not log_x)
    ordered.sort(key=lambda point: math.isnan(point[1]))
    lines[-1] = Line(name, lines[-1].points, look.color, odd=ordered)
    return lines
