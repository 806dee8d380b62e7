"""Make decorators from context managers, for functions and coroutine functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["run_inside"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def run_inside(
    function: Callable[_P, _R], block: Callable[[], AbstractContextManager[Any, bool | None]]
) -> Callable[_P, _R]:
    """Wrap a function or coroutine function so that each call runs inside a block.

    Args:
        function: The function, or an object that is called; under ``@staticmethod`` or
            ``@classmethod`` or above it.
        block: Returns the context manager for one call.

    Returns:
        The wrapped function. It returns None if the block suppresses an exception.

    Raises:
        TypeError: It cannot be called; or it is a generator function: the block would end before
            its code runs, or last while others run.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind = type(function)
        return cast("Callable[_P, _R]", kind(run_inside(function.__func__, block)))
    if not callable(function):
        raise TypeError(f"a block decorates a function, got {type(function).__name__}")
    code = _code_of(function)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        name = getattr(function, "__qualname__", function)
        raise TypeError(
            f"{name} is a generator function: its code runs piece by piece, between what its "
            "caller does. Put the block inside it, with `with`, around the code between two yields"
        )
    if inspect.iscoroutinefunction(code):

        @functools.wraps(function)
        async def coroutine(*args: _P.args, **kwargs: _P.kwargs) -> object:
            with block():
                return await cast("Any", function)(*args, **kwargs)

        return cast("Callable[_P, _R]", coroutine)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> object:
        with block():
            return function(*args, **kwargs)

    return cast("Callable[_P, _R]", call)


def _code_of(function: Callable[..., object]) -> Callable[..., object]:
    """Return what runs when something is called: of an object, the method of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__
