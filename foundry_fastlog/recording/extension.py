"""The native core, or the reason why it cannot be loaded."""

from __future__ import annotations

from foundry_fastlog.base import caller_time

try:
    from foundry_fastlog import _core as core
    from foundry_fastlog._core import RecorderClosedError
except ImportError as error:
    if "subinterpreter" in str(error):
        raise
    raise ImportError(
        "the native part of foundry_fastlog is missing or was built for another Python "
        f"({error}). Install a wheel with `pip install foundry_fastlog`, or build from a checkout "
        "with `pip install -e .` (needs g++ or clang with C++20 and the Python headers). Reading "
        "lines (read_run(...).lines) works without it, but for the rings of killed processes."
    ) from error

__all__ = ["RecorderClosedError", "core"]

caller_time.use(core.begin_span, core.end_span)
