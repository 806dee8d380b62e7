"""Capture: a block of code whose exceptions an ErrorTracker records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from foundry_fastlog.base.decorating import run_inside

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.components.errors import ErrorTracker

__all__ = ["Capture"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Capture:
    """Records exceptions raised in a block; see `ErrorTracker.capture`. Reusable."""

    __slots__ = ("_context", "_level", "_reraise", "_step", "_tracker")

    def __init__(
        self,
        tracker: ErrorTracker,
        context: Mapping[str, Any] | None,
        *,
        reraise: bool,
        step: int | None,
        level: str,
    ) -> None:
        self._tracker = tracker
        self._context = context
        self._reraise = reraise
        self._step = step
        self._level = level

    def __enter__(self) -> Self:
        """Enter the block."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Record an exception; suppress it if the block was created with ``reraise=False``."""
        if not isinstance(exc, Exception):
            return False
        tracker = self._tracker
        if not tracker.has_recorded(exc):
            tracker._log_error(exc, self._context, self._step, self._level, stacklevel=3)  # noqa: SLF001 - the class that creates these
        return not self._reraise

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function or coroutine function; it returns None if an error is suppressed."""
        return run_inside(function, lambda: self)
