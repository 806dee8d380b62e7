"""Compare the ranks of a run: which one is slow, since which step, in which block, at what cost.

**Scores** are those of NVIDIA's resiliency extension (straggler detection, usage guide and
``reporting.py``): for each block the lowest median of any rank divided by the rank's own median,
1 for the best rank, 0.5 for one that takes twice as long; and likewise against the lowest median
that the rank itself ever had in a window of steps. A rank's score is the mean of those of its
blocks, weighted by the time spent in them. Collectives are left out, as there.

**What if** follows "Understanding Stragglers in Large Model Training Using What-if Analysis"
(OSDI'25, arXiv 2505.05713), which simulates a job's operations with some durations replaced by
ideal ones. The model here is simpler, as blocks say no more: a step takes
``max over ranks of (sum of its own work) + shortest time in collectives``, where own work is all
blocks that are no collectives. In the ideal step each block takes the mean of all ranks in that
step. ``S`` is the sum of all steps divided by the sum of all ideal steps; ``S_w`` is the same where
rank w alone keeps its own times. Overlap of work and communication, and pipelines, are not in it.

**Waiting** in a collective is, there, the latest start of its group less a rank's own start. Where
all leave it together, that is a rank's time in it less the shortest of all ranks, which needs no
common clock; so it is taken here.

**Clocks** are compared by when ranks end the same collective (or else the same step): a rank's
offset is the median, over steps, of its end less the median rank's.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from foundry_fastlog.analysis.rank_hosts import hosts_of
from foundry_fastlog.analysis.rank_notes import notes_of
from foundry_fastlog.analysis.rank_results import (
    BlockOfRank,
    Clock,
    HeatMap,
    OneRank,
    RankComparison,
)
from foundry_fastlog.analysis.rank_search import find_phases, find_stragglers
from foundry_fastlog.analysis.rank_times import RankTimes, read_rank_times
from foundry_fastlog.analysis.stragglers import lower_median, windows_of
from foundry_fastlog.base.arguments import check_number, names_of, ranks_of
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run, read_run
from foundry_fastlog.run.files import StrPath

__all__ = ["COLLECTIVES", "compare_ranks"]

_Array = np.ndarray[Any, Any]

#: What the names of collectives have in them, if nobody says otherwise.
COLLECTIVES = re.compile(
    r"all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|barrier|collective"
    r"|(?<![a-z])sync(?!hronous)",
    re.IGNORECASE,
)
_MOST_ROWS, _MOST_COLUMNS = 512, 512  # of a heat map
_SHORT = 1e-3  # of a step: blocks that are too short for scores
_FEWEST_STEPS = 5  # that compare clocks


def compare_ranks(
    run: Run | StrPath,
    *,
    steps: tuple[int | None, int | None] | None = None,
    ranks: int | Iterable[int] | None = None,
    starts: Starts = "latest",
    block: str | None = None,
    collectives: str | Iterable[str] | None = None,
    threshold: float = 0.9,
    ranks_per_host: int | None = None,
) -> RankComparison:
    """Compare the ranks of a run by its timed blocks.

    Args:
        run: The run, or its directory.
        steps: The first and the last step to look at; None for no bound.
        ranks: Only these ranks, such as those of one pipeline stage.
        starts: As for ``Run.lines``.
        block: The block that the heat map shows, and in which stragglers are looked for. Default:
            all.
        collectives: Names or patterns of blocks in which ranks wait for each other. Default: what
            looks like one: ``all_reduce``, ``barrier``, ``grad_sync``, ...
        threshold: The score below which a rank is slow, between 0 and 1.
        ranks_per_host: How many ranks a host has, where they are numbered host by host. Default:
            what the run's starts say.

    Returns:
        Times, scores, stragglers, slowdown, clocks and a heat map. ``notes`` says what could not be
        told: of a run with one rank, without timings, or with too few steps.

    Raises:
        RunNotFoundError: The path is not a run.
        ImportError: The extension is missing; the message says how to build it.
        LookupError: There is no such block, or none of these steps; the message says which there
            are.
        TypeError: An option has a wrong type.
        ValueError: An unknown start, or an option has a wrong value.
    """
    run = run if isinstance(run, Run) else read_run(run)
    check_number("threshold", threshold, 0.01, 0.999)
    if ranks_per_host is not None:
        check_number("ranks_per_host", ranks_per_host, 1, 1 << 31, whole=True)
    patterns = None if collectives is None else names_of(collectives)
    chosen = None if ranks is None else ranks_of(ranks)
    is_collective = functools.partial(_is_collective, patterns)
    times = read_rank_times(run, is_collective, steps=steps, ranks=chosen, starts=starts)
    if block is not None and times.names and block not in times.names:
        known = ", ".join(times.names)
        raise LookupError(f"no block is called {block!r}; there are: {known}")
    joint = np.array([is_collective(name) for name in times.names], bool)
    found = _Figures(times, joint)
    hosts = hosts_of(run, times.ranks, starts, ranks_per_host)
    stragglers, phases = [], []
    if len(times.ranks) > 1:
        stragglers = find_stragglers(times, joint, found.work, hosts, threshold, block)
        phases = find_phases(times, joint, stragglers, threshold, block)
    return RankComparison(
        path=run.path,
        ranks=tuple(found.rank(row, hosts) for row in range(len(times.ranks))),
        blocks=tuple(found.blocks()),
        first_step=int(times.steps[0]) if len(times.steps) else None,
        last_step=times.last_step(-1) if len(times.steps) else None,
        steps=len(times.steps),
        width=times.width,
        stragglers=tuple(stragglers),
        phases=tuple(phases),
        slowdown=found.slowdown,
        ideal_s=found.ideal_s,
        clocks_from=found.clocks_from,
        threshold=threshold,
        notes=tuple(notes_of(run, times, joint, hosts, len(stragglers))),
        heat_map=_heat_map(times, found.work, block),
    )


def _is_collective(patterns: Sequence[str] | None, name: str) -> bool:
    if patterns is None:
        return COLLECTIVES.search(name) is not None
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _quiet(function: Any) -> Any:  # noqa: ANN401 - a function
    """Do not warn of rows or columns that have no value at all: these are NaN."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning)
            return function(*args, **kwargs)

    return wrapped


