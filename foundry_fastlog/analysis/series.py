"""What charts of metrics show: curves of runs, ranks or groups of runs, and marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.checkpoints import checkpoints_of
from foundry_fastlog.analysis.identity import (
    config_of,
    flatten,
    label_runs,
    nearest,
    pick_names,
)
from foundry_fastlog.analysis.points import Asked, Points, read_points
from foundry_fastlog.analysis.shaping import mean_of_runs, smooth, usual_distance
from foundry_fastlog.analysis.where_values import ABSENT
from foundry_fastlog.base.formatting import format_value, printable

if TYPE_CHECKING:
    from foundry_fastlog.reading.run import Run

__all__ = ["CHECKPOINT", "Chart", "Mark", "Series", "read_charts"]

_Array = np.ndarray[Any, Any]

#: The word of the marks of checkpoints.
CHECKPOINT = "checkpoint"
#: What is drawn where no metric is named: the first of each that a run has.
LOSSES = ("loss", "train_loss", "train/loss", "train.loss")
OTHER_LOSSES = ("val_loss", "valid_loss", "eval_loss", "val/loss", "val.loss", "test_loss")


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        metric: The metric.
        run: What its run is called, or the group of runs: ``seed=1``.
        rank: The rank that recorded it; None for a group.
        x: Where its finite values are, ascending.
        y: The values.
        smooth: The same, smoothed; None where nothing is.
        error: Standard error of a group's mean; None for a run.
        count: How many runs of a group have a value there; None for a run.
        odd_x: Where its NaN and infinities are.
        odd_y: Which they are.
        odd_steps: Their steps.
        runs: How many runs it is of.
        summaries: Whether it is of epoch summaries.
        unplaced: How many values have no place on the x axis.
    """

    metric: str
    run: str
    rank: int | None
    x: _Array
    y: _Array
    smooth: _Array | None = None
    error: _Array | None = None
    count: _Array | None = None
    odd_x: _Array = field(default_factory=lambda: np.empty(0))
    odd_y: _Array = field(default_factory=lambda: np.empty(0))
    odd_steps: _Array = field(default_factory=lambda: np.empty(0))
    runs: int = 1
    summaries: bool = False
    unplaced: int = 0

    @property
    def line(self) -> _Array:
        """What is drawn as its line: the smoothed values, or the values."""
        return self.y if self.smooth is None else self.smooth

    def to_dict(self, kept: _Array) -> dict[str, Any]:
        """Return it as JSON values, with the points of these numbers."""
        found: dict[str, Any] = {"metric": self.metric, "run": self.run, "rank": self.rank}
        found |= {"x": self.x[kept].tolist(), "y": self.y[kept].tolist()}
        for name in ("smooth", "error", "count"):
            if (values := getattr(self, name)) is not None:
                found[name] = values[kept].tolist()
        kinds = map(str, self.odd_y.tolist())
        odd = zip(self.odd_x.tolist(), self.odd_steps.tolist(), kinds, strict=True)
        found["nonfinite"] = [{"x": x, "step": step, "value": value} for x, step, value in odd]
        return found | {"runs": self.runs, "epoch_summaries": self.summaries}


@dataclass(frozen=True)
class Mark:
    """A place on the x axis that is marked with a word.

    Attributes:
        x: Where.
        word: What is there: ``start 1``, ``checkpoint``.
        run: The run's name.
    """

    x: float
    word: str
    run: str


@dataclass(frozen=True)
class Chart:
    """One metric, or several on the same axes.

    Attributes:
        title: The metric's name, or those of all.
        x: What the x axis is; see ``Asked``.
        series: Its curves, by metric, run and rank.
        marks: Where later starts of the runs began to record, and checkpoints.
    """

    title: str
    x: str
    series: list[Series]
    marks: list[Mark]


