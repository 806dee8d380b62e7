"""Text log files: append whole lines, rotate by size, remove old files.

Several processes may write to one file: each opens it for appending and writes whole lines. A
writer holds a shared lock on its file, so that retention and clean-up do not remove it. A process
that renames files holds the directory's lock; the others notice that the name refers to another
file. A link, a pipe or a device in place of a log is rejected: a link leads elsewhere, the others
block.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundry_fastlog.messages.text_lines import Message
from foundry_fastlog.run.files import above_standard, make_directories

__all__ = [
    "LOG_NAME",
    "TextFile",
    "is_in_use",
    "remove_old",
    "remove_unused",
    "rotated",
    "text_logs",
]

_LOOK = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _LOOK

LOG_NAME = re.compile(
    r"(?P<kind>.+)_(?P<stamp>\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})(?:\.(?P<rank>r[1-9]\d*))?\.log"
    r"(?:\.(?P<number>[1-9]\d*))?"
)
"""A text log's name; the number counts rotations, 1 is the newest. Rank 0 has no label."""

_NUMBER = re.compile(r"[1-9]\d*", re.ASCII)

_log = logging.getLogger("foundry_fastlog")


class TextFile:
    """One log file, written by the background thread."""

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = 0, keep: int = 0) -> None:
        """Open the file, so that it exists at once; a failure is only reported.

        Args:
            path: The file. Missing parent directories are created.
            max_bytes: A file that would grow beyond this is rotated; 0 for no limit.
            keep: How many text logs of this kind to keep in the directory; 0 for all.
        """
        self.path = Path(path).absolute()
        self.max_bytes = max_bytes
        self.keep = keep
        self.errors = 0
        self._fd = -1
        self._id = (0, 0)  # device and inode of the open file
        self._torn = False
        self._reported = False
        try:
            self._open()
        except OSError as error:
            self._report(error)
        else:
            self._remove_old()

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Append messages. A disk error is reported once and counted in ``errors``.

        Args:
            messages: Not used: a file gets only the text.
            texts: The messages as text, each with its line end.
        """
        try:
            self._renew()
            whole = "".join(texts).encode("utf-8", "backslashreplace")
            if not self.max_bytes or os.fstat(self._fd).st_size + len(whole) <= self.max_bytes:
                self._write_all(whole)
            else:
                self._rotate([text.encode("utf-8", "backslashreplace") for text in texts])
            self._reported = False
        except OSError as error:
            self.errors += len(messages)
            self._report(error)

    def close(self) -> None:
        """Close the file; the next write reopens it."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # Something else may have closed this descriptor, and its number may be in use again.
            with contextlib.suppress(OSError):
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) == self._id:
                    os.close(fd)

    def _write_all(self, data: bytes) -> None:
        view = memoryview(b"\n" + data if self._torn else data)
        written = 0
        try:
            while written < len(view):
                written += os.write(self._fd, view[written:])
        finally:  # a full disk may truncate a line: start the next write on a new line
            self._torn = written < len(view) if written else self._torn

    def _renew(self) -> None:
        """Open the file that the name refers to now; another process may have rotated it."""
        if self._fd >= 0:
            try:
                if os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                    return
            except OSError:  # the name does not exist, or something else closed the descriptor
                pass
            self.close()
        self._open()

    def _open(self) -> None:
        make_directories(self.path.parent)
        while True:
            self._fd = above_standard(os.open(self.path, _FLAGS, 0o664))
            status = os.fstat(self._fd)
            self._id = (status.st_dev, status.st_ino)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                self.close()
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            _lock_shared(self._fd)
            # Before it was locked, another process may have taken it for unused and removed it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), self.path.lstat()):
                    break
            self.close()

    def _rotate(self, lines: Sequence[bytes]) -> None:
        """Fill the file, shift path to path.1 and so on, and fill as many new files as needed.

        All names are shifted at once: one by one, a batch of lines would take seconds if many files
        are kept.
        """
        with _directory_locked(self.path.parent):
            self._renew()  # another process may have just rotated it
            first, *others = self._pieces(lines, os.fstat(self._fd).st_size)
            self._write_all(first)
            if not others:
                return
            for number in _numbers(self.path):
                old = _numbered(self.path, number)
                old.rename(_numbered(self.path, number + len(others)))
            for number, piece in zip(range(len(others) - 1, -1, -1), others, strict=True):
                self.close()
                self._open()
                self._write_all(piece)
                if number:
                    self.path.rename(_numbered(self.path, number))
        self._remove_old()

    def _pieces(self, lines: Sequence[bytes], size: int) -> list[bytes]:
        """Split lines into those that fit the file and those that fill each further file."""
        pieces: list[list[bytes]] = [[]]
        for line in lines:
            if size and size + len(line) > self.max_bytes:
                pieces.append([])
                size = 0
            pieces[-1].append(line)
            size += len(line)
        return [b"".join(piece) for piece in pieces]

    def _remove_old(self) -> None:
        if self.keep:
            remove_old(self.path, self.keep)

    def _report(self, error: OSError) -> None:
        """Report an error once, until writing works again."""
        if not self._reported:
            self._reported = True
            _log.warning(
                "could not write the text log %s: %s. Training goes on; the run's own records "
                "are not affected.",
                self.path,
                error,
            )


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _numbers(path: Path) -> list[int]:
    """List the rotation numbers of a log, highest first."""
    start = f"{path.name}."
    ends = [name.removeprefix(start) for name in os.listdir(path.parent) if name.startswith(start)]  # noqa: PTH208 - names are enough
    return [*sorted((int(end) for end in ends if _NUMBER.fullmatch(end)), reverse=True), 0]


