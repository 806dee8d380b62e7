"""Which ranks of a run share a host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.counting import Starts
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.start_entries import read_entry, read_hosts

__all__ = ["hosts_of", "named_hosts"]

_LONGEST = 64  # characters of a host's name


def hosts_of(
    run: Run, ranks: Sequence[int], starts: Starts, per_host: int | None = None
) -> dict[int, str]:
    """Return the host of each rank, as far as it is known.

    Launchers number ranks host by host, so the number of ranks of a host says which ones share one.
    A start says it as ``local_world_size``, and names the host of the rank that began it; so does
    a rank of each other host. Those that did not are called by their number: ``host 3``.

    Args:
        run: The run.
        ranks: The ranks that are asked for.
        starts: Which starts count; of several the latest.
        per_host: How many ranks a host has, where the caller knows it.
    """
    numbers = [starts] if isinstance(starts, int) else sorted(run.starts, reverse=True)
    entry: dict[str, Any] = {}
    told: dict[int, str] = {}
    for number in numbers:
        entry = read_entry(run.path, number)
        if entry:
            told = _told(run, number, entry)
            break
    count = per_host or _count_of(entry)
    named = None if count is None else _by_block(told, count)
    if count is None or named is None:
        return {}
    return {rank: named.get(rank // count, f"host {rank // count}") for rank in ranks}


def named_hosts(run: Run, ranks: Sequence[int], start: int) -> dict[int, str]:
    """Return the host of each rank in a start whose host has a name that other runs know, too.

    Args:
        run: The run.
        ranks: The ranks that are asked for.
        start: The start.
    """
    entry = read_entry(run.path, start)
    told, count = _told(run, start, entry), _count_of(entry)
    named = None if count is None else _by_block(told, count)
    if count is None or named is None:  # then a name is that of the rank alone that told it
        return {rank: told[rank] for rank in ranks if rank in told}
    return {rank: named[rank // count] for rank in ranks if rank // count in named}


def _count_of(entry: Mapping[str, Any]) -> int | None:
    """Return how many ranks a host has."""
    count = entry.get("local_world_size")
    return count if type(count) is int and count > 0 else None


def _told(run: Run, number: int, entry: Mapping[str, Any]) -> dict[int, str]:
    """Return the hosts of the ranks that said on which they are."""
    told = read_hosts(run.path, number)
    began, name = entry.get("rank"), entry.get("host")
    if isinstance(name, str) and name:
        told[began if type(began) is int else 0] = name
    return {rank: printable(host, _LONGEST) for rank, host in told.items()}


def _by_block(told: Mapping[int, str], count: int) -> dict[int, str] | None:
    """Return the hosts by their number; None where ranks are not numbered host by host."""
    named: dict[int, str] = {}
    for rank, host in told.items():
        if named.setdefault(rank // count, host) != host:
            return None
    return named
