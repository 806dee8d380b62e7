"""How each start of a run is doing: it runs, was closed, failed, or was killed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_fastlog.base.formatting import text_of
from foundry_fastlog.reading.absent_rings import list_in_memory
from foundry_fastlog.run.files import PRIVATE_DIR, Writer
from foundry_fastlog.run.start_entries import read_ends, read_entry

if TYPE_CHECKING:
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["StartReport", "report_starts"]

# The worst of what its processes say is what became of a start.
_WORST = ("exception", "signal", "killed", "unknown", "closed")
# What became of a process that did not say it, by its ring.
_UNENDED = {"recoverable": "killed", "elsewhere": "unknown"}
_COST = ("logging_s", "wall_s")
_SETTLES_S = 0.5
_LOOKS = 10

_Ends = dict[int, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class StartReport:
    """One launch of the program that recorded in a run.

    Attributes:
        number: Its number.
        state: ``running``, ``closed``, ``exception``, ``signal``, ``killed``, or ``unknown`` where
            its processes were on another host, or had their rings in memory, and did not say how
            they ended, or where nothing says that it began.
        started: When it began, ``""`` where nothing says so.
        ended: When the process that began it ended, or ``""``.
        error: Type and message of the exception that ended it, the name of the signal, or ``""``.
        logging_s: Seconds that logging took on the threads that logged, in the process that began
            it; None where that did not say so.
        wall_s: Seconds from that one's first record to its end, likewise.
        config: Its configuration.
        ranks: The ranks that recorded in it.
        entry: All that its entry says; see ``docs/format.md``.
    """

    number: int
    state: str
    started: str = ""
    ended: str = ""
    error: str = ""
    logging_s: float | None = None
    wall_s: float | None = None
    config: dict[str, Any] = field(default_factory=dict)
    ranks: tuple[int, ...] = ()
    entry: dict[str, Any] = field(default_factory=dict)


def report_starts(
    run: Path,
    numbers: Mapping[Writer, int],
    entries: Iterable[int],
    rings: Iterable[RingReport],
    info: Mapping[str, Any],
) -> list[StartReport]:
    """Report the starts of a run, by number.

    Args:
        run: The run's directory.
        numbers: The start of each writer.
        entries: Numbers of the starts that have an entry.
        rings: What was found in the rings of the run's processes.
        info: What run.json says, which is all that tells of starts of format 1.
    """
    outcomes: dict[int, set[str]] = {}
    unended: dict[int, dict[str, dict[str, Any]]] = {}
    by_label = {writer.label: writer for writer in numbers}
    found_rings = [(ring.label, ring.outcome) for ring in rings]
    for label, outcome in [*found_rings, *((label, "elsewhere") for label in list_in_memory(run))]:
        if (writer := by_label.get(label)) is not None:
            outcomes.setdefault(numbers[writer], set()).add(outcome)
            if outcome in _UNENDED and not writer.children:
                unended.setdefault(numbers[writer], {})[label] = {"how": _UNENDED[outcome]}
    writers_of: dict[int, list[Writer]] = {}
    for writer, number in numbers.items():
        writers_of.setdefault(number, []).append(writer)
    all_ends = read_ends(run)
    numbers_of = sorted({*entries, *writers_of})
    if numbers_of and not (outcomes.get(numbers_of[-1]) or all_ends.get(numbers_of[-1])):
        all_ends = _settled(run, numbers_of[-1], all_ends)
    found = []
    for number in numbers_of:
        writers = writers_of.get(number, [])
        entry = read_entry(run, number) or _former_entry(info, writers)
        ends = all_ends.get(number, {})
        if not ends and isinstance(ended := entry.get("ended"), str):
            ends = {"": {"how": "closed", "ended": ended}}
        if ends:
            ends = {**unended.get(number, {}), **ends}
        worst = min(ends.values(), key=_badness, default={})
        found.append(
            StartReport(
                number,
                _state(outcomes.get(number, set()), worst, known=bool(entry)),
                text_of(entry.get("started")),
                max((text_of(end.get("ended")) for end in ends.values()), default=""),
                _error(worst),
                *_cost(ends),
                entry["config"] if isinstance(entry.get("config"), dict) else {},
                tuple(sorted({writer.rank for writer in writers})),
                entry,
            )
        )
    return found


def _settled(run: Path, number: int, ends: _Ends) -> _Ends:
    """Return how starts ended, once the last one had the time to say so.

    A process removes its ring just before it says how it ended: who looks in between would take it
    for one that was killed.
    """
    for _ in range(_LOOKS):
        try:
            changed = (run / PRIVATE_DIR).stat().st_mtime
        except OSError:
            return ends
        if not 0 <= time.time() - changed < _SETTLES_S:
            return ends
        time.sleep(_SETTLES_S / _LOOKS)
        ends = read_ends(run)
        if number in ends:
            return ends
    return ends


def _state(outcomes: set[str], worst: Mapping[str, Any], *, known: bool) -> str:
    if "live" in outcomes:
        return "running"
    if worst:
        return text_of(worst.get("how")) or "closed"
    return "killed" if known and "elsewhere" not in outcomes else "unknown"


def _error(end: Mapping[str, Any]) -> str:
    if end.get("how") == "signal":
        return text_of(end.get("signal"))
    kind, message = text_of(end.get("error_type")), text_of(end.get("error_message"))
    return f"{kind}: {message}" if message else kind


def _cost(ends: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """Return what the first process that noted it says of what logging has cost it."""
    for _, end in sorted(ends.items()):
        logging_s, wall_s = map(end.get, _COST)
        if type(logging_s) is float and type(wall_s) is float:
            return logging_s, wall_s
    return None, None


def _badness(end: Mapping[str, Any]) -> int:
    how = end.get("how")
    return _WORST.index(how) if how in _WORST else len(_WORST)


def _former_entry(info: Mapping[str, Any], writers: Iterable[Writer]) -> dict[str, Any]:
    """Return what run.json says of a start of format 1."""
    starts = {(writer.stamp, writer.attempt) for writer in writers}
    attempts = info.get("attempts")
    for attempt in attempts if isinstance(attempts, list) else ():
        start = isinstance(attempt, dict) and (attempt.get("stamp", ""), attempt.get("attempt"))
        if start in starts:
            return dict(attempt)
    return {}
