"""Which ranks of a run share a host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.start_entries import read_entry

__all__ = ["hosts_of"]

_LONGEST = 64  # characters of a host's name


def hosts_of(
    run: Run, ranks: Sequence[int], starts: Starts, per_host: int | None = None
) -> dict[int, str]:
    """Return the host of each rank, as far as it is known.

    Launchers number ranks host by host, so the number of ranks of a host says which ones share one.
    A start says it as ``local_world_size``, and names the host of the rank that began it; the
    others are called by their number: ``host 3``.

    Args:
        run: The run.
        ranks: The ranks that are asked for.
        starts: Which starts count; of several the latest.
        per_host: How many ranks a host has, where the caller knows it.
    """
    numbers = [starts] if isinstance(starts, int) else sorted(run.starts, reverse=True)
    entry: dict[str, Any] = {}
    for number in numbers:
        entry = read_entry(run.path, number)
        if entry:
            break
    count = per_host or entry.get("local_world_size")
    if type(count) is not int or count < 1:
        return {}
    began, name = entry.get("rank"), entry.get("host")
    named: dict[int, str] = {}
    if isinstance(name, str) and name:
        named[(began if type(began) is int else 0) // count] = printable(name, _LONGEST)
    return {rank: named.get(rank // count, f"host {rank // count}") for rank in ranks}
