"""Miss the rings that are not here: of writers that have begun and not ended.

A writer has a mark, ``.fastlog/UUID.writer``, made behind its ring and removed before it, by itself
or by a recovery (``csrc/core/writer_mark.hpp``). A mark without a ring is one that was lost.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.reading.found_rings import (
    MARK_SUFFIX,
    POINTER_SUFFIX,
    RING_SUFFIX,
    RingReport,
    list_private,
    read_note,
)
from foundry_fastlog.run.files import PRIVATE_DIR

__all__ = ["mark_lost", "report_absent", "report_unended"]

_MOST_NAMED = 5

_REASONS = {
    "ring": (
        "it has not ended, and its ring is not here any more: if it was killed, its last records "
        "are lost. Remove its mark, this file, to be told of it no more"
    ),
    "memory": (
        "it has not ended, and its ring is in memory: what it did not flush is in no file, and is "
        "lost if it was killed. Remove its mark, this file, to be told of it no more"
    ),
}


def report_absent(run: Path) -> list[RingReport]:
    """Report the writers that have not ended and whose rings are not here, in a report per cause.

    Args:
        run: The run directory.
    """
    try:
        # Twice: a listing has not all that comes and goes while it is made. Whose mark is there
        # before and behind has not ended between, and has its ring as long as that.
        absent = _without_ring(run)
        absent &= absent and _without_ring(run)
    except OSError:  # which is told by who lists the rings
        return []
    found: dict[str, dict[str, str]] = {}
    for name in sorted(absent):
        place, label = _read_mark(run, name)
        found.setdefault(place, {})[name] = label
    reports = []
    for place, reason in _REASONS.items():
        if marks := found.get(place):
            mark = run / PRIVATE_DIR / f"{next(iter(marks))}{MARK_SUFFIX}"
            reports.append(RingReport(run, str(mark), "absent", _name(marks.values()), reason))
    return reports


def _without_ring(run: Path) -> set[str]:
    names = list_private(run)
    here = {name.removesuffix(RING_SUFFIX).removesuffix(POINTER_SUFFIX) for name in names}
    marked = {name.removesuffix(MARK_SUFFIX) for name in names if name.endswith(MARK_SUFFIX)}
    return marked - here


def _read_mark(run: Path, name: str) -> tuple[str, str]:
    """Say where a writer's ring is, and its label. What cannot be read is one of a ring's."""
    text = read_note(str(run / PRIVATE_DIR / f"{name}{MARK_SUFFIX}"))
    if text is None:
        return "ring", "?"
    place, _, label = text.partition("\n")[0].partition(" ")
    return ("memory" if place == "memory" else "ring"), label if label.isprintable() else "?"


def _name(labels: Iterable[str]) -> str:
    names = sorted(safe_str(label) or "main" for label in labels)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def mark_lost(run: Path, label: str) -> None:
    """Keep in mind, before a start, that the last one has not ended and that its ring is not here.

    In a run without a private directory only `run.json` tells, of the last start alone.

    Args:
        run: The run directory.
        label: Of that start; see `last_unended()`.
    """
    private = run / PRIVATE_DIR
    if os.path.lexists(private):
        return
    with contextlib.suppress(OSError):  # the recorder tells what is wrong with the disk
        private.mkdir(0o775)
        mark = private / f"{os.urandom(16).hex()}{MARK_SUFFIX}"
        mark.write_text(f"ring {label}\n", encoding="utf-8")


def report_unended(run: Path) -> list[RingReport]:
    """Report the last start of a run without a private directory, if it has not ended.

    The run was copied without it, or somebody removed it. What earlier starts left is recovered by
    later ones.
    """
    from foundry_fastlog.run.info import RUN_FILE, last_unended

    if last_unended(run) is None:
        return []
    reason = (
        f"the run has no directory {PRIVATE_DIR} (was it copied without it?), and by its "
        f"{RUN_FILE} its last start has not ended. If that was killed, or ran while it was copied, "
        f"its last records are not here"
    )
    return [RingReport(run, str(run / PRIVATE_DIR), "absent", reason=reason)]
