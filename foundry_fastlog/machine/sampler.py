"""System metrics in the background: `SystemMetrics` samples the machine during training."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.machine.reader import SystemReader

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["SystemMetrics", "SystemReader"]

# The first sample is taken after at most this many seconds, so that short runs have one, too.
_FIRST_S = 1.0
_STOP_TIMEOUT_S = 2.0

_log = logging.getLogger("foundry_fastlog")


class SystemMetrics:
    """Samples CPU, memory, disk and GPUs at an interval, in its own daemon thread.

    Ownership: only the sampler thread uses its `SystemReader` and writes `samples` and `errors`;
    start(), stop() and read_once() belong to the caller's threads. A sample takes a few system
    calls and small files; reading disks and GPUs releases the GIL.

    A forked child has no sampler thread: it may start() its own.

    Attributes:
        samples: Samples recorded so far.
        errors: Samples that failed; the first is reported through `logging`.

    Example:
        >>> from foundry_fastlog import Recorder  # doctest: +SKIP
        >>> with Recorder("runs/exp0") as recorder:
        ...     with SystemMetrics(recorder, 10.0, step=lambda: trainer.step):
        ...         trainer.train()
    """

    def __init__(
        self,
        recorder: Recorder,
        interval_s: float = 10.0,
        *,
        step: Callable[[], int | None] | None = None,
    ) -> None:
        """Prepare; start() starts sampling.

        Args:
            recorder: Where samples go. The disk of its directory is measured.
            interval_s: Seconds between samples, 0.01 to 86400.
            step: Returns the current training step, or None; called in the sampler thread. Samples
                say it beside their figures.

        Raises:
            TypeError: ``interval_s`` is not a number, or ``step`` is not callable.
            ValueError: ``interval_s`` is out of range.
        """
        if isinstance(interval_s, bool) or not isinstance(interval_s, (int, float)):
            raise TypeError(f"interval_s must be a number, got {type(interval_s).__name__}")
        if not 0.01 <= interval_s <= 86400:
            raise ValueError(f"interval_s must be between 0.01 and 86400, got {interval_s}")
        if step is not None and not callable(step):
            raise TypeError(f"step must be a function or None, got {type(step).__name__}")
        self.samples = 0
        self.errors = 0
        self._recorder = recorder
        self._interval_s = float(interval_s)
        self._step = step
        self._reader: SystemReader | None = None  # of read_once()
        self._thread: threading.Thread | None = None
        self._stop: SimpleQueue[None] = SimpleQueue()
        self._pid = os.getpid()

    @property
    def running(self) -> bool:
        """Whether a sampler thread runs in this process."""
        thread = self._thread
        return thread is not None and os.getpid() == self._pid and thread.is_alive()

    def start(self) -> Self:
        """Start the thread, unless it is already running.

        Without room for one more thread there are no samples, and a warning says so.

        Returns:
            The object itself.
        """
        if not self.running:
            self._pid = os.getpid()
            # Not an Event: a signal handler may call stop() during a stop() of its own thread.
            self._stop = SimpleQueue()
            reader = None
            # Created here: importing psutil and pynvml must not slow down the first steps.
            with contextlib.suppress(Exception):  # no descriptor is free: the samples try again
                reader = SystemReader(self._recorder.path)
            thread = threading.Thread(
                target=self._run, args=(reader, self._stop), name="fastlog-system", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                _log.warning("system metrics: not sampled (%s). Training is not affected.", error)
            else:
                self._thread = thread
        return self

    def stop(self) -> None:
        """Stop the thread; waits at most 2 s for a sample in progress. Safe to repeat."""
        if self.running:
            self._stop.put(None)
            if self._thread is not threading.current_thread() and self._thread is not None:
                self._thread.join(_STOP_TIMEOUT_S)

    def read_once(self) -> dict[str, float]:
        """Return the current figures without recording them.

        Returns:
            See `SystemReader.read`; CPU percentages cover the time since the last read_once(), or
            an instant at the first.
        """
        if self._reader is None:
            self._reader = SystemReader(self._recorder.path)
        return self._reader.read()

    def _run(self, reader: SystemReader | None, stop: SimpleQueue[None]) -> None:
        delay = min(self._interval_s, _FIRST_S)
        while _still_empty(stop, delay):
            delay = self._interval_s
            try:
                if reader is None:
                    reader = SystemReader(self._recorder.path)
                self._record(reader.read())
            except Exception as error:  # noqa: BLE001 - from the system or from step(): counted and reported
                if self._recorder.closed:
                    break  # a closed recorder ends the sampler, too
                self.errors += 1
                if self.errors == 1:
                    _log.warning(
                        "system metrics: a sample failed (%s: %s). Training is not affected; "
                        "further failures are only counted.",
                        type(error).__name__,
                        safe_str(error),
                    )
        if reader is not None:
            reader.close()

    def _record(self, figures: dict[str, float]) -> None:
        self._recorder.system(figures, step=None if self._step is None else self._step())
        self.samples += 1

    def __enter__(self) -> Self:
        """Start the thread."""
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the thread; exceptions propagate."""
        self.stop()


def _still_empty(queue: SimpleQueue[None], timeout: float) -> bool:
    try:
        queue.get(timeout=timeout)
    except Empty:
        return True
    return False
