"""Follow a run while it goes on, in any process or in its own, and tell of what is wrong."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from foundry_fastlog.analysis.alerts import Alert, Detector, WatchRules, full_disk, stalled
from foundry_fastlog.base.arguments import seconds
from foundry_fastlog.base.environment import moment_of, utc_now
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.reading.cursor import Cursor
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import StrPath

if TYPE_CHECKING:
    from typing_extensions import Self

    from foundry_fastlog.reading.polled import Line
    from foundry_fastlog.reading.start_states import StartReport
    from foundry_fastlog.recording.recorder import Recorder

__all__ = ["Alert", "RunWatch", "WatchRules"]

_log = logging.getLogger("foundry_fastlog.watch")
_STREAMS = ("metrics", "performance", "errors", "log")
#: What a training that hangs records no more; the system stream goes on.
_PROGRESS = ("metrics", "performance")
#: Lines from before that fill the windows of a watch that tells only of what is new.
_FILL = 2000
#: A disk that hangs does not keep a training from its end.
_FLUSH_S = 5.0
_FAILED = {"exception": "failed", "signal": "failed", "killed": "killed"}


def _warn(alert: Alert) -> None:
    _log.warning(alert.message, extra={"alert": alert.kind})


class RunWatch:
    """Watches one run.

    In the training itself, a thread looks at what was written, off the hot path:

        with RunWatch(recorder, on_alert=lambda alert: print(alert.message)):
            train()

    Args:
        run: The directory passed to ``Recorder``, or a recorder of this process, which is flushed
            before the last look.
        rules: What to look for.
        on_alert: Is called with each alert, in the thread that looks. Default: a warning of the
            logger ``foundry_fastlog.watch``. What it raises is logged; the watch goes on.
        interval_s: Seconds between two looks of the thread.
        only_new: Tell only of what is recorded from now on; what is there is looked at, so that
            new values have something to be compared with.

    Attributes:
        path: The run directory.
        alerts: How many there were.
        ended: Whether the run has ended, and all of it was looked at.

    Raises:
        RunNotFoundError: The path is not a run. The message says what to do.
        TypeError, ValueError: ``interval_s`` is not a number above 0.
    """

    def __init__(
        self,
        run: StrPath | Recorder,
        rules: WatchRules | None = None,
        *,
        on_alert: Callable[[Alert], None] = _warn,
        interval_s: float = 5.0,
        only_new: bool = True,
    ) -> None:
        self._rules = rules or WatchRules()
        self._on_alert = on_alert
        self._interval_s = seconds("interval_s", interval_s)
        if self._interval_s == 0:
            raise ValueError("interval_s must be above 0")
        # Not isinstance: the extension is not needed to watch from outside.
        self._recorder = None if isinstance(run, (str, os.PathLike)) else run
        place = run if isinstance(run, (str, os.PathLike)) else run.path
        self._cursor = Cursor(place, _STREAMS)
        self.path = self._cursor.path
        self._detector = Detector(self._rules)
        self._since = time.monotonic()  # the last progress, or the last start of the run
        self._last = ""  # when that was, as its line says
        self._stalled = self._is_full = False
        self.alerts = 0
        self.ended = False
        if only_new:
            before = self._cursor.last(_FILL).lines
            for _ in self._detector.look(before):
                pass
            self._note_progress(before)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # ---- in this thread ------------------------------------------------------------------------

    def look(self) -> list[Alert]:
        """Look at what is new.

        Returns:
            What is wrong with it.

        Raises:
            OSError: The run directory is gone or cannot be read.
        """
        found: list[Alert] = []
        more = True
        while more:
            # The state first: what a run wrote before it ended is then part of what is read.
            report = max(Run(self.path).report_starts(), key=lambda one: one.number, default=None)
            polled = self._cursor.poll()
            more = polled.more
            if polled.starts:
                self._since, self._stalled = time.monotonic(), False
            found += self._detector.look(polled.lines)
            self._note_progress(polled.lines)
        if report is None or report.state in ("running", "unknown"):
            found += self._look_around()
        else:
            found += self._end(report)
        self.alerts += len(found)
        return found

    def _note_progress(self, lines: Iterable[Line]) -> None:
        stamps = [stamp for stamp, series, _, _ in lines if series.stream in _PROGRESS]
        if not stamps:
            return
        if not self._last:  # a run that is looked at for the first time may have stalled before
            self._since = time.monotonic() - max(0.0, time.time() - moment_of(stamps[-1]))
        else:
            self._since = time.monotonic()
        self._last, self._stalled = stamps[-1], False

    def _look_around(self) -> list[Alert]:
        found = []
        idle_s, most_s = time.monotonic() - self._since, self._rules.stall_s
        if most_s is not None and idle_s > most_s and not self._stalled:
            self._stalled = True
            found.append(stalled(utc_now(), idle_s, self._last))
        least = self._rules.disk_free
        free = shutil.disk_usage(self.path).free
        if least is not None and (free < least) is not self._is_full:
            self._is_full = not self._is_full
            if self._is_full:
                found.append(full_disk(utc_now(), free))
        return found

    def _end(self, report: StartReport) -> list[Alert]:
        self.ended = True
        kind = _FAILED.get(report.state)
        if kind is None:
            return []
        said = f"start {report.number} was killed"
        if kind == "failed":
            said = f"start {report.number} failed: {printable(report.error or report.state, 300)}"
        return [Alert(kind, said, report.ended or utc_now())]

    # ---- in a thread of its own ----------------------------------------------------------------

    def start(self) -> Self:
        """Look in a thread, until ``stop()`` or the end of the run.

        Raises:
            RuntimeError: It was started already.
        """
        if self._thread is not None:
            raise RuntimeError("the watch was started already")
        self._thread = threading.Thread(target=self._follow, name="fastlog-watch", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look a last time, and end the thread. May be called again."""
        thread, self._thread = self._thread, None
        if self._recorder is not None and not self._recorder.closed:
            self._recorder.flush(_FLUSH_S)
        self._stop.set()
        if thread is not None:
            thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _follow(self) -> None:
        is_last = False
        while not (is_last or self.ended):
            is_last = self._stop.wait(self._interval_s)
            try:
                for alert in self.look():
                    self._tell(alert)
            except OSError as error:
                _log.warning("the watch of %s ends: %s", self.path, error)
                return

    def _tell(self, alert: Alert) -> None:
        try:
            self._on_alert(alert)
        except Exception:  # noqa: BLE001 - any callback: the watch goes on
            _log.exception("on_alert failed for: %s", alert.message)
