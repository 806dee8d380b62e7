"""Which recorders this process has open: two in one directory would be two writers of one story."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from foundry_fastlog.base.fork_lock import ForkLock

__all__ = ["OpenRecorders"]


class _Recorder(Protocol):
    """What is asked of a `Recorder`."""

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
    """A recorder, and where it records."""

    def __init__(self, recorder: _R) -> None:
        self.recorder = weakref.ref(recorder)
        self.place = os.path.realpath(recorder.path)
        self._identity: tuple[int, int] | None = None
        self.identify(recorder)

    def identify(self, recorder: _R) -> tuple[int, int] | None:
        """Where it records now: it may have moved on, or have made its directory since."""
        device, inode = recorder._directory  # noqa: SLF001 - its own registry
        if inode:  # 0 also in a forked child that has not recorded yet
            self._identity = device, inode
        return self._identity


class OpenRecorders(Generic[_R]):
    """Finds a process's recorder for a directory, and all of them at its end.

    A directory is known by device and inode, whatever link or mount leads to it. Where there is
    none (it cannot be made yet, or was removed and its recorder will make it anew) it is known by
    its path without links.

    Attributes:
        lock: Held from the search for a recorder until the new one is added. Reentrant.
    """

    def __init__(self) -> None:
        self.lock = ForkLock()
        self._entries: list[_Entry[_R]] = []

    def add(self, recorder: _R) -> None:
        """Enter a recorder that was opened; it leaves when it is collected.

        Args:
            recorder: The recorder.
        """
        entry = _Entry(recorder)
        # A new list: a search in another thread goes on in the one that it began with.
        self._entries = [
            *(other for other in self._entries if other.recorder() is not None),
            entry,
        ]

    def find(self, directory: str, rank: int | None) -> _R | None:
        """Return the recorder that is open in a directory for a rank, or None.

        Args:
            directory: The directory; need not exist.
            rank: The rank; None is 0.
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
        """List all that are not collected, closed ones too, in the order of their opening."""
        found = [entry.recorder() for entry in self._entries]
        return [recorder for recorder in found if recorder is not None]
