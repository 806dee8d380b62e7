"""How the timed blocks of a run are nested, from the first of their lines."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

import orjson

from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.run import Run

__all__ = ["SAMPLED", "parents_of"]

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
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for _, raw in islice(run.raw_lines(["performance"], starts=starts), SAMPLED):
        line = orjson.loads(raw)
        if not is_marker(line):
            spent[line["name"]][line.get("parent") or ""] += line["duration_s"]
    found: dict[str, str] = {}
    for name, parents in spent.items():
        parent = max(parents, key=lambda one: parents[one])
        above = parent
        while above and above != name:
            above = found.get(above, "")
        if parent and not above:
            found[name] = parent
    return found
