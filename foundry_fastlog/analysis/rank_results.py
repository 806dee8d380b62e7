"""What `compare_ranks` finds: dataclasses with `to_dict()`, and the sentences that say it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foundry_fastlog.base.formatting import format_seconds, jsonable

__all__ = [
    "BlockOfRank",
    "Clock",
    "HeatMap",
    "OneRank",
    "Phase",
    "RankComparison",
    "Straggler",
    "numbers_said",
]

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class BlockOfRank:
    """A timed block on one rank.

    Attributes:
        block: Its name; with the kind of device in parentheses for the time on it.
        rank: The rank.
        collective: Whether it is a collective operation, in which ranks wait for each other.
        count: How often it was timed.
        median_s: Median of its durations in seconds, with the blocks in it.
        p95_s: Their 95th percentile.
        own_s: Median per step of the time in the block itself, without the blocks in it.
        share: Its own time divided by the time of all blocks of the rank; None on a device.
        score: Median own time of the best rank divided by that of this rank, 0 to 1. None for
            collectives, where the rank that waits least is the slow one, and for blocks that take
            less than a thousandth of a step.
        history_score: The lowest median of a window of steps of this rank divided by that of its
            last window.
    """

    block: str
    rank: int
    collective: bool
    count: int
    median_s: float
    p95_s: float
    own_s: float
    share: float | None
    score: float | None
    history_score: float | None


@dataclass(frozen=True)
class Clock:
    """A rank's clock against that of the median rank.

    Attributes:
        offset_s: How far it is ahead.
        spread_s: By how much single steps say otherwise: 1.48 times the median deviation.
        steps: How many steps tell.
    """

    offset_s: float
    spread_s: float
    steps: int


@dataclass(frozen=True)
class OneRank:
    """A rank.

    Attributes:
        rank: Its number.
        host: The host that it ran on, as far as it is known, or ``""``.
        steps: In how many columns of steps it has times.
        step_s: Median time of all its blocks in a step.
        work_s: Median time of those that are no collectives.
        wait_s: Median time in collectives beyond that of the rank that is in them for the shortest
            time; None without collectives.
        wait_share: All of its waiting divided by all of its time.
        score: Scores of its blocks, weighted by the time spent in them.
        history_score: Likewise, against its own history.
        slowdown: S_w of the what-if model: how much longer the run takes because of this rank
            alone. None where there are no steps of several ranks.
        clock: Its clock; None where steps of several ranks are too few.
    """

    rank: int
    host: str
    steps: int
    step_s: float
    work_s: float
    wait_s: float | None
    wait_share: float | None
    score: float | None
    history_score: float | None
    slowdown: float | None
    clock: Clock | None


@dataclass(frozen=True)
class Straggler:
    """A rank, or the ranks of a host, that is slow by itself.

    Attributes:
        ranks: The ranks.
        host: The host, where nearly all of its ranks are slow together; else ``""``.
        block: The block in which they are slow by themselves; ``""`` where only all of their own
            work together tells.
        since: The step from which on they are slow.
        until: The last such step; None where they are slow to the end.
        from_the_start: Whether they were never any faster.
        ratio: Their time over that of the median rank.
        excess_s: Seconds a step that they take longer.
    """

    ranks: tuple[int, ...]
    host: str
    block: str
    since: int
    until: int | None
    from_the_start: bool
    ratio: float
    excess_s: float

    @property
    def sentence(self) -> str:
        """Say which rank is slow, since which step, in which block."""
        who = f"rank {self.ranks[0]} is" if len(self.ranks) == 1 else "ranks are"
        if len(self.ranks) > 1:
            who = f"ranks {numbers_said(self.ranks)} are"
        if self.host:
            who = f"{self.host} ({who.removesuffix(' are').removesuffix(' is')}) is"
        when = "from the first step on" if self.from_the_start else f"since step {self.since:,}"
        if self.until is not None:
            when = f"from step {self.since:,} to {self.until:,}"
        where = f"in {self.block!r}" if self.block else "in all of its own work"
        more = f"{self.ratio:.2f} x the median rank, {format_seconds(self.excess_s)}"
        return f"{who} slow {when} {where}: {more} more a step"


@dataclass(frozen=True)
class Phase:
    """A range of steps in which all ranks were slow: no straggler.

    Attributes:
        block: The block.
        collective: Whether it is a collective operation.
        since: The first step.
        until: The last one; None where it goes on to the end.
        ratio: Its time over that of the other steps.
        excess_s: Seconds a step that it takes longer.
    """

    block: str
    collective: bool
    since: int
    until: int | None
    ratio: float
    excess_s: float

    @property
    def sentence(self) -> str:
        """Say when all ranks were slow, and in which block."""
        when = f"since step {self.since:,}"
        if self.until is not None:
            when = f"from step {self.since:,} to {self.until:,}"
        more = f"{self.ratio:.2f} x other steps, {format_seconds(self.excess_s)} more a step"
        return f"all ranks are slow {when} in {self.block!r}: {more}; none of them is a straggler"


@dataclass(frozen=True)
class HeatMap:
    """Times of ranks over steps, as ratios.

    Attributes:
        ranks: The ranks, one a row.
        steps: The first step of each bucket.
        last_step: The last step of the last bucket.
        width: Recorded steps of a bucket; a cell is the median over them.
        block: Whose time it is; ``""`` for all own work, which is all but collectives.
        typical_s: The median over ranks and steps, to which all is relative.
        ratio: Rows of ratios, NaN where a rank has no time.
    """

    ranks: tuple[int, ...]
    steps: tuple[int, ...]
    last_step: int
    width: int
    block: str
    typical_s: float
    ratio: _Array


@dataclass(frozen=True)
class RankComparison:
    """The ranks of a run compared.

    Attributes:
        path: The run's directory.
        ranks: One for each rank.
        blocks: One for each block and rank, the blocks by their time.
        first_step: The first step that any rank timed, None without any.
        last_step: The last one.
        steps: How many steps, or buckets of `width` steps, there are.
        width: See ``RankTimes.width``.
        stragglers: Ranks that are slow by themselves, the costliest first.
        phases: When all ranks were slow.
        slowdown: S: the time of all steps divided by what it would be if each block took the mean
            of all ranks; None where there are no steps of several ranks.
        ideal_s: What they would take so, in seconds; S times it is what they took.
        clocks_from: What clocks were compared by: a collective, ``"steps"``, or ``""`` for none.
        threshold: The score below which a rank is slow.
        notes: What a reader has to know: what could not be told, and why.
        heat_map: Times of ranks over steps; None where there are none.
    """

    path: Path
    ranks: tuple[OneRank, ...]
    blocks: tuple[BlockOfRank, ...]
    first_step: int | None
    last_step: int | None
    steps: int
    width: int
    stragglers: tuple[Straggler, ...]
    phases: tuple[Phase, ...]
    slowdown: float | None
    ideal_s: float | None
    clocks_from: str
    threshold: float
    notes: tuple[str, ...]
    heat_map: HeatMap | None = field(repr=False)

    @property
    def sentences(self) -> list[str]:
        """What was found, in sentences: the first one is the answer."""
        found = [one.sentence for one in self.stragglers]
        found += [one.sentence for one in self.phases]
        if not self.stragglers and len(self.ranks) > 1 and self.slowdown is not None:
            found.insert(0, f"no rank is a straggler (scores below {self.threshold:g} would be)")
        return [one[:1].upper() + one[1:] + "." for one in found]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the heat map as JSON values; NaN and infinities as texts."""
        fields = {name: value for name, value in vars(self).items() if name != "heat_map"}
        found: dict[str, Any] = jsonable(fields)
        return {"sentences": self.sentences, **found}


def numbers_said(numbers: tuple[int, ...]) -> str:
    """Say numbers as ranges: ``0-7, 12``; of very many the first."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    said = [str(a) if a == b else f"{a}-{b}" for a, b in found]
    return ", ".join(said[:8]) + (f" and {len(said) - 8} more" if len(said) > 8 else "")
