"""One time stamp for the files of all ranks of a start: rank 0 publishes it, others look it up.

The ranks share no clock, and nothing that a launcher passes to them is unique to a start: address
and port may be those of an earlier one. What can be checked is which processes are alive. Rank 0
writes its time to ``.fastlog/start-<launch>`` in the run's directory and holds a lock on that file
while the run is open; the kernel releases the lock when rank 0 dies. Another rank trusts a file
that

- is named after its own launch: MASTER_ADDR, MASTER_PORT, TORCHELASTIC_RUN_ID, world size;
- is locked, so its rank 0 is alive: a launcher ends all ranks of a start before the next one;
- is not much older than this process, by the file system's clock: a file server may keep the lock
  of a crashed machine;
- was not trusted by this process before: that is a run that was closed and reopened.

It waits at most `WAIT_S` for such a file, then uses its own time. It also does so if MASTER_ADDR
and MASTER_PORT are not set, or if the file system has no locks that all ranks see.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import math
import os
import re
import socket
import time
from pathlib import Path

from foundry_fastlog.run.files import PRIVATE_DIR, make_directories

__all__ = ["StartStamp"]

WAIT_S = 5.0
"""The longest wait for rank 0."""

LAUNCH_S = 10.0
"""How much earlier than other ranks a launcher may start rank 0."""

_PREFIX = "start-"
_CONTENT = re.compile(r"(\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}) ([0-9a-f]{32})\n")
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

# What this process has published and trusted: opening a published file again would lose its lock.
_published: dict[Path, tuple[int, str]] = {}
_believed: set[str] = set()


class StartStamp:
    """The time of a start. Created and withdrawn by one thread of one process.

    Attributes:
        text: The time, as used in file names.
    """

    def __init__(
        self,
        own: str,
        directory: str | os.PathLike[str],
        rank: int | None,
        world_size: int | None,
    ) -> None:
        """Publish the time (rank 0), or look up rank 0's.

        Args:
            own: This process's time.
            directory: The run's directory.
            rank: This process's rank.
            world_size: Number of ranks.
        """
        self.text = own
        self._fd, self._id = -1, (0, 0)
        self._pid = os.getpid()
        launch = _launch(world_size)
        if launch is None or rank is None or world_size == 1:
            return
        # One path for all links to it: see `_published`.
        self._path = Path(os.path.realpath(directory), PRIVATE_DIR, f"{_PREFIX}{launch}")
        if rank == 0:
            with contextlib.suppress(OSError):  # the recorder reports errors of the disk
                self._publish()
        else:
            self.text = _look_up(self._path) or own

    def _publish(self) -> None:
        make_directories(self._path.parent)
        _remove_dead(self._path.parent)
        token = os.urandom(16).hex()
        # Complete and locked before it gets its name, so nobody sees it earlier.
        temporary = self._path.with_name(f"{self._path.name}.{token}")
        fd = os.open(temporary, _WRITE, 0o664)
        try:
            # Not flock(): forked workers would inherit that lock and outlive their rank.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, f"{self.text} {token}\n".encode())
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            os.close(fd)
            raise
        status = os.fstat(fd)
        self._fd, self._id = fd, (status.st_dev, status.st_ino)
        _published[self._path] = (self._pid, self.text)

    def withdraw(self) -> None:
        """Withdraw what was published; safe to call again, and in a forked child."""
        if self._fd < 0 or os.getpid() != self._pid:
            return
        fd, self._fd = self._fd, -1
        _published.pop(self._path, None)
        # Something else may have closed this descriptor, and its number may be in use again.
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._id:
                os.close(fd)
            if os.path.samestat(status, self._path.stat()):
                self._path.unlink()


def _launch(world_size: int | None) -> str | None:
    """Return a name for the launch that this process belongs to, None if unknown."""
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port:
        return None
    if address in ("localhost", "127.0.0.1", "::1"):  # every host has one of these
        address = socket.gethostname()
    facts = (address, port, os.environ.get("TORCHELASTIC_RUN_ID", ""), str(world_size))
    return hashlib.sha256("\n".join(facts).encode("utf-8", "replace")).hexdigest()[:16]


def _look_up(path: Path) -> str | None:
    """Wait for what rank 0 publishes; None if it does not."""
    end = time.monotonic() + WAIT_S
    pause = 0.01
    while True:
        found = _read(path)
        if found is not None:
            return found
        left = end - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.25)


def _read(path: Path) -> str | None:
    """Return the published time, if it belongs to this start."""
    pid, text = _published.get(path, (0, ""))
    if pid == os.getpid():  # all ranks in one process
        return text
    try:
        fd = os.open(path, _READ)
        try:
            found = _CONTENT.fullmatch(os.read(fd, 64).decode("ascii", "replace"))
            if found is None or found[2] in _believed or not _locked(fd) or not _fresh(path, fd):
                return None
        finally:
            os.close(fd)
    except OSError:
        return None
    _believed.add(found[2])
    return found[1]


def _locked(fd: int) -> bool:
    """Return whether a process holds the write lock.

    Tests by trying a read lock, which does not disturb others doing the same.
    """
    try:
        fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    return False


def _fresh(path: Path, fd: int) -> bool:
    """Return whether a file was written at about the time this process started, or later."""
    lived = _lifetime()
    if lived == math.inf:
        return True
    # The file system's own time, which may differ from that of either rank.
    probe = path.with_name(f"{path.name}.{os.urandom(16).hex()}")
    mine = os.open(probe, _WRITE, 0o664)
    try:
        now = os.fstat(mine).st_mtime
    finally:
        os.close(mine)
        probe.unlink(missing_ok=True)
    return now - os.fstat(fd).st_mtime <= lived + LAUNCH_S


def _lifetime() -> float:
    """Return the seconds since this process started; infinity if unknown."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, AttributeError, IndexError):
        return math.inf


def _remove_dead(directory: Path) -> None:
    """Remove files that killed processes have left."""
    for path in directory.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process was faster
            fd = os.open(path, _READ)
            try:
                if not _locked(fd):
                    path.unlink()
            finally:
                os.close(fd)
