"""How the curves of charts look, and what is to be said of them, in a terminal and in figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.series import CHECKPOINT
from foundry_fastlog.analysis.shaping import thin
from foundry_fastlog.base.formatting import format_number, printable
from foundry_fastlog.show.axes import axis_words
from foundry_fastlog.show.palette import COLORS, DASHES, styles_of

if TYPE_CHECKING:
    from foundry_fastlog.analysis.series import Chart, Series

__all__ = ["Look", "Looks", "charts_to_json", "enough", "last_value", "notes_of", "visible"]

_COLUMNS = 2000


@dataclass(frozen=True)
class Look:
    """How a curve looks.

    Attributes:
        label: What it is called: what tells it from the others, or else its metric.
        color: As ``#rrggbb``.
        dash: Lengths of lines and gaps; empty for a solid line.
    """

    label: str
    color: str
    dash: tuple[float, ...]


class Looks:
    """The looks of all curves of some charts.

    The colour is that of the run's name; of one run, that of the metric's name where metrics share
    axes, or else of the rank. Where runs have several metrics or ranks on the same axes, these
    have dashes.

    Args:
        charts: The charts.
    """

    def __init__(self, charts: Sequence[Chart]) -> None:
        everything = [one for chart in charts for one in chart.series]
        self._runs = len({one.run for one in everything}) > 1
        self._metrics = any(len({one.metric for one in chart.series}) > 1 for chart in charts)
        self._ranks = len({one.rank for one in everything}) > 1
        self._styles = styles_of(map(self._name, everything))
        self._others = list(dict.fromkeys(map(self._other, everything)))

    def __call__(self, series: Series) -> Look:
        """Return the look of a curve."""
        color, dash = self._styles[self._name(series)]
        if self._runs:
            dash += self._others.index(self._other(series))
        several = {
            series.run: self._runs,
            series.metric: self._metrics,
            f"rank {series.rank}": self._ranks,
        }
        label = " ".join(word for word, tells in several.items() if tells) or series.metric
        return Look(printable(label), COLORS[color], DASHES[dash % len(DASHES)])

    def _name(self, series: Series) -> str:
        if self._runs or not (self._metrics or self._ranks):
            return series.run
        return series.metric if self._metrics else f"rank {series.rank}"

    def _other(self, series: Series) -> tuple[str, int | None]:
        return series.metric if self._metrics else "", series.rank


def visible(series: Series, *, log_x: bool, log_y: bool) -> tuple[Series, int]:
    """Leave out what has no place on logarithmic axes; say how many values that is."""
    shown = np.ones(len(series.x), bool)
    if log_x:
        shown &= series.x > 0
    if log_y:
        shown &= series.line > 0
    if shown.all():
        return series, 0
    parts = ("x", "y", "smooth", "error", "count")
    kept: dict[str, Any] = {
        name: None if (p := getattr(series, name)) is None else p[shown] for name in parts
    }
    return replace(series, **kept), int((~shown).sum())


def notes_of(
    chart: Chart, *, hidden: int = 0, weight: float = 0.0, world: int = 1, ranked: bool = False
) -> list[str]:
    """Say what a chart does not show by itself.

    Args:
        chart: The chart.
        hidden: How many values are not on logarithmic axes.
        weight: How much its curves are smoothed.
        world: How many ranks the runs have at most.
        ranked: Whether somebody asked for ranks.
    """
    name, write = axis_words(chart.x)
    several = len(chart.series) > 1
    notes = [f"smoothed {weight:g}"] if weight else []
    groups = {one.run: one.runs for one in chart.series if one.error is not None}
    if groups:
        counts = ", ".join(f"{printable(run)} {runs}" for run, runs in groups.items())
        notes.append(f"mean and standard error over runs: {counts}")
    if world > 1 and not ranked:
        ranks = sorted({one.rank for one in chart.series if one.rank is not None})
        said = " and ".join(map(str, ranks[:3])) or "the lowest"
        notes.append(f"rank {said} of {world}; --ranks draws each")
    for one in chart.series:
        whose = f"{printable(one.run)} {printable(one.metric)}" if several else "values"
        if one.summaries:
            notes.append(f"{whose}: of epoch summaries")
        if len(one.odd_x):
            first, count = int(np.argmin(one.odd_x)), len(one.odd_x)
            kind, at = str(one.odd_y[first]), write(float(one.odd_x[first]))
            more = "" if count == 1 else f", {count:,} NaN or infinite in all"
            notes.append(f"{whose}: {kind} at {name} {at}{more}")
        if one.unplaced:
            notes.append(f"{whose}: {one.unplaced:,} without {name} are not shown")
    if hidden:
        notes.append(f"at or below 0, so not on a logarithmic axis: {hidden:,}")
    saved: dict[str, list[str]] = {}
    for mark in chart.marks:
        if mark.word == CHECKPOINT:
            saved.setdefault(mark.run, []).append(write(mark.x))
        else:
            notes.append(f"{mark.word} of {printable(mark.run)} began at {name} {write(mark.x)}")
    for run, places in saved.items():
        notes.append(f"checkpoints of {printable(run)} at {name} {enough(places, 6)}")
    return notes


def charts_to_json(charts: Sequence[Chart], *, log_x: bool = False) -> dict[str, Any]:
    """Return charts as JSON values, each curve with the points that a wide screen needs."""
    return {
        "charts": [
            {
                "title": chart.title,
                "x": chart.x,
                "series": [_series_to_json(one, log_x=log_x) for one in chart.series],
                "marks": [asdict(mark) for mark in chart.marks],
            }
            for chart in charts
        ]
    }


def _series_to_json(series: Series, *, log_x: bool) -> dict[str, Any]:
    series, _ = visible(series, log_x=log_x, log_y=False)
    kept = np.union1d(*(thin(series.x, y, _COLUMNS, log=log_x) for y in (series.y, series.line)))
    return series.to_dict(kept)


def last_value(series: Series) -> str:
    """Write the last value of a curve; of a smoothed one the smoothed value."""
    return format_number(float(series.line[-1])) if len(series.x) else "-"


def enough(names: Iterable[str], most: int) -> str:
    """Name things, so many at most."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(printable(name, 40) for name in names[:most]) + more
