"""Which ranks of a run share a host."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.start_entries import read_entry

__all__ = ["hosts_of", "named_hosts"]

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
    count = per_host or _count_of(entry)
    if count is None:
        return {}
    named = {rank // count: name for rank, name in _told(entry)}
    return {rank: named.get(rank // count, f"host {rank // count}") for rank in ranks}


def named_hosts(run: Run, ranks: Sequence[int], start: int) -> dict[int, str]:
    """Return the host of each rank in a start whose host has a name that other runs know, too.

    Args:
        run: The run.
        ranks: The ranks that are asked for.
        start: The start.
    """
    entry = read_entry(run.path, start)
    # Without the number of ranks of a host, a name is that of the rank alone that told it.
    count = _count_of(entry) or 1
    named = {rank // count: name for rank, name in _told(entry)}
    return {rank: named[rank // count] for rank in ranks if rank // count in named}


def _count_of(entry: Mapping[str, Any]) -> int | None:
    """Return how many ranks a host has."""
    count = entry.get("local_world_size")
    return count if type(count) is int and count > 0 else None


def _told(entry: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the ranks that say on which host they are, and their hosts."""
    began, name = entry.get("rank"), entry.get("host")
    if isinstance(name, str) and name:
        yield began if type(began) is int else 0, printable(name, _LONGEST)