def _lock_shared(fd: int) -> None:
    """Mark a file as being written; without lock support it stays unmarked."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_SH)  # nobody holds an exclusive lock for long


@contextlib.contextmanager
def _directory_locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock for renaming and removing files, if locks are supported."""
    fd = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def rotated(path: Path) -> list[Path]:
    """List a log and what it was rotated to, newest first; OSError if the directory is gone."""
    return [_numbered(path, number) for number in reversed(_numbers(path))]


def is_in_use(path: Path) -> bool:
    """Return whether a process is writing to a text log, as far as locks can tell."""
    try:
        fd = os.open(path, os.O_RDONLY | _LOOK)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # without locks, what is known of the start has to do
        return False
    finally:
        os.close(fd)
    return False


def remove_unused(path: Path) -> bool:
    """Remove a text log unless a process is writing to it or this cannot be determined.

    Returns:
        Whether it was removed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | _LOOK)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def text_logs(directory: Path) -> list[tuple[Path, re.Match[str], os.stat_result]]:
    """List the text logs of a directory, including rotated ones, newest first."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = LOG_NAME.fullmatch(entry.name)
                if match is None:
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    if entry.is_file(follow_symlinks=False):
                        found.append((Path(entry.path), match, entry.stat()))
    except OSError:  # no such directory, or not readable
        return []
    return sorted(
        found,
        key=lambda log: (log[1]["stamp"], -int(log[1]["number"] or 0), log[2].st_mtime),
        reverse=True,
    )


def remove_old(path: Path, keep: int) -> list[Path]:
    """Remove the oldest text logs of the same kind as `path` in its directory.

    Args:
        path: A text log. Its kind is the part of the name before the time stamp and the rank after
            it; a name without a stamp is a kind by itself, of which nothing is removed.
        keep: How many to keep, including files in use, which are never removed.

    Returns:
        The removed files.
    """
    own = LOG_NAME.fullmatch(path.name)
    if own is None:
        return []
    removed: list[Path] = []
    kind = own.group("kind", "rank")
    try:
        with _directory_locked(path.parent):
            logs = [
                log for log, name, _ in text_logs(path.parent) if name.group("kind", "rank") == kind
            ]
            surplus = len(logs) - keep
            for log in reversed(logs):
                if surplus <= len(removed):
                    break
                if log != path and remove_unused(log):
                    removed.append(log)
    except OSError as error:
        _log.warning("could not remove old text logs in %s: %s", path.parent, error)
    return removed
