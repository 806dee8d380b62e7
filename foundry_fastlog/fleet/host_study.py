"""What one run says of its hosts, by `compare_ranks`: which was the slowest, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median, median_low
from typing import Any

from foundry_fastlog.analysis.rank_hosts import named_hosts
from foundry_fastlog.analysis.rank_results import OneRank, RankComparison
from foundry_fastlog.analysis.ranks import compare_ranks
from foundry_fastlog.analysis.stragglers import LEAST_STEPS
from foundry_fastlog.reading.run import Run

__all__ = ["study_hosts"]


def study_hosts(run: Run) -> dict[str, Any]:
    """Compare the ranks of each start of a run by their hosts, on a worker.

    Hosts may differ from start to start, so starts are compared one by one.
    """
    starts = []
    for report in run.report_starts():
        if len(report.ranks) < 2:
            continue
        found = compare_ranks(run, starts=report.number)
        if len(found.ranks) > 1:
            names = named_hosts(run, [one.rank for one in found.ranks], report.number)
            seen = report.ended or report.started
            starts.append({"seen": seen, **_compare_hosts(found, names)})
    return {"starts": starts, "complete": not (run.unread or run.problems)}


def _compare_hosts(found: RankComparison, names: Mapping[int, str]) -> dict[str, Any]:
    """Say which rank was the slowest, and of each host that has a name how slow it was."""
    typical_s = median_low([one.work_s for one in found.ranks])
    beside = median([one.slowdown or 1.0 for one in found.ranks])
    stragglers = {rank for one in found.stragglers for rank in one.ranks}
    hosts: dict[str, list[OneRank]] = {}
    for one in found.ranks:
        if one.rank in names:
            hosts.setdefault(names[one.rank], []).append(one)
    return {
        "ranks": len(found.ranks),
        "steps": found.steps,
        "slowest": _slowest(found),
        "has_straggler": bool(stragglers),
        "hosts": {
            name: {
                "ranks": [one.rank for one in ranks],
                "ratio": _ratio(max(one.work_s for one in ranks), typical_s),
                # What one rank alone adds to the run, beyond what the median rank adds by chance.
                "lost_s": (found.ideal_s or 0.0)
                * max(0.0, max(one.slowdown or 1.0 for one in ranks) - beside),
                "straggler": any(one.rank in stragglers for one in ranks),
            }
            for name, ranks in hosts.items()
        },
    }


def _slowest(found: RankComparison) -> int | None:
    """Return the rank that was the slowest; None where that is not one, or steps are too few.

    That is the costliest straggler, or else who took longest for its own work in the median step.
    """
    if found.steps < LEAST_STEPS:
        return None
    among: Sequence[int] = found.stragglers[0].ranks if found.stragglers else ()
    times = {one.rank: one.work_s for one in found.ranks if not among or one.rank in among}
    longest = max(times.values())
    ranks = [rank for rank, seconds in times.items() if seconds == longest]
    return ranks[0] if len(ranks) == 1 or among else None


def _ratio(seconds: float, typical_s: float) -> float | None:
    ratio = seconds / typical_s if typical_s > 0 else math.nan
    return ratio if math.isfinite(ratio) else None