def read_charts(
    runs: Sequence[Run],
    metrics: str | Iterable[str] | None = None,
    asked: Asked | None = None,
    *,
    weight: float = 0.0,
    group_by: Sequence[str] = (),
    checkpoints: bool = False,
    overlay: bool | None = None,
) -> list[Chart]:
    """Read what charts of one or several runs show.

    Args:
        runs: The runs.
        metrics: Names or patterns of metrics. Default: the training and the validation loss, or
            the first metric that has numbers.
        asked: Which values, and what the x axis is.
        weight: How much the curves are smoothed, 0 to 1; see ``shaping.smooth``. Values are
            smoothed over their steps, whatever the x axis is, each run before runs are averaged.
            The unit of all is the median distance of the curve that has its values closest.
        group_by: Settings: runs that agree in all of them are one group, which is drawn as its mean
            and standard error; see ``shaping.mean_of_runs``. Dotted names below ``config``, or
            ``name``.
        checkpoints: Whether checkpoints are marked, too; see ``checkpoints_of``.
        overlay: Whether all metrics share their axes. Default: only where none is named.

    Returns:
        A chart for each metric, or one for all; none without any value.

    Raises:
        LookupError: Nothing fits a pattern, or no run has a setting or the metric of the x axis.
        ValueError: The smoothing is not between 0 and 1, or there are groups and several ranks.
        ImportError: The extension is missing; the message says how to build it.
    """
    smooth(np.empty(0), np.empty(0), weight)
    asked = asked or Asked()
    if group_by and (asked.ranks == "all" or len(asked.ranks or ()) > 1):
        raise ValueError("groups are of runs: choose one rank with --rank, or none")
    if weight or group_by:  # from buckets neither could be computed
        asked = replace(asked, points=None)
    names_of = [run.names() for run in runs]
    known = [name for names in names_of for name in names]
    labels = label_runs(runs)
    groups = _groups(runs, labels, group_by)
    if metrics is not None:
        tries = [pick_names(known, metrics, "metric")]
    else:  # a metric may have texts alone
        tries = [_losses(known)] if _losses(known) else [[name] for name in dict.fromkeys(known)]
    found: list[Series] = []
    marks: list[Mark] = []
    for chosen in tries:
        read = [
            read_points(run, [name for name in chosen if name in names], asked)
            for run, names in zip(runs, names_of, strict=True)
        ]
        if any(read):
            break
    else:
        return []
    stepped = [usual_distance(one.steps) for of in read for one in of if not one.summaries]
    unit = min((distance for distance in stepped if distance), default=None)
    for run, points, label, group in zip(runs, read, labels, groups, strict=True):
        for one in points:
            own = label if group is None else group
            found.append(_series_of(one, own, weight, None if one.summaries else unit))
        marks += _marks_of(points, label)
        if checkpoints and points:
            marks += [Mark(x, CHECKPOINT, label) for x in checkpoints_of(run, asked)]
    if group_by:
        found, marks = _averaged(found), []
    x = asked.x
    order = {name: number for number, name in enumerate(chosen)}
    found.sort(key=lambda one: order[one.metric])
    if overlay or (overlay is None and metrics is None):
        title = ", ".join(dict.fromkeys(one.metric for one in found))
        return [Chart(title, x, found, marks)]
    return [
        Chart(name, x, [one for one in found if one.metric == name], marks)
        for name in dict.fromkeys(one.metric for one in found)
    ]


def _losses(known: Iterable[str]) -> list[str]:
    there = set(known)
    found = [next((n for n in names if n in there), None) for names in (LOSSES, OTHER_LOSSES)]
    return [name for name in found if name]


def _groups(runs: Sequence[Run], labels: list[str], keys: Sequence[str]) -> list[str | None]:
    """Name the group of each run; None where none are asked for."""
    if not keys:
        return [None] * len(runs)
    settings = [
        {"name": label, **{f"config.{k}": v for k, v in flatten(config_of(run)).items()}}
        for run, label in zip(runs, labels, strict=True)
    ]
    known = dict.fromkeys(name for one in settings for name in one)
    full = []
    for key in keys:
        name = key if key in known else f"config.{key}"
        if name not in known:
            near = ", ".join(printable(one, 60) for one in nearest(name, known)[:8])
            raise LookupError(f"no run has the setting {printable(key)}; there are: {near}")
        full.append(name)
    return [
        ", ".join(
            f"{name.removeprefix('config.')}={_shown(one.get(name, ABSENT))}" for name in full
        )
        for one in settings
    ]


def _shown(value: object) -> str:
    return format_value(value) if value is not ABSENT else "-"


def _series_of(points: Points, label: str, weight: float, unit: float | None) -> Series:
    finite = np.isfinite(points.y)
    x, y = points.x[finite], points.y[finite]
    smoothed = None
    if weight:
        by_step = np.argsort(points.steps[finite], kind="stable")
        smoothed = np.empty(len(y))
        smoothed[by_step] = smooth(points.steps[finite][by_step], y[by_step], weight, unit)
    odd = ~finite
    return Series(
        points.metric,
        label,
        points.rank,
        x,
        y,
        smoothed,
        odd_x=points.x[odd],
        odd_y=points.y[odd],
        odd_steps=points.steps[odd],
        summaries=points.summaries,
        unplaced=points.unplaced,
    )


def _marks_of(points: Sequence[Points], label: str) -> list[Mark]:
    """Mark where the later starts of a run began to record any of its metrics."""
    firsts: dict[int, float] = {}
    for one in points:
        for start in np.unique(one.starts).tolist():
            x = float(one.x[one.starts == start].min())
            firsts[start] = min(x, firsts.get(start, x))
    return [Mark(firsts[start], f"start {start}", label) for start in sorted(firsts)[1:]]


def _averaged(found: list[Series]) -> list[Series]:
    """Average the curves of each metric and group."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for one in found:
        groups.setdefault((one.metric, one.run), []).append(one)
    averaged = []
    for (metric, name), members in groups.items():
        raw = mean_of_runs((one.x, one.y) for one in members)
        line = mean_of_runs((one.x, one.line) for one in members)
        odd_x, odd_y, odd_steps = (
            np.concatenate([getattr(one, part) for one in members])
            for part in ("odd_x", "odd_y", "odd_steps")
        )
        averaged.append(
            Series(
                metric,
                name,
                None,
                raw.x,
                raw.mean,
                None if members[0].smooth is None else line.mean,
                line.error,
                line.count,
                odd_x,
                odd_y,
                odd_steps,
                runs=len(members),
                summaries=members[0].summaries,
                unplaced=sum(one.unplaced for one in members),
            )
        )
    return averaged
