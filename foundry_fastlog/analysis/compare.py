"""Compare runs: configuration, code, metrics, timings, and where they first differ bit for bit."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.analysis.direction import is_more_better
from foundry_fastlog.analysis.exact import Difference, Exact, find_difference
from foundry_fastlog.analysis.identity import (
    code_of,
    config_of,
    differing,
    is_complete,
    label_runs,
    pick_names,
)
from foundry_fastlog.analysis.run_summary import state_of
from foundry_fastlog.analysis.where_values import ABSENT
from foundry_fastlog.base.arguments import exactly
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.reading.run import Run, read_run

if TYPE_CHECKING:
    from foundry_fastlog.reading.counting import Starts

__all__ = ["ComparedMetric", "ComparedRun", "ComparedTiming", "Comparison", "compare_runs"]

_Array = np.ndarray[Any, Any]
_Values = tuple[str, _Array, _Array]


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison.

    Attributes:
        name: Its name; of runs with the same name, what tells them apart.
        path: Its directory.
        code: The commit that its latest start had checked out, or ``""``.
        state: How it is doing; see ``state_of``.
        starts: How many starts it has.
        ranks: Its ranks.
        complete: Whether none of its metrics' lines is missing.
    """

    name: str
    path: Path
    code: str
    state: str
    starts: int
    ranks: tuple[int, ...]
    complete: bool


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of the lowest rank that recorded it, side by side: a value for each run.

    Attributes:
        name: The metric.
        more_is_better: Whether its best value is the largest; see ``is_more_better``.
        unit: What its steps are: ``step`` or ``epoch``.
        final: The last finite value; None where the run has none, likewise for the next.
        best: The best finite value.
        best_step: The first step that has it.
        count: How many finite values.
        nonfinite: How many NaN and infinities.
        area: The area under the curve by the trapezoidal rule, over the steps at which all runs
            that have the metric have finite values; None with less than two of these.
        area_steps: How many steps these are.
    """

    name: str
    more_is_better: bool
    unit: str
    final: tuple[float | None, ...]
    best: tuple[float | None, ...]
    best_step: tuple[float | None, ...]
    count: tuple[int, ...]
    nonfinite: tuple[int, ...]
    area: tuple[float | None, ...]
    area_steps: int


@dataclass(frozen=True)
class ComparedTiming:
    """A timed block, side by side: a value for each run, None where it has none.

    Attributes:
        name: The block; with the device in parentheses for the time on that device.
        count: How often it was timed.
        p50_s: Median duration, in seconds.
        mean_s: Mean duration, in seconds.
        p50_ratio: The median divided by the first run's; None where there is none to divide by.
        mean_ratio: The same of the mean.
    """

    name: str
    count: tuple[int, ...]
    p50_s: tuple[float | None, ...]
    mean_s: tuple[float | None, ...]
    p50_ratio: tuple[float | None, ...]
    mean_ratio: tuple[float | None, ...]


@dataclass(frozen=True)
class Comparison:
    """What ``compare_runs`` found.

    Attributes:
        runs: The runs, as they were given.
        config: The settings in which they differ, by dotted name: a value for each run, ``ABSENT``
            where it has none.
        metrics: The metrics, in the order of their first appearance.
        differences: For each metric, rank, and run after the first: how its values differ.
        timings: The timed blocks, those that took longest in the first run first.
    """

    runs: list[ComparedRun]
    config: dict[str, tuple[Any, ...]]
    metrics: list[ComparedMetric]
    differences: list[Difference]
    timings: list[ComparedTiming]

    @property
    def same(self) -> bool:
        """Whether all runs have the same values of these metrics at the same steps."""
        return all(difference.same for difference in self.differences)

    def first_difference(self, run: str | None = None) -> Difference | None:
        """Return the difference at the lowest step, of all runs or one; None where all agree.

        Args:
            run: The name of a run after the first.
        """
        found = [
            one for one in self.differences if one.first_step is not None and run in (None, one.run)
        ]
        return min(found, key=lambda one: (one.unit == "epoch", one.first_step), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; NaN and infinities as texts."""
        config = {
            name: [{"absent": True} if one is ABSENT else {"value": one} for one in row]
            for name, row in self.config.items()
        }
        found: dict[str, Any] = {"same": self.same, "config": config}
        for name in ("runs", "metrics", "differences", "timings"):
            found[name] = jsonable(getattr(self, name))
        return found


