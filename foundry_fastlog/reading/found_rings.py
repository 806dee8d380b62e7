"""Find the ring files of a run, tell dead writers from live ones, and read what is left.

A writer holds a lock (``flock``) on its ring as long as it lives, so a reader asks for a
shared one: refused, the writer lives (or a recovery is at work), and its ring is left
alone. Nothing here writes, waits, or follows a link.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.reading.ring_home import RingHome
from foundry_fastlog.reading.ring_image import (
    NewerRingError,
    RingError,
    RingHeader,
    RingImage,
    Slot,
)
from foundry_fastlog.run.files import PRIVATE_DIR

__all__ = [
    "AT_WORK",
    "MARK_SUFFIX",
    "POINTER_SUFFIX",
    "RING_SUFFIX",
    "FoundRing",
    "RingReport",
    "find_ring",
    "has_rival",
    "is_untouched",
    "list_private",
    "list_quarantined",
    "list_rings",
    "read_note",
]

RING_SUFFIX = ".ring"
POINTER_SUFFIX = ".ring-at"
#: Of what is made behind a writer's ring and removed before it.
MARK_SUFFIX = ".writer"

#: Where recovery puts what it does not trust, in the private directory.
_QUARANTINE = "quarantine"
_QUARANTINED = re.compile(r".*\.ring(?:-at)?(?:\.[0-9]+)?", re.DOTALL)
_NOTE_BYTES = 1000
_YOUNG_S = 600

#: Why a ring cannot be read: its records go from it into the files at this moment.
AT_WORK = "a recovery is at work on it: read again when that has ended"

_waited_for: set[str] = set()
_VANISHING_S, _VANISHING_LOOKS = 0.02, 20

_FindHome = Callable[[RingHeader], RingHome]

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_POINTER_BYTES = 16384  # two paths


@dataclass(frozen=True)
class RingReport:
    """What became of one ring file, or would.

    Attributes:
        run: The run directory.
        ring: Path of the ring file, or of the pointer to one where that leads nowhere.
        outcome: ``recovered`` (its records are in the run's files now), ``live`` (its
            writer is at work), ``gone`` (another recovery was faster), ``quarantined``
            (damaged, and moved to ``.fastlog/quarantine``), ``elsewhere`` (on another
            host, or of another directory), ``failed`` (the system refused), ``absent`` (a
            writer has not ended, and its ring is not here, or is in memory). Where nothing is
            to be changed: ``recoverable`` and ``damaged`` in place of ``recovered`` and
            ``quarantined``.
        label: Label of the writer; where it is ``absent``, of a few such writers.
        reason: Why not, and what to do.
        same_boot: Whether the machine has run on since, with the run's file system mounted as it
            was. If not, lines are put back by their ``seq``.
        emitted: Lines written to the files, drop markers among them.
        skipped: Records whose line was there already.
        holes: Places that a thread had claimed and not filled when it was killed.
        hole_bytes: Their size.
        damaged: Records that cannot be rendered.
        cut_bytes: Bytes taken out of files: torn ends, lines that are there twice, and what a
            power loss left.
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
        """Records in the ring that its writer had not noted as written."""
        return self.emitted + self.skipped + self.damaged

    @property
    def sound(self) -> bool:
        """Whether all that it holds is, or can be, in the run's files."""
        return not self.damaged and self.outcome in ("recovered", "recoverable", "live", "gone")

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        fields = {**asdict(self), "found": self.found}
        return {
            name: safe_str(value) if isinstance(value, (str, Path)) else value
            for name, value in fields.items()
        }


