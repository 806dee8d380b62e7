"""What a reader of a comparison of ranks has to know: what could not be told, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from foundry_fastlog.analysis.rank_results import numbers_said
from foundry_fastlog.analysis.rank_times import RankTimes
from foundry_fastlog.analysis.stragglers import LEAST_STEPS
from foundry_fastlog.reading.run import Run

__all__ = ["notes_of"]

_Array = np.ndarray[Any, Any]


def notes_of(
    run: Run, times: RankTimes, joint: _Array, hosts: dict[int, str], stragglers: int
) -> list[str]:
    """Say what could not be told, and why."""
    if "performance" not in run.streams:
        return ["the run has no timings: record some with Recorder.timer(name, step=step)"]
    found = []
    if times.without_step:
        found.append(
            f"timed blocks without a step are left out ({times.without_step:,} of them): "
            "Recorder.timer(name, step=step) gives them one"
        )
    if not times.ranks:
        return found or ["none of these ranks timed a block"]
    if len(times.ranks) == 1:
        found.append(
            f"only rank {times.ranks[0]} timed blocks: there is nothing to compare it with"
        )
    elif len(times.steps) < LEAST_STEPS:
        found.append(
            f"{len(times.steps)} steps are too few to find stragglers: {LEAST_STEPS} are needed"
        )
    elif (shared := int(((~np.isnan(times.ends)).sum(axis=0) > 1).sum())) < LEAST_STEPS:
        found.append(
            f"only {shared} steps were timed by two ranks or more: {LEAST_STEPS} are needed to "
            "find stragglers"
        )
    if early := _ended_early(times):
        found.append(early)
    if len(times.ranks) > 1 and not joint.any():
        found.append(
            "no block is named as a collective, so waiting is not told from work, and S is too low "
            "where ranks wait in a block; --collective NAME names one"
        )
    if stragglers > 1 and len(hosts) < len(times.ranks):
        found.append("which ranks share a host is not known; --ranks-per-host N says it")
    if times.width > 1:
        found.append(f"times are means over {times.width} steps each: there are very many of them")
    return found


def _ended_early(times: RankTimes) -> str:
    """Say which ranks have no times in the last steps: they ended, or are behind; "" for none."""
    known = ~np.isnan(times.ends)
    lasts = known.shape[1] - 1 - np.argmax(known[:, ::-1], axis=1)
    early = lasts < lasts.max() - LEAST_STEPS
    if not early.any():
        return ""
    ranks = tuple(rank for rank, one in zip(times.ranks, early.tolist(), strict=True) if one)
    who = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {numbers_said(ranks)}"
    step = times.last_step(int(lasts[early].max()))
    return f"{who} timed no step after {step:,}; others came to {times.last_step(-1):,}"
