"""Notice at little cost that a run may have changed.

What is compared are the times of the run's directories, sizes and times of the files that can grow,
and the state of the rings: a killed writer changes no file, but its ring's lock, and a writer marks
lines as complete in its ring alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from foundry_fastlog.reading.overlay import Overlay
from foundry_fastlog.run.files import PRIVATE_DIR, Series
from foundry_fastlog.run.start_entries import STARTS_DIR

__all__ = ["TICK_S", "Watch"]

#: The coarsest times that file systems give to directories, in seconds, and some more.
TICK_S = 2.5

_Sign = tuple[object, ...]


class Watch:
    """Remembers how a run looked.

    Args:
        run: The run's directory.
        overlay: Lists the run's files.
    """

    def __init__(self, run: Path, overlay: Overlay) -> None:
        private = run / PRIVATE_DIR
        self._overlay = overlay
        self._directories = [
            os.fspath(path) for path in (run, private, private / "quarantine", run / STARTS_DIR)
        ]
        self._times: _Sign = ()
        self._since = 0.0
        self._files: list[str] = []
        self._look: _Sign | None = None
        self._known: _Sign | None = None

    def is_unchanged(self) -> bool:
        """Look, and say whether the run is as it was when `remember()` was called."""
        times = tuple(map(_sign_of, self._directories))
        if times != self._times:
            self._times, self._since = times, time.monotonic()
        # A file that is made in the same tick of the clock leaves the directory's time as it is.
        settled = time.monotonic() - self._since >= TICK_S
        rings = self._overlay.ring_states() if settled else None
        if rings is None:
            self._look = None
        else:
            self._look = (times, *map(_sign_of, self._files), rings)
        return self._look is not None and self._look == self._known

    def remember(self, found: Iterable[Series]) -> None:
        """Remember the last look, after which these series were found and read.

        Where they are not the ones of that look, the next one is different from it.
        """
        self._known = self._look
        self._files = [os.fspath(series.segments[-1].path) for series in found]

    def forget(self) -> None:
        """Let the next look find a change."""
        self._known = None


def _sign_of(path: str) -> object:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
