"""Capture: a block of code whose exceptions are recorded."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from foundry_fastlog.base.decorating import run_inside

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Capture"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Capture:
    """Records exceptions raised in a block; see `ErrorTracker.capture`. Reusable."""

    __slots__ = ("_record", "_reraise")

    def __init__(self, record: Callable[[Exception], object], *, reraise: bool) -> None:
        self._record = record
        self._reraise = reraise

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
        self._record(exc)
        return not self._reraise

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorate a function or coroutine function; it returns None if an error is suppressed."""
        return run_inside(function, lambda: self)