class FoundRing(NamedTuple):
    """A ring file as it was found.

    Attributes:
        ring: Its path, or that of a pointer that leads nowhere.
        outcome: ``dead``, or why there is nothing to read, as in `RingReport`.
        reason: The same in words.
        image: What is in it, if it is dead.
        same_boot: Whether its writer ran in this boot of this machine; see `RingHome`.
        label: Label of its writer, where that is known.
        own: Whether it is the very file that its writer made, in the run that it recorded in. A
            copy is not: it and the files may be of different moments.
        writing: If it is live: its header, and how far its files are noted as whole. None
            where that is not known.
    """

    ring: str
    outcome: str
    reason: str = ""
    image: RingImage | None = None
    same_boot: bool = True
    label: str = ""
    own: bool = True
    writing: tuple[RingHeader, Slot] | None = None

    @property
    def certain(self) -> bool:
        """Whether its offsets and numbers speak of the files that lie here."""
        return self.own and self.same_boot


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
    """Report the rings, and pointers to rings, that recovery did not trust and put aside.

    Their records are in no file. They stay a problem of the run until somebody removes them.
    """
    place = run / PRIVATE_DIR / _QUARANTINE
    try:
        names = _list(place)
    except (FileNotFoundError, NotADirectoryError):  # nothing can have been put there
        return []
    except OSError as error:
        return [RingReport(run, str(place), "failed", reason=_describe("read", str(place), error))]
    return [
        RingReport(
            run,
            str(place / name),
            "quarantined",
            reason=f"{_read_reason(str(place / f'{name}.reason'))}. It stays a problem of the run "
            f"until it is removed",
        )
        for name in sorted(names)
        if _QUARANTINED.fullmatch(name)
    ]


def _read_reason(note: str) -> str:
    return (read_note(note) or "").strip() or "no reason was noted"


def read_note(path: str) -> str | None:
    """Read the beginning of a small text beside a ring; None where that cannot be done."""
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
    """Names in a directory; a link to one is refused.

    Raises:
        OSError: It cannot be listed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return os.listdir(descriptor)  # noqa: PTH208  # pathlib lists by name, not by descriptor
    finally:
        os.close(descriptor)


def find_ring(run: Path, name: str) -> FoundRing:
    """Read one ring, if its writer is dead. The steps are those of ``recovery.cpp``.

    Args:
        run: The run directory.
        name: Name of a ring or of a pointer in its private directory.
    """
    path = str(run / PRIVATE_DIR / name)
    found = _find(run, path, by_pointer=name.endswith(POINTER_SUFFIX))
    if found.outcome == "damaged" and _may_be_in_the_making(path):
        reason = "it is empty, and so new that it may be in the making"
        return FoundRing(found.ring, "live", reason)
    return found


def _may_be_in_the_making(path: str) -> bool:
    """Whether an entry is empty and new: other hosts see a name before what is in the file."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    empty = stat.S_ISREG(status.st_mode) and not status.st_size
    marked = os.path.lexists(f"{path.partition(RING_SUFFIX)[0]}{MARK_SUFFIX}")
    return empty and not marked and abs(time.time() - status.st_mtime) < _YOUNG_S


def _find(run: Path, path: str, *, by_pointer: bool) -> FoundRing:
    ring, run_before = path, ""
    if by_pointer:
        try:
            ring, run_before = _read_pointer(path)
        except FileNotFoundError:
            return FoundRing(path, "gone")
        except OSError as error:
            return FoundRing(path, "failed", _describe("read", path, error))
        if not ring:
            return FoundRing(path, "damaged", f"the pointer {path} names no ring file")
    try:
        descriptor = os.open(ring, _READ)
    except OSError as error:
        if error.errno != errno.ENOENT:
            return FoundRing(ring, "failed", _describe("open", ring, error))
        if not by_pointer or _vanishes(path):
            return FoundRing(ring, "gone")
        return FoundRing(
            ring,
            "elsewhere",
            f"{_describe('open', ring, error)}. It is on another host, or was lost with this one's "
            f"restart: recover there, or remove the pointer {path}",
        )

    def find_home(header: RingHeader) -> RingHome:
        pointer = path if by_pointer else None
        return RingHome.find(run, header, descriptor, pointer, run_before)

    try:
        return _read_ring(ring, descriptor, find_home)
    except OSError as error:
        return FoundRing(ring, "failed", _describe("read", ring, error))
    finally:
        # Not by close() alone: a child that was forked meanwhile would keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _read_ring(ring: str, descriptor: int, find_home: _FindHome) -> FoundRing:
    try:
        # Given back after milliseconds. A recovery that meets it waits for that.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _look_at_live(ring, descriptor, find_home)
    status = os.fstat(descriptor)
    if not status.st_nlink:
        return FoundRing(ring, "gone")
    if not stat.S_ISREG(status.st_mode):
        return FoundRing(ring, "damaged", f"{ring} is no regular file")
    try:
        image = RingImage.read(descriptor)
    except NewerRingError as error:
        return FoundRing(ring, "failed", str(error))
    except RingError as error:
        return FoundRing(ring, "damaged", str(error))
    header = image.header
    home = find_home(header)
    if (reason := home.elsewhere(ring)) is not None:
        return FoundRing(ring, "elsewhere", reason, same_boot=home.same_boot)
    same_boot, own = home.same_boot, home.owns(header, status)
    if not (own and same_boot) and not image.dated:
        reason = "neither of its commit slots reached the disk: its records have no time"
        return FoundRing(ring, "damaged", reason, same_boot=same_boot, label=header.label)
    return FoundRing(ring, "dead", "", image, same_boot, header.label, own)


