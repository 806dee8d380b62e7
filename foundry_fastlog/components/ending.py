"""The end of a run: SIGTERM, as Slurm and Kubernetes send it, and what is written at a close."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundry_fastlog.components.performance import PerformanceLogger
    from foundry_fastlog.messages.structured import StructuredLogger
    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["Forget", "on_sigterm", "write_profile"]

Forget = Callable[[], None]
Handler = Callable[[int, FrameType | None], None]

_TOGETHER_S = 1.0

_ends: list[Callable[[], object]] = []
_ending = SimpleNamespace(since=0.0)


def on_sigterm(end: Callable[[], object]) -> Forget:
    """Call a function when SIGTERM comes; then the process ends by it, as it does without.

    If the program has a handler for SIGTERM, or this is not the main thread, it is not called:
    the program ends in its own way.

    Args:
        end: The function.

    Returns:
        A function that takes it back.
    """
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _on_sigterm)
    _ends.append(end)

    def forget() -> None:
        with contextlib.suppress(ValueError):
            _ends.remove(end)
        if not _ends:
            _replace(_on_sigterm, signal.SIG_DFL)

    return forget


def _on_sigterm(number: int, _: FrameType | None) -> None:
    _ending.since = time.monotonic()
    _replace(_on_sigterm, _again)
    try:
        while _ends:
            with contextlib.suppress(Exception):
                _ends.pop()()
    finally:
        _replace(_again, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _again(number: int, _: FrameType | None) -> None:
    """End the process at once, but for one that came with the first: to it and to its group."""
    if time.monotonic() - _ending.since > _TOGETHER_S:
        _replace(_again, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _replace(ours: Handler, other: Handler | signal.Handlers) -> None:
    with contextlib.suppress(ValueError):  # not the main thread
        if signal.getsignal(signal.SIGTERM) is ours:
            signal.signal(signal.SIGTERM, other)


class _Held(threading.local):
    """Whether this thread has held back SIGTERM for a fork."""

    forking = False


_held = _Held()


def _before_fork() -> None:
    """Hold back SIGTERM: Python forgets what reaches a child before it is one."""
    if signal.getsignal(signal.SIGTERM) in (_on_sigterm, _again):
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        _held.forking = signal.SIGTERM not in blocked


def _after_fork() -> None:
    if _held.forking:
        _held.forking = False
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def _after_fork_in_child() -> None:
    """A forked worker is ended by SIGTERM at once, also while it is not in Python."""
    _ends.clear()
    for handler in (_on_sigterm, _again):
        _replace(handler, signal.SIG_DFL)
    _after_fork()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
)


def write_profile(
    performance: PerformanceLogger, recorder: Recorder, stamp: str, log: StructuredLogger
) -> None:
    """Write what ``profile_performance`` enables; a failing disk does not raise.

    Args:
        performance: The run's timings.
        recorder: The run's recorder.
        stamp: The time in the names of the files.
        log: Is told of a trace that could not be written.
    """
    from foundry_fastlog.export.perfetto import export_chrome_trace

    directory = recorder.path
    performance.export_timing_report(directory / f"timing_{stamp}.json")
    recorder.flush()
    try:
        export_chrome_trace(directory, directory / f"trace_{stamp}.json")
    except OSError as error:
        log.warning("Trace not written", error=str(error))
