"""Draw charts of metrics with matplotlib: PNG, SVG, PDF, and figures for notebooks.

Figures are made without pyplot, and everything is said of each artist itself: neither the user's
backend nor rcParams are touched, and no window opens.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from foundry_fastlog.analysis.identity import (
    code_of,
    config_of,
    differing,
    is_complete,
    label_runs,
)
from foundry_fastlog.analysis.series import CHECKPOINT
from foundry_fastlog.analysis.shaping import thin
from foundry_fastlog.base.formatting import format_number, format_value, printable
from foundry_fastlog.show.axes import axis_words, short_number
from foundry_fastlog.show.looks import Look, Looks, enough, last_value, visible
from foundry_fastlog.show.palette import ink

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from foundry_fastlog.analysis.series import Chart, Series
    from foundry_fastlog.reading.run import Run

__all__ = ["Picture", "draw_figure"]

_TEXT, _QUIET, _RULE, _BAD = "#1b1f24", "#5b6570", "#e3e6ea", "#b91c1c"
_SIZE = (8.0, 4.5)  # inches
_DPI = 160
_COLUMNS = 1600  # pixels
_NOISY = 400  # points from which on a line is thin
_DIRECT = 6  # curves that are labelled at their ends
_MOST_LEGEND = 20
_MOST_PANELS = 24
_UNITS = (("days", 86400 * 2), ("hours", 3600 * 2), ("minutes", 60 * 2), ("seconds", 0))
_SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


class Picture(Figure):
    """A matplotlib figure that notebooks show as it is, whatever the backend is."""

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        """Return a PNG for screens of high resolution, and how wide to show it."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * _DPI * 0.6)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(width * 96), "height": round(height * 96)}


def draw_figure(
    runs: Sequence[Run],
    charts: Sequence[Chart],
    *,
    log_x: bool = False,
    log_y: bool = False,
    weight: float = 0.0,
    title: str | None = None,
) -> Picture:
    """Draw charts of runs into one figure.

    Args:
        runs: The runs, for the title and the footer.
        charts: The charts, one or more; of very many only the first are drawn.
        log_x: Whether the x axes are logarithmic.
        log_y: Whether the y axes are.
        weight: How much the curves are smoothed, for the labels.
        title: The title. Default: the run's name, or what the runs differ in.
    """
    shown = charts[:_MOST_PANELS]
    across = 1 if len(shown) == 1 else 2 if len(shown) <= 8 else 3
    down = -(-len(shown) // across)
    size = _SIZE if len(shown) == 1 else (across * 4.8, max(_SIZE[1], down * 2.7 + 0.7))
    figure = Picture(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.06, hspace=0.04, wspace=0.02)
    looks = Looks(charts)
    panels = figure.subplots(down, across, squeeze=False)
    labels = []
    for number, axes in enumerate(panels.flat):
        if number >= len(shown):
            axes.remove()
            continue
        labels.append(_panel(axes, shown[number], looks, log_x=log_x, log_y=log_y))
    figure.suptitle(
        printable(title or _title(runs)),
        x=0.012,
        ha="left",
        size=12,
        weight="bold",
        color=_TEXT,
    )
    words = [_footer(runs)]
    if weight:
        words.append(f"smoothed {weight:g}")
    if len(charts) > len(shown):
        words.append(f"{len(charts) - len(shown):,} more metrics are not drawn")
    figure.supxlabel(" · ".join(words), x=0.012, ha="left", size=7, color=_QUIET)
    figure.draw_without_rendering()  # so that it is known where the lines end
    for found in labels:
        _spread(found)
    return figure


def _title(runs: Sequence[Run]) -> str:
    names = label_runs(runs)
    if len(runs) == 1:
        return names[0]
    settings = differing([config_of(run) for run in runs])
    rows = [
        f"{name} {', '.join(dict.fromkeys(map(format_value, values)))}"
        for name, values in settings.items()
    ]
    if 0 < len(rows) <= 2 and len(runs) <= 6:
        return f"{len(runs)} runs: {'; '.join(rows)}"
    return enough(names, 4)


def _footer(runs: Sequence[Run]) -> str:
    """Name runs, their code, and whether they are complete."""
    names = enough(label_runs(runs), 3)
    codes = dict.fromkeys(code_of(run)[:7] or "unknown" for run in runs)
    missing = sum(not is_complete(run) for run in runs)
    state = (
        "complete" if not missing else "incomplete" if len(runs) == 1 else f"{missing} incomplete"
    )
    live = sum(any(ring.outcome == "live" for ring in run.rings) for run in runs)
    going = f" · {live} still running" if live else ""
    return f"{names} · code {enough(codes, 3)} · {state}{going}"


# ---- one chart ------------------------------------------------------------------------------


def _panel(axes: Axes, chart: Chart, looks: Looks, *, log_x: bool, log_y: bool) -> list[Any]:
    """Draw a chart; return the labels at the ends of its lines."""
    unit = _dress(axes, chart, log_x=log_x, log_y=log_y)
    ends: list[tuple[float, float, str, Look]] = []
    for series in chart.series:
        look = looks(series)
        series, _ = visible(series, log_x=log_x, log_y=log_y)
        _draw(axes, series, look, unit, log_x=log_x)
        if len(series.x):
            label = f"{look.label}  {last_value(series)}"
            end = (unit(series.x[-1:])[0], float(series.line[-1]), label, look)
            ends.append(end)
    _mark(axes, chart, looks, unit, log_x=log_x)
    _tick(axes, log_x=log_x and chart.x != "time", log_y=log_y)
    title = printable(chart.title, 70)
    if not ends:
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=_QUIET)
    axes.set_title(title, loc="left", size=10, color=_TEXT)
    if len(ends) > _DIRECT:
        _legend(axes, ends)
        return []
    return [
        axes.annotate(
            text,
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            size=8,
            color=ink(look.color),
            annotation_clip=False,
        )
        for x, y, text, look in ends
    ]


