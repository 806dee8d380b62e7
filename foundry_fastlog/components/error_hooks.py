"""Hooks that record the exceptions that end a program or a thread, and pass them on."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Hooks"]

_Record = Callable[[BaseException, dict[str, Any]], None]


class Hooks:
    """A pair of hooks, installed in sys.excepthook and threading.excepthook.

    Whatever recording raises, the previous hooks are called. After remove(), these hooks record
    nothing, even if a later hook still calls them.
    """

    def __init__(self, record: _Record) -> None:
        """Install the hooks.

        Args:
            record: Called with each exception and a context that says where it occurred.
        """
        self._record = record
        self._active = True
        # Kept so that they can be compared by identity: each attribute access makes a new bound
        # method.
        self._sys_hook = self._on_program
        self._threading_hook = self._on_thread
        self._sys_before, sys.excepthook = sys.excepthook, self._sys_hook
        self._threading_before = threading.excepthook
        threading.excepthook = self._threading_hook

    def remove(self) -> None:
        """Restore the previous hooks, unless a later hook has been installed over these."""
        self._active = False
        if sys.excepthook is self._sys_hook:
            sys.excepthook = self._sys_before
        if threading.excepthook is self._threading_hook:
            threading.excepthook = self._threading_before

    def _on_program(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        self._see(error, {"uncaught": True, "thread": threading.current_thread().name})
        self._sys_before(kind, error, trace)

    def _on_thread(self, arguments: threading.ExceptHookArgs) -> None:
        thread = arguments.thread
        error = arguments.exc_value
        if error is None:  # the interpreter may leave creating it to the hook
            error = arguments.exc_type()
        self._see(error, {"uncaught": True, "thread": thread.name if thread else None})
        self._threading_before(arguments)

    def _see(self, error: BaseException, context: dict[str, Any]) -> None:
        if not self._active or isinstance(error, (KeyboardInterrupt, SystemExit)):
            return
        try:
            self._record(error, context)
        except Exception:  # noqa: BLE001 - the previous hook must show the error in any case
            return
