"""The registry of this process's open recorders: two in one directory would corrupt the run."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from foundry_fastlog.base.fork_lock import ForkLock

__all__ = ["OpenRecorders"]


class _Recorder(Protocol):
    """The members of `Recorder` that the registry uses."""

    @property
    def path(self) -> Path: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def _directory(self) -> tuple[int, int]: ...


_R = TypeVar("_R", bound=_Recorder)


class _Entry(Generic[_R]):
    """A recorder and where it records."""

    def __init__(self, recorder: _R) -> None:
        self.recorder = weakref.ref(recorder)
        self.place = os.path.realpath(recorder.path)
        self._identity: tuple[int, int] | None = None
        self.identify(recorder)

    def identify(self, recorder: _R) -> tuple[int, int] | None:
        """Return where it records now: it may have moved, or created its directory since."""
        device, inode = recorder._directory  # noqa: SLF001 - its own registry
        if inode:  # also 0 in a forked child that has not recorded yet
            self._identity = device, inode
        return self._identity


class OpenRecorders(Generic[_R]):
    """Finds a process's recorder for a directory, and lists all of them at exit.

    A directory is identified by device and inode, whatever link or mount leads to it. A directory
    that does not exist (it cannot be created yet, or was removed and its recorder will recreate it)
    is identified by its path with links resolved.

    Attributes:
        lock: Hold it from the search for a recorder until the new one is added. Reentrant.
    """

    def __init__(self) -> None:
        self.lock = ForkLock()
        self._entries: list[_Entry[_R]] = []

    def add(self, recorder: _R) -> None:
        """Add a newly opened recorder; it is removed when it is garbage-collected.

        Args:
            recorder: The recorder.
        """
        entry = _Entry(recorder)
        # A new list, so that a search in another thread finishes on the old one.
        self._entries = [
            *(other for other in self._entries if other.recorder() is not None),
            entry,
        ]

    def find(self, directory: str, rank: int | None) -> _R | None:
        """Return the recorder open in a directory for a rank, or None.

        Args:
            directory: The directory; need not exist.
            rank: The rank; None means 0.
        """
        place = os.path.realpath(directory)
        try:
            status = Path(directory).stat()
        except OSError:
            identity = None
        else:
            identity = status.st_dev, status.st_ino
        for entry in self._entries:
            recorder = entry.recorder()
            if recorder is None or (recorder.rank or 0) != (rank or 0) or recorder.closed:
                continue
            known = entry.identify(recorder)
            if entry.place == place or (known is not None and known == identity):
                return recorder
        return None

    def list_all(self) -> list[_R]:
        """List all that are not garbage-collected, including closed ones, oldest first."""
        found = [entry.recorder() for entry in self._entries]
        return [recorder for recorder in found if recorder is not None]
