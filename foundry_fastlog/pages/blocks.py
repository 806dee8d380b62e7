"""The timed blocks of a run: how they are nested, and how long each rank took for them."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from typing import Any

import orjson

from foundry_fastlog.analysis.accumulate import percentile
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.run import Run

__all__ = ["SAMPLED", "medians_by_rank", "parents_of"]

_MOST_RANKS = 256

#: Lines that are looked at: a training repeats its blocks.
SAMPLED = 20_000


def parents_of(run: Run, starts: Starts) -> dict[str, str]:
    """Say which block each timed block is in.

    Args:
        run: The run.
        starts: Which starts count.

    Returns:
        By name the block that it spent most of its time in; outermost blocks are absent. A block
        never leads back to itself.
    """
    spent: dict[str, dict[str | None, float]] = defaultdict(lambda: defaultdict(float))
    for _, raw in islice(run.raw_lines(["performance"], starts=starts), SAMPLED):
        line = orjson.loads(raw)
        if not is_marker(line):
            spent[line["name"]][line.get("parent")] += line["duration_s"]
    found: dict[str, str] = {}
    for name, parents in spent.items():
        parent = max(parents, key=lambda one: parents[one])
        above = parent
        while above is not None and above != name:
            above = found.get(above)
        if parent is not None and above is None:
            found[name] = parent
    return found


def medians_by_rank(run: Run, starts: Starts, names: list[str]) -> dict[str, Any]:
    """Return the median seconds of blocks by rank.

    Args:
        run: The run.
        starts: Which starts count.
        names: The blocks.

    Returns:
        ``ranks``, of which there are 256 at most, and ``medians``: for each name one for each rank,
        None where that has no such block. Empty for a run with one rank.
    """
    ranks = run.ranks[:_MOST_RANKS]
    if len(ranks) < 2 or not names:
        return {}
    rows: list[dict[str, float]] = []
    for rank in ranks:
        found, _ = run.sums("performance", {}, starts=starts, ranks=rank)
        timers = found.timers() if found else []
        rows.append({one["name"]: percentile(one["ascending"], 0.5) for one in timers})
    return {
        "ranks": list(ranks),
        "medians": {name: [row.get(name) for row in rows] for name in names},
    }