def _dress(axes: Axes, chart: Chart, *, log_x: bool, log_y: bool) -> Any:  # noqa: ANN401 - a function of arrays
    """Prepare the axes; return what turns values of x into matplotlib's."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_RULE)
    axes.set_facecolor("white")
    axes.grid(visible=True, color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_QUIET, labelsize=8, length=0, which="both")
    name, _ = axis_words(chart.x)
    unit = _identity
    numbers = FuncFormatter(lambda value, _: short_number(value))
    if chart.x == "time":
        locator = AutoDateLocator(maxticks=7)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz="UTC"))  # type: ignore[no-untyped-call]
        unit = _dates
    else:
        if chart.x == "relative":
            name, unit = _unit_of(chart)
        if log_x:
            axes.set_xscale("log")
        else:
            whole = chart.x == "step"
            axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=whole))
        axes.xaxis.set_major_formatter(numbers)
    if log_y:
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(numbers)
    axes.margins(x=0.01)
    axes.set_xlabel(name, size=8, color=_QUIET, loc="right")
    return unit


def _tick(axes: Axes, *, log_x: bool, log_y: bool) -> None:
    """Choose what is labelled on logarithmic axes: of less than two decades more than the tens."""
    for axis, log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        if log:
            low, high = axis.get_view_interval()
            subs = (1.0,) if high > 100 * low else (1.0, 2.0, 3.0, 5.0)
            axis.set_major_locator(LogLocator(10, subs=subs, numticks=9))
            axis.set_minor_locator(NullLocator())


def _identity(x: Any) -> Any:  # noqa: ANN401 - an array
    return x


def _dates(x: Any) -> Any:  # noqa: ANN401 - an array
    return date2num((x * 1e6).astype("M8[us]"))  # type: ignore[no-untyped-call]


def _unit_of(chart: Chart) -> tuple[str, Any]:
    """Choose the unit of a relative time; return the axis' name, and what converts to it."""
    longest = max((float(one.x[-1]) for one in chart.series if len(one.x)), default=0.0)
    unit = next(name for name, least in _UNITS if longest >= least)
    return f"{unit} since the first record", lambda x: x / _SECONDS[unit]


def _draw(axes: Axes, series: Series, look: Look, unit: Any, *, log_x: bool) -> None:  # noqa: ANN401 - a function
    """Draw a curve: behind it the values before smoothing, or the standard error."""
    dash: Any = (0, look.dash) if look.dash else "solid"
    width = 1.0 if len(series.x) > _NOISY and series.smooth is None else 1.6
    # A point is not a line.
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if len(series.x) < 3 else {}

    def plot(values: Any, **how: Any) -> None:  # noqa: ANN401 - matplotlib's
        kept = thin(series.x, values, _COLUMNS, log=log_x)
        axes.plot(unit(series.x[kept]), values[kept], color=look.color, **how)

    if series.error is not None and len(series.x):
        kept = thin(series.x, series.line, _COLUMNS, log=log_x)
        x, y, error = unit(series.x[kept]), series.line[kept], series.error[kept]
        axes.fill_between(x, y - error, y + error, color=look.color, alpha=0.25, linewidth=0)
    elif series.smooth is not None:
        plot(series.y, alpha=0.25, linewidth=0.8)
    plot(series.line, linewidth=width, linestyle=dash, solid_joinstyle="round", **marker)