_median = _quiet(np.nanmedian)
_mean = _quiet(np.nanmean)
_least = _quiet(np.nanmin)


class _Figures:
    """The figures of ranks and blocks.

    Attributes:
        work: Own work per rank and column, NaN where the rank has no such step.
        slowdown: S; None where it cannot be told.
        ideal_s: What S is relative to; None likewise.
        clocks_from: What clocks are compared by.
    """

    def __init__(self, times: RankTimes, joint: _Array) -> None:
        self._times = times
        self._joint = joint
        host = ~np.array(times.on_device, bool)
        self._there = ~np.isnan(times.ends)
        self.work = self._sum(host & ~joint)
        self._in_joint = self._sum(host & joint)
        self._shortest = np.fmin.reduce(self._in_joint, axis=0, initial=np.nan)
        self._medians = _median(times.own_s, axis=2) if times.own_s.size else None
        self._scores = self._score()
        self._history = [self._own_history(number) for number in range(len(times.names))]
        self.slowdown: float | None = None
        self.ideal_s: float | None = None
        self._slowdowns = self._what_if()
        several = (~np.isnan(times.joint)).sum(axis=0) > 1
        marks = times.joint if several.sum() >= _FEWEST_STEPS else times.ends
        self.clocks_from = "collectives" if marks is times.joint else "steps"
        self._clocks = _clocks(marks)
        if not any(self._clocks):
            self.clocks_from = ""

    def _sum(self, chosen: _Array) -> _Array:
        found = np.zeros(self._there.shape, "f4")
        for number in np.flatnonzero(chosen):
            found += np.nan_to_num(self._times.own_s[number])
        found[~self._there] = np.nan
        return found

    def _step(self, row: int) -> _Array:
        """Return the time of all blocks of a rank in each step."""
        found: _Array = self.work[row] + self._in_joint[row]
        return found

    def _score(self) -> _Array | None:
        """Return the best rank's median over each rank's, blocks x ranks."""
        if self._medians is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            found: _Array = _least(self._medians, axis=1)[:, None] / self._medians
        found[self._joint] = np.nan
        # What takes next to nothing, such as a step beside its blocks, has no speed of its own.
        step = float(_median([_median(self._step(row)) for row in range(len(self._there))]))
        found[_median(self._medians, axis=1) < _SHORT * step] = np.nan
        return found

    def _own_history(self, number: int) -> _Array:
        """Return by rank the lowest median of a window over the last one."""
        windows = windows_of(self._times.own_s[number])
        if not windows.shape[1]:
            return np.full(len(windows), np.nan)
        known = ~np.isnan(windows)
        last = windows.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
        latest = windows[np.arange(len(windows)), last]
        with np.errstate(invalid="ignore", divide="ignore"):
            found: _Array = _least(windows, axis=1) / latest
        return found

    def _what_if(self) -> list[float | None]:
        """Find S, and return S_w by rank; see the head of this file."""
        shared = self._there.sum(axis=0) > 1
        nothing: list[float | None] = [None] * len(self._times.ranks)
        if not shared.any():
            return nothing
        work = self.work[:, shared]
        joint = self._shortest[shared].astype("f8")
        mean = _mean(work, axis=0, dtype="f8")
        ideal = float((mean + joint).sum())
        if ideal <= 0:
            return nothing
        total = float((np.nanmax(work, axis=0).astype("f8") + joint).sum())
        alone = [float((np.fmax(one, mean) + joint).sum()) / ideal for one in work]
        self.slowdown, self.ideal_s = total / ideal, ideal * self._times.width
        return list(alone)

    def rank(self, row: int, hosts: dict[int, str]) -> OneRank:
        """Describe a rank."""
        rank = self._times.ranks[row]
        step = self._step(row)
        wait_s = share = None
        if self._joint.any():
            waits = self._in_joint[row] - self._shortest
            wait_s = float(_median(waits))
            share = _share(_total(waits), _total(step))
        return OneRank(
            rank=rank,
            host=hosts.get(rank, ""),
            steps=int(self._there[row].sum()),
            step_s=float(_median(step)),
            work_s=float(_median(self.work[row])),
            wait_s=wait_s,
            wait_share=share,
            score=self._weighted(row, None if self._scores is None else self._scores[:, row]),
            history_score=self._weighted(row, np.array([one[row] for one in self._history])),
            slowdown=self._slowdowns[row],
            clock=self._clocks[row],
        )

    def _weighted(self, row: int, scores: _Array | None) -> float | None:
        """Return the mean of scores of blocks, weighted by the time in them."""
        if scores is None or len(self._times.ranks) < 2:
            return None
        weights = np.nansum(self._times.own_s[:, row], axis=1, dtype="f8")
        weights[self._joint | np.isnan(scores)] = 0.0
        total = float(weights.sum())
        return float((weights * np.nan_to_num(scores)).sum() / total) if total > 0 else None

    def blocks(self) -> list[BlockOfRank]:
        """Describe each block on each rank, the blocks by their time."""
        times = self._times
        totals = np.array(times.spent())
        spent = [_total(self._step(row)) for row in range(len(times.ranks))]
        found = []
        for number in np.argsort(-totals, kind="stable").tolist():
            name = times.names[number]
            for row, rank in enumerate(times.ranks):
                stats = times.stats.get((name, rank))
                if stats is None:
                    continue
                own = _total(times.own_s[number, row])
                found.append(
                    BlockOfRank(
                        block=name,
                        rank=rank,
                        collective=bool(self._joint[number]),
                        count=stats.count,
                        median_s=stats.median_s,
                        p95_s=stats.p95_s,
                        own_s=_known(self._medians[number, row]) or 0.0,  # type: ignore[index]
                        share=None if times.on_device[number] else _share(own, spent[row]),
                        score=None if len(times.ranks) < 2 else _known(self._scores[number, row]),  # type: ignore[index]
                        history_score=_known(self._history[number][row]),
                    )
                )
        return found


