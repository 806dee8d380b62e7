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
        function: The function.
        block: Returns the context manager for one call.

    Returns:
        The wrapped function. It returns None if the block suppresses an exception.

    Raises:
        TypeError: It is a generator function: the block would end before its code runs, or last
            while others run.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        name = getattr(function, "__qualname__", function)
        raise TypeError(
            f"{name} is a generator function: its code runs piece by piece, between what its "
            "caller does. Put the block inside it, with `with`, around the code between two yields"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: _P.args, **kwargs: _P.kwargs) -> object:
            with block():
                return await function(*args, **kwargs)

        return cast("Callable[_P, _R]", coroutine)

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> object:
        with block():
            return function(*args, **kwargs)

    return cast("Callable[_P, _R]", call)