def _mark(axes: Axes, chart: Chart, looks: Looks, unit: Any, *, log_x: bool) -> None:  # noqa: ANN401 - a function
    """Mark NaN and infinities on the edge, and where starts began."""
    for series in chart.series:
        color = ink(looks(series).color)
        kinds = ((np.isnan(series.odd_y), "x", 0.985), (series.odd_y > 0, "^", 0.985))
        for chosen, marker, y in (*kinds, (series.odd_y < 0, "v", 0.015)):
            chosen = chosen & ((series.odd_x > 0) | (not log_x))
            if chosen.any():
                x = unit(series.odd_x[chosen][:: max(1, int(chosen.sum()) // _COLUMNS)])
                axes.plot(
                    x,
                    np.full(len(x), y),
                    linestyle="none",
                    marker=marker,
                    markersize=5,
                    color=color,
                    markeredgewidth=1.3,
                    transform=axes.get_xaxis_transform(),
                    clip_on=False,
                    zorder=4,
                )
        if len(series.odd_x):
            first = int(np.argmin(series.odd_x))
            more = "" if len(series.odd_x) == 1 else f" and {len(series.odd_x) - 1:,} more"
            at = "epoch" if series.summaries else "step"
            step = format_number(float(series.odd_steps[first]))
            word = f"{series.odd_y[first]} at {at} {step}{more}"
            place = unit(series.odd_x[first : first + 1])[0]
            _word(axes, place, 0.985, word, color)
    marks = [mark for mark in chart.marks if mark.x > 0 or not log_x]
    feet = sorted(mark.x for mark in marks if mark.word == CHECKPOINT)
    if feet:
        places = unit(np.array(feet))
        how: dict[str, Any] = {"marker": "^", "markersize": 5, "linestyle": "none", "zorder": 4}
        where = axes.get_xaxis_transform()
        axes.plot(places, np.full(len(feet), 0.008), transform=where, color=_QUIET, **how)
        _word(axes, places[0], 0.015, "checkpoint" if len(feet) == 1 else "checkpoints", _QUIET)
    for mark in marks:
        if mark.word != CHECKPOINT:
            place = unit(np.array([mark.x]))[0]
            axes.axvline(place, color=_QUIET, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
            _word(axes, place, 0.08, mark.word, _QUIET)


def _word(axes: Axes, x: float, y: float, word: str, color: str) -> None:
    axes.annotate(
        word,
        (x, y),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5, 0),
        textcoords="offset points",
        va="bottom" if y < 0.5 else "top",
        size=7,
        color=color,
    )


def _legend(axes: Axes, ends: Iterable[tuple[float, float, str, Look]]) -> None:
    from matplotlib.lines import Line2D

    ends = list(ends)
    lines = [
        Line2D([], [], color=look.color, linestyle=(0, look.dash) if look.dash else "solid")
        for *_, look in ends[:_MOST_LEGEND]
    ]
    words = [text for _, _, text, _ in ends[:_MOST_LEGEND]]
    if len(ends) > _MOST_LEGEND:
        lines.append(Line2D([], [], linestyle="none"))
        words.append(f"and {len(ends) - _MOST_LEGEND:,} more")
    axes.legend(
        lines,
        words,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize=8,
        labelcolor=_TEXT,
        borderaxespad=0,
    )


def _spread(labels: list[Any]) -> None:
    """Move labels apart that would overlap, as little as that takes."""
    if len(labels) < 2:
        return
    axes = labels[0].axes
    height = axes.figure.dpi * 10.5 / 72  # of a line of text, in pixels
    wanted = [float(axes.transData.transform((label.xy[0], label.xy[1]))[1]) for label in labels]
    order = sorted(range(len(labels)), key=wanted.__getitem__)
    groups: list[list[float]] = []  # the middle of each run of touching labels, and their number
    for number in order:
        groups.append([wanted[number], 1])
        while len(groups) > 1 and (
            groups[-1][0] - groups[-2][0] < height * (groups[-1][1] + groups[-2][1]) / 2
        ):
            middle, count = groups.pop()
            before = groups[-1]
            before[0] = (before[0] * before[1] + middle * count) / (before[1] + count)
            before[1] += count
    places = [
        middle + height * (place - (count - 1) / 2)
        for middle, count in groups
        for place in range(int(count))
    ]
    for number, place in zip(order, places, strict=True):
        labels[number].xyann = (6, (place - wanted[number]) * 72 / axes.figure.dpi)
