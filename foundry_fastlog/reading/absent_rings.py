"""Detect missing rings, of writers that started but did not end.

A writer has a mark, ``.fastlog/UUID.writer``, created after its ring and removed before it, by the
writer itself or by a recovery (``csrc/core/writer_mark.hpp``). A mark without a ring means that the
ring was lost.
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

__all__ = ["list_in_memory", "mark_lost", "report_absent", "report_unended"]

_MOST_NAMED = 5

_REASONS = {
    "ring": (
        "it did not end, and its ring is missing: if it was killed, its last records are lost. "
        "Remove its mark, this file, to stop this report"
    ),
    "memory": (
        "it did not end, and its ring was in memory: what it did not flush is in no file, and is "
        "lost if it was killed. Remove its mark, this file, to stop this report"
    ),
}


def report_absent(run: Path) -> list[RingReport]:
    """Report writers that did not end and whose rings are missing, one report per cause.

    Args:
        run: The run directory.
    """
    try:
        # List twice: a listing may miss files that appear or vanish while it is made. A writer
        # whose mark is there before and after did not end in between, so it still has its ring.
        absent = _without_ring(run)
        absent &= absent and _without_ring(run)
    except OSError:  # reported by whoever lists the rings
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


def list_in_memory(run: Path) -> set[str]:
    """List the labels of writers that did not end and have their rings in memory.

    Args:
        run: The run directory.
    """
    try:
        marks = [_read_mark(run, name) for name in _without_ring(run)]
    except OSError:
        return set()
    return {label for place, label in marks if place == "memory"}


def _without_ring(run: Path) -> set[str]:
    names = list_private(run)
    here = {name.removesuffix(RING_SUFFIX).removesuffix(POINTER_SUFFIX) for name in names}
    marked = {name.removesuffix(MARK_SUFFIX) for name in names if name.endswith(MARK_SUFFIX)}
    return marked - here


def _read_mark(run: Path, name: str) -> tuple[str, str]:
    """Return where a writer's ring is, and its label. An unreadable mark counts as a ring's."""
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
    """Remember, before a start, that the last one did not end and that its ring is missing.

    Without a private directory, only `run.json` knows this, and only of the last start.

    Args:
        run: The run directory.
        label: The label of that start; see `last_unended()`.
    """
    private = run / PRIVATE_DIR
    if os.path.lexists(private):
        return
    with contextlib.suppress(OSError):  # the recorder reports errors of the disk
        private.mkdir(0o775)
        mark = private / f"{os.urandom(16).hex()}{MARK_SUFFIX}"
        mark.write_text(f"ring {label}\n", encoding="utf-8")


def report_unended(run: Path) -> list[RingReport]:
    """Report the last start of a run without a private directory, if it did not end.

    The run was copied without that directory, or it was removed. What earlier starts left has been
    recovered by later ones.
    """
    from foundry_fastlog.run.info import RUN_FILE, last_unended

    if last_unended(run) is None:
        return []
    reason = (
        f"the run has no directory {PRIVATE_DIR} (was it copied without it?), and by its "
        f"{RUN_FILE} its last start did not end. If that was killed, or was running during the "
        f"copy, its last records are not here"
    )
    return [RingReport(run, str(run / PRIVATE_DIR), "absent", reason=reason)]
