"""Find the ring files of a run, and report the state of each.

The extension reads their contents: see ``overlay.py``. Nothing here writes or follows a link.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.run.files import PRIVATE_DIR

__all__ = [
    "MARK_SUFFIX",
    "POINTER_SUFFIX",
    "RING_SUFFIX",
    "RingReport",
    "list_private",
    "list_quarantined",
    "list_rings",
    "read_note",
    "vanishes",
]

RING_SUFFIX = ".ring"
POINTER_SUFFIX = ".ring-at"
#: The suffix of the mark that is created after a writer's ring and removed before it.
MARK_SUFFIX = ".writer"

#: Where recovery moves rings that it does not trust, in the private directory.
_QUARANTINE = "quarantine"
_QUARANTINED = re.compile(r".*\.ring(?:-at)?(?:\.[0-9]+)?", re.DOTALL)
_NOTE_BYTES = 1000

_waited_for: set[str] = set()
_VANISHING_S, _VANISHING_LOOKS = 0.02, 20

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class RingReport:
    """What happened to one ring file, or would happen.

    Attributes:
        run: The run directory.
        ring: Path of the ring file, or of the pointer to it if the ring cannot be found.
        outcome: ``recovered`` (its records are now in the run's files), ``live`` (its writer is
            running), ``gone`` (another recovery was faster), ``quarantined`` (damaged, and moved to
            ``.fastlog/quarantine``), ``elsewhere`` (on another host, or of another directory),
            ``failed`` (a system call failed), ``absent`` (a writer did not end, and its ring is
            missing or was in memory). In a preview: ``recoverable`` and ``damaged`` instead of
            ``recovered`` and ``quarantined``.
        label: Label of the writer; if ``absent``, of a few such writers.
        reason: What is wrong, and what to do.
        same_boot: Whether the machine has kept running since, with the run's file system still
            mounted. If not, lines are restored by their ``seq``.
        emitted: Lines written to the files, including drop markers.
        skipped: Records whose lines were already there.
        holes: Ring slots that a thread had claimed but not filled when it was killed.
        hole_bytes: Total size of the holes.
        damaged: Records that cannot be rendered.
        cut_bytes: Bytes removed from files: torn ends, duplicate lines, and remains of a power
            loss.
    """

    run: Path
    ring: str
    outcome: str
    label: str = ""
    reason: str = ""
    same_boot: bool = True
    emitted: int = 0
    skipped: int = 0
    holes: int = 0
    hole_bytes: int = 0
    damaged: int = 0
    cut_bytes: int = 0

    @property
    def found(self) -> int:
        """Records in the ring that its writer had not marked as written."""
        return self.emitted + self.skipped + self.damaged

    @property
    def sound(self) -> bool:
        """Whether everything in it is, or can be, in the run's files."""
        return not self.damaged and self.outcome in ("recovered", "recoverable", "live", "gone")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        fields = {**asdict(self), "found": self.found}
        return {
            name: safe_str(value) if isinstance(value, (str, Path)) else value
            for name, value in fields.items()
        }


def list_rings(run: Path) -> list[str]:
    """List the rings and pointers to rings in a run's private directory, sorted by name.

    Raises:
        OSError: The directory cannot be listed.
    """
    names = list_private(run)
    return sorted(name for name in names if name.endswith((RING_SUFFIX, POINTER_SUFFIX)))


def list_private(run: Path) -> list[str]:
    """List all names in a run's private directory.

    Raises:
        OSError: It cannot be listed.
    """
    return _list(run / PRIVATE_DIR)


def list_quarantined(run: Path) -> list[RingReport]:
    """Report rings, and pointers to rings, that recovery did not trust and moved aside.

    Their records are in no file. They stay reported until somebody removes them.
    """
    place = run / PRIVATE_DIR / _QUARANTINE
    try:
        names = _list(place)
    except (FileNotFoundError, NotADirectoryError):  # nothing can be quarantined there
        return []
    except OSError as error:
        return [RingReport(run, str(place), "failed", reason=_describe("read", str(place), error))]
    return [
        RingReport(
            run,
            str(place / name),
            "quarantined",
            reason=f"{_read_reason(str(place / f'{name}.reason'))}. It is reported until it is "
            f"removed",
        )
        for name in sorted(names)
        if _QUARANTINED.fullmatch(name)
    ]


def _read_reason(note: str) -> str:
    return (read_note(note) or "").strip() or "no reason was noted"


def read_note(path: str) -> str | None:
    """Read the beginning of a small text file beside a ring; None if that fails."""
    try:
        descriptor = os.open(path, _READ)
        try:
            text = os.read(descriptor, _NOTE_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return text.decode("utf-8", "backslashreplace")


def _list(directory: Path) -> list[str]:
    """List the names in a directory; fail if it is a link.

    Raises:
        OSError: It cannot be listed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.listdir(descriptor)  # noqa: PTH208  # pathlib lists by name, not by descriptor
    finally:
        os.close(descriptor)


def vanishes(pointer: str) -> bool:
    """Return whether a pointer vanishes as its ring did: a closing writer removes both in turn.

    Each pointer is waited for only once: a run may have many whose rings are on other hosts.
    """
    if pointer in _waited_for:
        return False
    _waited_for.add(pointer)
    for _ in range(_VANISHING_LOOKS):
        if not os.path.lexists(pointer):
            return True
        time.sleep(_VANISHING_S / _VANISHING_LOOKS)
    return False


def _describe(verb: str, path: str, error: OSError) -> str:
    return f"{verb} {path}: {error.strerror or error}"