def _total(seconds: _Array) -> float:
    return float(np.nansum(seconds, dtype="f8"))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _clocks(ends: _Array) -> list[Clock | None]:
    """Compare clocks by when ranks ended the same steps."""
    shared = (~np.isnan(ends)).sum(axis=0) > 1
    if not shared.any():
        return [None] * len(ends)
    common = lower_median(ends[:, shared])
    found: list[Clock | None] = []
    for row in ends:
        ahead = row[shared] - common
        known = ahead[~np.isnan(ahead)]
        if len(known) < _FEWEST_STEPS:
            found.append(None)
            continue
        offset = float(np.median(known))
        spread = 1.4826 * float(np.median(np.abs(known - offset)))
        found.append(Clock(offset, spread, len(known)))
    return found


def _heat_map(times: RankTimes, work: _Array, block: str | None) -> HeatMap | None:
    """Bucket the times of ranks by steps."""
    if not times.names:
        return None
    shown = work if block is None else times.own_s[times.names.index(block)]
    shown = shown[:_MOST_ROWS]
    size = -(-shown.shape[1] // _MOST_COLUMNS)
    rest = -shown.shape[1] % size
    padded = np.pad(shown, ((0, 0), (0, rest)), constant_values=np.nan)
    cells = lower_median(padded.reshape(len(shown), -1, size), axis=2)
    typical = float(_median(cells))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = cells / typical if typical > 0 else np.where(np.isnan(cells), np.nan, 1.0)
    return HeatMap(
        ranks=times.ranks[:_MOST_ROWS],
        steps=tuple(times.steps[::size].tolist()),
        last_step=times.last_step(-1),
        width=size * times.width,
        block=block or "",
        typical_s=typical,
        ratio=ratio,
    )
