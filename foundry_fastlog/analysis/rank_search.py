"""Which ranks, hosts and phases are slow: what `stragglers` finds, block by block, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from foundry_fastlog.analysis.rank_results import Phase, Straggler
from foundry_fastlog.analysis.rank_times import RankTimes
from foundry_fastlog.analysis.stragglers import WINDOW, Shift, find_shared, find_slow

__all__ = ["find_phases", "find_stragglers"]

_Array = np.ndarray[Any, Any]

_WORTH = 0.01  # of a step: what is lost has to be more
_OF_A_HOST = 0.75  # of its ranks are slow together
_COMPARED = 4  # stragglers of a block that others may wait for
_OPPOSED = -0.6  # the correlation of work and of waiting for it
_ENOUGH = 2048  # steps that show it


def _worth(times: RankTimes) -> float:
    """Return seconds a step that are worth naming."""
    spent = sum(s for s, apart in zip(times.spent(), times.on_device, strict=True) if not apart)
    steps = int((~np.isnan(times.ends)).sum()) * times.width
    return _WORTH * spent / steps if steps else 0.0


def find_stragglers(
    times: RankTimes,
    joint: _Array,
    work: _Array,
    hosts: dict[int, str],
    threshold: float,
    block: str | None,
) -> list[Straggler]:
    """Find ranks that are slow by themselves, and in which block.

    Args:
        times: The times of blocks by rank and step.
        joint: Which blocks are collectives.
        work: Own work per rank and step.
        hosts: The hosts of ranks, as far as they are known.
        threshold: The score below which a rank is slow.
        block: Only this block.

    Returns:
        The costliest first.
    """
    least = _worth(times)
    found = []
    for number, name in enumerate(times.names):
        if not joint[number] and block in (None, name):
            shifts = find_slow(times.own_s[number], threshold, least)
            found += [_straggler(times, name, shift) for shift in shifts]
    found = _without_waiting(found, times, joint)
    if block is None:
        # Work in blocks that other ranks do not have, and slowness spread over many small blocks.
        named = {one.ranks[0] for one in found}
        for shift in find_slow(work, threshold, least):
            if times.ranks[shift.rank] not in named:
                found.append(_straggler(times, _own_block(times, joint, shift), shift))
    merged = [*_merged_by_host(found, hosts, times)]
    return sorted(merged, key=lambda one: -_cost(one, times))


def _without_waiting(found: list[Straggler], times: RankTimes, joint: _Array) -> list[Straggler]:
    """Leave out ranks that wait, within a block, for others that are slow.

    Half of the ranks may be slow. Where they wait for each other in a block that is no collective,
    as in a backward pass that sums gradients, the others are as much slower there.
    """
    costliest: dict[str, list[Straggler]] = defaultdict(list)
    for one in sorted(found, key=lambda one: -_cost(one, times)):
        if len(costliest[one.block]) < _COMPARED:
            costliest[one.block].append(one)
    others = [one for ones in costliest.values() for one in ones]
    return [
        one for one in found if not any(_waits_for(one, other, times, joint) for other in others)
    ]


def _waits_for(one: Straggler, other: Straggler, times: RankTimes, joint: _Array) -> bool:
    """Return whether a rank is slow in its block because another one is slow in another block.

    In the block in which ranks wait, a rank takes longer by what it took less before, since the
    last time that it waited there: step by step, not only on the whole.
    """
    if one.block == other.block or one.ranks == other.ranks:
        return False
    last = min(_last(one, times), _last(other, times))
    first, end = np.searchsorted(times.steps, [max(one.since, other.since), last + 1])
    rows = np.array([times.ranks.index(each.ranks[0]) for each in (one, other)])
    work = np.flatnonzero(~joint & ~np.array(times.on_device, bool))
    own = times.own_s[np.ix_(work, rows)][:, :, first : min(end, first + _ENOUGH)]
    more = np.nan_to_num(own[:, 0].astype("f8") - own[:, 1])  # of the one than of the other
    here, there = (
        _balance(more, int(np.searchsorted(work, times.names.index(each.block))))
        for each in (one, other)
    )
    return here < _OPPOSED and here < there


def _balance(more: _Array, block: int) -> float:
    """Return how a block varies with what was done since it was last done: -1 if it evens it out.

    Args:
        more: By how much a rank took longer than another one, blocks x steps, the blocks in their
            order.
        block: Which block.
    """
    before = more[:block, 1:].sum(axis=0) + more[block + 1 :, :-1].sum(axis=0)
    itself = more[block, 1:]
    if len(itself) < WINDOW or not itself.std() or not before.std():
        return 0.0
    return float(np.corrcoef(itself, before)[0, 1])


def _last(one: Straggler, times: RankTimes) -> int:
    return times.last_step(-1) if one.until is None else one.until


def _straggler(times: RankTimes, name: str, shift: Shift) -> Straggler:
    there = np.flatnonzero(~np.isnan(times.ends[shift.rank]))
    return Straggler(
        ranks=(times.ranks[shift.rank],),
        host="",
        block=name,
        since=int(times.steps[shift.first]),
        until=None if shift.last is None else times.last_step(shift.last),
        from_the_start=bool(shift.first <= there[0]),
        ratio=shift.ratio,
        excess_s=shift.excess_s,
    )


def _own_block(times: RankTimes, joint: _Array, shift: Shift) -> str:
    """Return the block that this rank alone has and that makes it slow; "" where there is none."""
    window = slice(shift.first, None if shift.last is None else shift.last + 1)
    for number, name in enumerate(times.names):
        if joint[number] or times.on_device[number]:
            continue
        there = (~np.isnan(times.own_s[number][:, window])).mean(axis=1)
        mine = float(np.nansum(times.own_s[number][shift.rank, window], dtype="f8"))
        steps = max(1, int((~np.isnan(times.ends[shift.rank, window])).sum()))
        others = np.delete(there, shift.rank)
        if (
            there[shift.rank] > 0.5
            and np.median(others) < 0.5
            and mine / steps > shift.excess_s / 2
        ):
            return name
    return ""


def _cost(one: Straggler, times: RankTimes) -> float:
    """Return about how many seconds a straggler cost, so far as its steps say."""
    first, last = np.searchsorted(times.steps, (one.since, _last(one, times)))
    there = ~np.isnan(times.ends[times.ranks.index(one.ranks[0]), first : last + 1])
    return float(there.sum() * one.excess_s)


def _merged_by_host(
    found: Sequence[Straggler], hosts: dict[int, str], times: RankTimes
) -> list[Straggler]:
    """Say of a host that it is slow, where nearly all of its ranks are at once."""
    members: dict[str, int] = defaultdict(int)
    for rank in times.ranks:
        members[hosts.get(rank, "")] += 1
    grouped: dict[tuple[str, str], list[Straggler]] = defaultdict(list)
    for one in found:
        grouped[hosts.get(one.ranks[0], ""), one.block].append(one)
    merged = []
    for (host, _), ones in grouped.items():
        together = _together(ones, times) if host and len(members) > 1 else []
        if len(together) < 2 or len(together) < _OF_A_HOST * members[host]:
            merged += ones
            continue
        middle = sorted(together, key=lambda one: one.since)[(len(together) - 1) // 2]
        untils = [one.until for one in together]
        merged.append(
            replace(
                middle,
                ranks=tuple(sorted({one.ranks[0] for one in together})),
                host=host,
                until=None if None in untils else int(np.median(untils)),  # type: ignore[arg-type]
                ratio=float(np.median([one.ratio for one in together])),
                excess_s=float(np.median([one.excess_s for one in together])),
            )
        )
        merged += [one for one in ones if one not in together]
    return merged


def _together(ones: Sequence[Straggler], times: RankTimes) -> list[Straggler]:
    """Return the stragglers that became slow at about the same step."""
    places = np.searchsorted(times.steps, [one.since for one in ones])
    middle = np.median(places)
    return [
        one for one, place in zip(ones, places, strict=True) if abs(place - middle) <= 2 * WINDOW
    ]


def find_phases(
    times: RankTimes,
    joint: _Array,
    stragglers: Sequence[Straggler],
    threshold: float,
    block: str | None,
) -> list[Phase]:
    """Find ranges of steps in which all ranks were slow.

    What grows in all ranks but the straggler is waiting for it, and is not said again; nor is what
    becomes of collectives in a run that has one.
    """
    least = _worth(times)
    found = []
    for number, name in enumerate(times.names):
        if block not in (None, name):
            continue
        is_joint = bool(joint[number])
        if is_joint and stragglers:
            continue
        for shift in find_shared(times.own_s[number], threshold, least, joint=is_joint):
            since = int(times.steps[shift.first])
            until = None if shift.last is None else times.last_step(shift.last)
            slow = [one for one in stragglers if _overlap(one, since, until)]
            if slow and _is_waiting(times, number, shift, slow, threshold):
                continue
            found.append(Phase(name, is_joint, since, until, shift.ratio, shift.excess_s))
    return sorted(found, key=lambda one: -one.excess_s)


def _is_waiting(
    times: RankTimes, number: int, shift: Shift, slow: Sequence[Straggler], threshold: float
) -> bool:
    """Return whether a block takes longer in the ranks that wait, and not in a slow one."""
    inside = np.zeros(len(times.steps), bool)
    inside[shift.first : None if shift.last is None else shift.last + 1] = True
    for rank in {rank for one in slow for rank in one.ranks}:
        own = times.own_s[number, times.ranks.index(rank)]
        within, outside = (own[part & ~np.isnan(own)] for part in (inside, ~inside))
        if len(within) and len(outside):
            longer = float(np.median(within)) * np.sqrt(threshold) > float(np.median(outside))
            if not longer:
                return True
    return False


def _overlap(one: Straggler, since: int, until: int | None) -> bool:
    before = one.until is not None and one.until < since
    return not before and (until is None or one.since <= until)
