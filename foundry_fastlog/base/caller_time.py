"""Counts the time that this package's Python code takes on the threads that call it.

``Recorder.stats()`` reports it with the native calls, which count themselves. Until the native part
is loaded, nothing is recorded and nothing counted.

    begin = caller_time.begin()
    try:
        ...
    finally:
        caller_time.end(begin)
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["begin", "end", "use"]


def begin() -> int:
    """Begin a span; 0 within another one of this thread, which counts all."""
    return 0


def end(begin: int, /) -> None:
    """End it."""


def use(native_begin: Callable[[], int], native_end: Callable[[int], None]) -> None:
    """Count from now on, by the native functions."""
    global begin, end
    begin, end = native_begin, native_end
