"""Where the time of many runs went: what their devices did, weighted by how many there were.

A run counts by its device-seconds: wall time x ranks. So the goodput of a fleet is the share of its
device time that ideal steps would have taken, as in ML Productivity Goodput (arXiv 2502.06982),
which adds up chip-time; of its three factors, files of runs tell the second. See `docs/fleet.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from foundry_fastlog.analysis.runs import Runs
from foundry_fastlog.base.formatting import jsonable
from foundry_fastlog.fleet.findings import UNREADABLE
from foundry_fastlog.fleet.totals import grouped

__all__ = ["EMPTY", "FleetGoodput", "RunGoodput", "add_goodput"]

#: The only key of what is said of a run that nothing says when it ran: why.
EMPTY = "empty"

# What failures cost; the rest is productive in ETTR.
_LOST = ("start_up", "again", "stalls", "dead")


@dataclass(frozen=True)
class RunGoodput:
    """Where the time of one run went; see ``Goodput``.

    Attributes:
        run: Its path below the directory that was searched.
        ranks: The most ranks that a start of it had.
        wall_s: Seconds from the begin of its first start to the end of its last.
        device_s: The same by rank: those of each start, times its ranks.
        parts: Seconds by kind; they sum to ``wall_s``.
        device_parts: Device-seconds by kind; they sum to ``device_s``.
        ideal_device_s: What its steps would have taken at their ideal.
        steps: How many steps were trained, each counted once.
        steps_again: How many were trained again.
        running: Whether it runs: then its time is that until now.
        complete: Whether all lines could be read.
        largest_loss: What took most of the time that did not train, in a sentence.
    """

    run: str
    ranks: int
    wall_s: float
    device_s: float
    parts: dict[str, float]
    device_parts: dict[str, float]
    ideal_device_s: float
    steps: int
    steps_again: int
    running: bool
    complete: bool
    largest_loss: str

    @property
    def lost_device_s(self) -> float:
        """Device-seconds beyond those that its steps would have taken at their ideal."""
        return max(0.0, self.device_s - self.ideal_device_s)


@dataclass(frozen=True)
class FleetGoodput:
    """Where the time of some runs went.

    Attributes:
        key: What they have in common, None of all runs, or of those that have no such value.
        runs: How many runs are in these figures.
        wall_s: The sum of their seconds from begin to end.
        device_s: The sum of their device-seconds: wall time times ranks.
        parts: Seconds by kind; they sum to ``wall_s``.
        device_parts: Device-seconds by kind; they sum to ``device_s``.
        goodput: The device-seconds that all steps would have taken at the ideal of their run, over
            ``device_s``. None where there is no time.
        runtime_goodput: Productive device-seconds over those in which a start ran: ``ettr``
            without the time between starts.
        ettr: The effective training time ratio: productive device-seconds over all.
        steps: How many steps were trained, each counted once.
        steps_again: How many were trained again.
        running: How many of the runs run: their time is that until now.
        worst: The runs that lost the most device-seconds, with what they lost them to.
        incomplete: Runs of which lines are missing or damaged: figures are of the rest.
        empty: Runs that are not counted because nothing in them says when they ran, and why.
        unreadable: Runs that could not be read, and why.
    """

    key: Any
    runs: int
    wall_s: float
    device_s: float
    parts: dict[str, float]
    device_parts: dict[str, float]
    goodput: float | None
    runtime_goodput: float | None
    ettr: float | None
    steps: int
    steps_again: int
    running: int
    worst: tuple[RunGoodput, ...] = ()
    incomplete: tuple[str, ...] = ()
    empty: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        worst = [{**asdict(one), "lost_device_s": one.lost_device_s} for one in self.worst]
        result: dict[str, Any] = jsonable({**vars(replace(self, worst=())), "worst": worst})
        return result


def add_goodput(
    runs: Runs, by: str | None, said: Mapping[str, dict[str, Any]], worst: int
) -> list[FleetGoodput]:
    """Add up where the time of runs went.

    Args:
        runs: The runs.
        by: An expression as for ``Runs.where``; runs for which it has one value are together.
        said: What workers said of them, by name.
        worst: Of how many runs to tell what they lost.

    Returns:
        One of all runs, or one for each value, those with the most device-seconds first.

    Raises:
        WhereError: The expression cannot be understood.
    """
    found = [
        _add(key, {run.run: said[run.run] for run in chosen}, worst)
        for key, chosen in grouped(runs, by)
    ]
    return sorted(found, key=lambda one: -one.device_s)


def _add(key: Any, said: Mapping[str, dict[str, Any]], worst: int) -> FleetGoodput:  # noqa: ANN401 - any JSON
    counted = [
        RunGoodput(name, **facts)
        for name, facts in said.items()
        if UNREADABLE not in facts and EMPTY not in facts
    ]
    parts = _summed(one.parts for one in counted)
    device_parts = _summed(one.device_parts for one in counted)
    device_s = math.fsum(device_parts.values())
    ideal_s = math.fsum(one.ideal_device_s for one in counted)
    productive_s = math.fsum(part for kind, part in device_parts.items() if kind not in _LOST)
    losses = sorted(counted, key=lambda one: (-one.lost_device_s, one.run))
    return FleetGoodput(
        key=key,
        runs=len(counted),
        wall_s=math.fsum(parts.values()),
        device_s=device_s,
        parts=parts,
        device_parts=device_parts,
        goodput=_share(ideal_s, device_s),
        runtime_goodput=_share(productive_s, device_s - device_parts.get("dead", 0.0)),
        ettr=_share(productive_s, device_s),
        steps=sum(one.steps for one in counted),
        steps_again=sum(one.steps_again for one in counted),
        running=sum(one.running for one in counted),
        worst=tuple(one for one in losses if one.lost_device_s)[:worst],
        incomplete=tuple(one.run for one in counted if not one.complete),
        empty={name: facts[EMPTY] for name, facts in said.items() if EMPTY in facts},
        unreadable={name: facts[UNREADABLE] for name, facts in said.items() if UNREADABLE in facts},
    )


def _summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    every = list(parts)
    return {kind: math.fsum(one[kind] for one in every) for kind in (every[0] if every else ())}


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
