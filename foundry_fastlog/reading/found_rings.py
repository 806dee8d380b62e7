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
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from foundry_fastlog.base.json_text import safe_str
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
    "is_own",
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

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_POINTER_BYTES = 4096
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_COMMAND = ("sysctl", "-n", "kern.bootsessionuuid")  # where there is no such file: macOS
_BOOT_ID_LENGTH = 36


@dataclass(frozen=True)
class RingReport:
    """What became of one ring file, or would.

    Attributes:
        run: The run directory.
        ring: Path of the ring file, or of the pointer to one where that leads nowhere.
        outcome: ``recovered`` (its records are in the run's files now), ``live`` (its
            writer is at work), ``gone`` (another recovery was faster), ``quarantined``
            (damaged, and moved to ``.fastlog/quarantine``), ``elsewhere`` (on another
            host), ``failed`` (the system refused), ``absent`` (a writer has not ended, and its
            ring is not here, or is in memory). Where nothing is to be changed:
            ``recoverable`` and ``damaged`` in place of ``recovered`` and ``quarantined``.
        label: Label of the writer; where it is ``absent``, of a few such writers.
        reason: Why not, and what to do.
        same_boot: Whether the machine has run on since. If not, lines are put back by
            their ``seq``.
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
        same_boot: Whether its writer ran in this boot of this machine.
        label: Label of its writer, where that is known.
        own: Whether it is the writer's own file, no copy; see `is_own`.
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
    ring = path
    if by_pointer:
        try:
            ring = _read_pointer(path)
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
    try:
        return _read_ring(run, ring, descriptor, by_pointer=by_pointer)
    except OSError as error:
        return FoundRing(ring, "failed", _describe("read", ring, error))
    finally:
        # Not by close() alone: a child that was forked meanwhile would keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _read_ring(run: Path, ring: str, descriptor: int, *, by_pointer: bool) -> FoundRing:
    try:
        # Given back after milliseconds. A recovery that meets it waits for that.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _look_at_live(run, ring, descriptor, by_pointer=by_pointer)
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
    if by_pointer and not _is_of_run(run, header):
        return FoundRing(ring, "damaged", f"{ring} belongs to another run")
    same_boot = _is_of_this_boot(header)
    own = is_own(run, header, status)
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


def _look_at_live(run: Path, ring: str, descriptor: int, *, by_pointer: bool) -> FoundRing:
    """Say how far a live writer has noted the files as whole, or that a recovery is at work."""
    try:
        header, slot = RingImage.look(descriptor)
        if RingImage.is_marked(descriptor):
            return FoundRing(ring, "failed", AT_WORK)
    except (RingError, NewerRingError):
        return FoundRing(ring, "live")
    if by_pointer and not _is_of_run(run, header):
        return FoundRing(ring, "damaged", f"{ring} belongs to another run")
    own = is_own(run, header, os.fstat(descriptor))
    same_boot = _is_of_this_boot(header)
    return FoundRing(
        ring,
        "live",
        same_boot=same_boot,
        label=header.label,
        own=own,
        writing=(header, slot) if own and same_boot else None,
    )


def is_own(run: Path, header: RingHeader, status: os.stat_result) -> bool:
    """Whether a ring is the very file that its writer made, in the run that it recorded in.

    A copy is not: its ring and its files may be of different moments. Their lines are told by
    `seq` then.

    Args:
        run: The run directory.
        header: What the ring says.
        status: Of the ring file.
    """
    return _is_of_run(run, header) and (
        header.ring is None or _is(status, header.ring, same_boot=_is_of_this_boot(header))
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
                path = _read_pointer(path)
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


def _is_of_run(run: Path, header: RingHeader) -> bool:
    return _is(run.stat(), header.run, same_boot=_is_of_this_boot(header))


def _is(status: os.stat_result, known: tuple[int, int], *, same_boot: bool) -> bool:
    """Whether a file has this device and inode; devices change with a restart of the machine."""
    return status.st_ino == known[1] and (status.st_dev == known[0] or not same_boot)


def _is_of_this_boot(header: RingHeader) -> bool:
    boot = boot_id()
    return boot != "" and boot == header.boot_id


def _read_pointer(pointer: str) -> str:
    """The path in a pointer's first line; empty when it cannot be that of a ring.

    Raises:
        OSError: It cannot be read.
    """
    descriptor = os.open(pointer, _READ)
    try:
        text = os.pread(descriptor, _POINTER_BYTES, 0)
    finally:
        os.close(descriptor)
    path = os.fsdecode(text.partition(b"\n")[0])
    return path if path.startswith("/") and path.endswith(RING_SUFFIX) and "\0" not in path else ""


def boot_id() -> str:
    """Which boot of which machine this is; empty where that cannot be known."""
    try:
        if _BOOT_ID.exists():
            text = _BOOT_ID.read_text(encoding="ascii")
        else:
            text = subprocess.run(
                _BOOT_ID_COMMAND, capture_output=True, text=True, check=True
            ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return text.strip()[:_BOOT_ID_LENGTH]


def _describe(verb: str, path: str, error: OSError) -> str:
    return f"{verb} {path}: {error.strerror or error}"
