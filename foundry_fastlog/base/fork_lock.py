"""A lock for objects that live on in forked children."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType

__all__ = ["ForkLock"]


class ForkLock:
    """A reentrant lock that a forked child finds free.

    A plain lock that another thread held at the moment of the fork would stay locked in the child,
    where that thread does not exist. What it guards may be half changed there: guard only what
    is sound after each single statement.
    """

    __slots__ = ("__weakref__", "_lock", "_pid")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()
        _all.add(self)

    def __enter__(self) -> None:
        """Wait for the lock and take it."""
        self._lock.acquire()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give it back."""
        try:
            self._lock.release()
        except RuntimeError:  # the holder itself forked: the child's lock is another, and free
            if os.getpid() == self._pid:
                raise

    def _renew(self) -> None:
        self._lock = threading.RLock()


_all: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock._renew()  # noqa: SLF001 - its own module


os.register_at_fork(after_in_child=_renew_all)