def compare_runs(
    *runs: Run | str | os.PathLike[str],
    metrics: str | Iterable[str] | None = None,
    starts: Starts = "latest",
    maximise: Iterable[str] = (),
) -> Comparison:
    """Compare runs with the first of them.

    Args:
        *runs: Two or more runs, or their directories.
        metrics: Names or patterns of metrics. Default: all.
        starts: Which values count, as for ``Run.lines``.
        maximise: Patterns of metrics of which more is better, beside those whose name says so.

    Raises:
        ImportError: numpy is not installed, or the extension is missing.
        LookupError: Nothing fits a pattern; the message names the nearest.
        RunNotFoundError: A directory is not a run.
        TypeError: Less than two runs.
        ValueError: An unknown start.
    """
    if len(runs) < 2:
        raise TypeError(f"compare_runs takes two or more runs, got {len(runs)}")
    opened = [one if isinstance(one, Run) else read_run(one) for one in runs]
    labels = label_runs(opened)
    known = list(dict.fromkeys(name for run in opened for name in run.names()))
    names = known if metrics is None else pick_names(known, metrics, "metric")
    wanted = None if metrics is None else exactly(names)
    exact = [Exact(run.arrow("metrics", names=wanted, starts=starts)) for run in opened]
    rows, differences = [], []
    maximise = tuple(maximise)
    for name in names:
        values = [read(name) for read in exact]
        if row := _row(name, [found[min(found)] if found else None for found in values], maximise):
            rows.append(row)
        for label, other in zip(labels[1:], values[1:], strict=True):
            for rank in sorted({*values[0], *other}):
                pair = values[0].get(rank), other.get(rank)
                differences.append(find_difference(name, rank, label, *pair))
    found = [_describe(run, label) for run, label in zip(opened, labels, strict=True)]
    settings = differing([config_of(run) for run in opened])
    return Comparison(found, settings, rows, differences, _timings(opened, starts))


def _describe(run: Run, label: str) -> ComparedRun:
    state = state_of(run.report_starts())
    complete = is_complete(run)
    return ComparedRun(label, run.path, code_of(run), state, len(run.starts), run.ranks, complete)


def _row(
    name: str, values: Sequence[_Values | None], maximise: Sequence[str]
) -> ComparedMetric | None:
    """Put the values of a metric side by side; None where no run has a number."""
    curves = [_numbers(found) for found in values]
    if not any(len(y) for _, y in curves):
        return None
    more = is_more_better(name, maximise)
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in curves]
    units = {found[0] for found in values if found is not None}
    area, common = _areas(finite) if len(units) == 1 else ([None] * len(values), 0)
    find = np.argmax if more else np.argmin
    best = [(float(y[find(y)]), x[find(y)].item()) if len(y) else (None, None) for x, y in finite]
    return ComparedMetric(
        name,
        more,
        "step" if "step" in units else "epoch",
        tuple(float(y[-1]) if len(y) else None for _, y in finite),
        tuple(value for value, _ in best),
        tuple(step for _, step in best),
        tuple(len(y) for _, y in finite),
        tuple(len(y) - len(f) for (_, y), (_, f) in zip(curves, finite, strict=True)),
        tuple(area),
        common,
    )


def _numbers(found: _Values | None) -> tuple[_Array, _Array]:
    """Return the steps and values of a metric that are numbers."""
    if found is None or found[2].dtype == object:
        return np.empty(0, np.int64), np.empty(0)
    return found[1], found[2].astype(float)


def _areas(curves: Sequence[tuple[_Array, _Array]]) -> tuple[list[float | None], int]:
    """Return the areas over the steps that all have, of each its last value; and their number."""
    kept = [np.append(x[1:] != x[:-1], np.ones(min(1, len(x)), bool)) for x, _ in curves]
    single = [(x[last], y[last]) for last, (x, y) in zip(kept, curves, strict=True)]
    steps = [x for x, _ in single if len(x)]
    common = steps[0] if steps else np.empty(0)
    for x in steps[1:]:
        common = common if np.array_equal(x, common) else np.intersect1d(common, x)
    areas: list[float | None] = [None] * len(curves)
    if len(common) > 1:
        widths = np.diff(common.astype(float))
        for number, (x, y) in enumerate(single):
            if len(x):
                heights = y[np.searchsorted(x, common)] / 2
                areas[number] = float(np.sum(widths * (heights[1:] + heights[:-1])))
    return areas, len(common)


def _timings(runs: Sequence[Run], starts: Starts) -> list[ComparedTiming]:
    found = []
    for run in runs:
        sums, _ = run.sums("performance", {}, starts=starts)
        timers = [] if sums is None else [one for one in sums.timers() if one["count"]]
        found.append({timer["name"]: timer for timer in timers})
    totals: dict[str, float] = {}
    for timers_of in found:
        for name, timer in timers_of.items():
            totals.setdefault(name, timer["total"])
    rows = []
    for name in sorted(totals, key=lambda name: -totals[name]):
        timed = [timers_of.get(name) for timers_of in found]
        p50 = tuple(None if one is None else percentile(one["ascending"], 0.5) for one in timed)
        mean = tuple(None if one is None else one["total"] / one["count"] for one in timed)
        count = tuple(0 if one is None else one["count"] for one in timed)
        rows.append(ComparedTiming(name, count, p50, mean, _ratios(p50), _ratios(mean)))
    return rows


def _ratios(values: tuple[float | None, ...]) -> tuple[float | None, ...]:
    first = values[0]
    return tuple(None if not first or one is None else one / first for one in values)
