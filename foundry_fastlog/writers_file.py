"""Miss the writers of a run whose rings are not here: ``.fastlog/writers`` says who has not ended.

A writer is noted behind its ring as one that begins, and before that is removed, by itself or by a
recovery, as one that has ended. ``csrc/core/writers_file.hpp`` writes it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from foundry_fastlog.files import PRIVATE_DIR
from foundry_fastlog.members import safe_str
from foundry_fastlog.ring_files import POINTER_SUFFIX, RING_SUFFIX, RingReport, list_rings

__all__ = ["WRITERS_FILE", "report_absent", "report_unended"]

WRITERS_FILE = "writers"
_MOST_BYTES = 64 << 20
_MOST_NAMED = 5
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Somewhere in a line: where the disk was full one may lack its end.
_ENTRY = re.compile(rb"(begin|end) ([0-9a-f-]{36})(?: (ring|memory) ([^\n]*))?")


def report_absent(run: Path) -> list[RingReport]:
    """Report the writers that have not ended and whose rings are not here, in a report per cause.

    Args:
        run: The run directory.
    """
    path = run / PRIVATE_DIR / WRITERS_FILE
    try:
        if not _open_writers(path):
            return []
        # In this order: who has its ring no longer when they are listed is noted as ended before.
        names = list_rings(run)
        here = {name.removesuffix(RING_SUFFIX).removesuffix(POINTER_SUFFIX) for name in names}
        absent = {uuid: how for uuid, how in _open_writers(path).items() if uuid not in here}
    except FileNotFoundError:  # of an older version, or its directory was removed a moment ago
        return []
    except OSError as error:
        reason = f"read {path}: {error.strerror or error}"
        return [RingReport(run, str(path), "failed", reason=reason)]
    labels: dict[str, list[str]] = {}
    for place, label in absent.values():
        labels.setdefault(place, []).append(label)
    return [
        RingReport(run, str(path), "absent", _name(labels[place]), reason)
        for place, reason in _REASONS.items()
        if place in labels
    ]


_REASONS = {
    "ring": (
        "it has not ended, and its ring is not here any more: if it was killed, its last records "
        "are lost. Remove this file to be told of it no more"
    ),
    "memory": (
        "it has not ended, and its ring is in memory: what it did not flush is in no file, and is "
        "lost if it was killed. Remove this file to be told of it no more"
    ),
}


def _open_writers(path: Path) -> dict[str, tuple[str, str]]:
    """Say of each writer that has not ended where its ring is, and its label.

    Raises:
        OSError: The list cannot be read.
    """
    descriptor = os.open(path, _READ)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        data = file.read(_MOST_BYTES)
    writers: dict[str, tuple[str, str]] = {}
    for event, uuid, place, label in _ENTRY.findall(data):
        if event == b"end":
            writers.pop(uuid.decode(), None)
        elif place:
            writers[uuid.decode()] = (place.decode(), label.decode("utf-8", "backslashreplace"))
    return writers


def _name(labels: Iterable[str]) -> str:
    names = sorted(safe_str(label) or "main" for label in labels)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def report_unended(run: Path) -> list[RingReport]:
    """Report the starts of a run without a private directory that have not ended.

    It was copied without it, or somebody removed it. Where all have ended nothing is missed.
    """
    from foundry_fastlog.run_info import RUN_FILE, unended_attempts

    attempts = unended_attempts(run)
    if not attempts:
        return []
    which = "attempt " + ", ".join(str(number) for number in attempts[:_MOST_NAMED])
    reason = (
        f"the run has no directory {PRIVATE_DIR} (was it copied without it?), and by its "
        f"{RUN_FILE} {which} has not ended. If it was killed, or ran while it was copied, "
        f"its last records are not here"
    )
    return [RingReport(run, str(run / PRIVATE_DIR), "absent", reason=reason)]
