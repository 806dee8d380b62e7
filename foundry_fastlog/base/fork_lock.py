"""A lock for objects that are used on in forked children."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType

__all__ = ["ForkLock"]


class ForkLock:
    """A reentrant lock that is free in a forked child.

    A plain lock held by another thread during the fork would stay locked in the child, where that
    thread does not exist. The guarded data may be half changed in the child: guard only data that
    is consistent after each statement.
    """

    __slots__ = ("__weakref__", "_lock", "_pid")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()
        _all.add(self)

    def __enter__(self) -> None:
        """Acquire the lock."""
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock."""
        try:
            self._lock.release()
        except RuntimeError:  # the holder itself forked: the child has a new lock, which is free
            if os.getpid() == self._pid:
                raise

    def _renew(self) -> None:
        self._lock = threading.RLock()


_all: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock._renew()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_renew_all)