def is_untouched(ring: str, epoch: int) -> bool:
    """Whether no recovery has begun on a dead ring since it was read.

    Args:
        ring: Its path.
        epoch: Number of its last commit then.
    """
    try:
        descriptor = os.open(ring, _READ)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        slot = RingImage.look(descriptor)[1]
        return os.fstat(descriptor).st_nlink > 0 and slot.epoch == epoch
    except (OSError, RingError, NewerRingError):
        return False
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _vanishes(pointer: str) -> bool:
    """Whether a pointer goes as its ring did: a writer that closes removes one after the other.

    Each is waited for once: a run may have many whose rings are on other hosts.
    """
    if pointer in _waited_for:
        return False
    _waited_for.add(pointer)
    for _ in range(_VANISHING_LOOKS):
        if not os.path.lexists(pointer):
            return True
        time.sleep(_VANISHING_S / _VANISHING_LOOKS)
    return False


def _look_at_live(ring: str, descriptor: int, find_home: _FindHome) -> FoundRing:
    """Say how far a live writer has noted the files as whole, or that a recovery is at work."""
    try:
        header, slot = RingImage.look(descriptor)
        at_work = RingImage.is_marked(descriptor)
    except (RingError, NewerRingError):
        return FoundRing(ring, "live")
    home = find_home(header)
    if (reason := home.elsewhere(ring)) is not None:
        return FoundRing(ring, "elsewhere", reason, same_boot=home.same_boot)
    if at_work:
        return FoundRing(ring, "failed", AT_WORK)
    own = home.owns(header, os.fstat(descriptor))
    return FoundRing(
        ring,
        "live",
        same_boot=home.same_boot,
        label=header.label,
        own=own,
        writing=(header, slot) if own and home.same_boot else None,
    )


def has_rival(run: Path, ring: FoundRing) -> bool:
    """Whether another ring of the run has a ring's label: the files may be its writer's.

    Args:
        run: The run directory.
        ring: One that was read.
    """
    assert ring.image is not None
    try:
        itself = Path(ring.ring).stat()
        names = list_rings(run)
    except OSError:
        return False
    for name in names:
        path = str(run / PRIVATE_DIR / name)
        with contextlib.suppress(OSError, RingError, NewerRingError):
            if name.endswith(POINTER_SUFFIX):
                path, _ = _read_pointer(path)
            descriptor = os.open(path, _READ)
            try:
                if os.path.samestat(os.fstat(descriptor), itself):
                    continue
                other = RingImage.look(descriptor)[0]
            finally:
                os.close(descriptor)
            mine = ring.image.header
            if (other.label, other.stamp) == (mine.label, mine.stamp):
                return True
    return False


def _read_pointer(pointer: str) -> tuple[str, str]:
    """The ring that a pointer names, empty when it can be none; and what it calls the run.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(pointer, _READ)
    try:
        text = os.pread(descriptor, _POINTER_BYTES, 0)
    finally:
        os.close(descriptor)
    lines = text.split(b"\n")
    ring, run = os.fsdecode(lines[0]), os.fsdecode(lines[3]) if len(lines) > 4 else ""
    good = ring.startswith("/") and ring.endswith(RING_SUFFIX) and "\0" not in ring
    return (ring if good else ""), run


def _describe(verb: str, path: str, error: OSError) -> str:
    return f"{verb} {path}: {error.strerror or error}"
