"""Compress a recorder's closed segments while it records, in a thread of its own.

It looks now and then whether there are more segments, and compresses without the GIL. It has no
lower priority: it would then keep the GIL, which all wait for, for as long as others keep it from
running.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

from foundry_fastlog.recording.extension import core
from foundry_fastlog.recording.packing import Stopped, closed_segments, pack, sync_ring
from foundry_fastlog.run.files import STREAMS, Writer, parse_name
from foundry_fastlog.run.packed import check_library

__all__ = ["BackgroundPacking"]

POLL_S = 1.0

_log = logging.getLogger("foundry_fastlog")


class _Recorder(Protocol):
    """The members of `Recorder` that are used."""

    @property
    def path(self) -> Path: ...
    @property
    def closed(self) -> bool: ...
    @property
    def label(self) -> str: ...
    @property
    def stamp(self) -> str: ...
    def stats(self) -> core.RecorderStats: ...
    def _files(self) -> list[str]: ...


class BackgroundPacking:
    """Compresses the closed segments of one recorder of this process, until it is stopped.

    A forked child has no such thread, and starts none: its files are left as they are.

    Args:
        recorder: The recorder; it may go out of use.
        how: ``zstd`` or ``gzip``.
    """

    def __init__(self, recorder: _Recorder, how: str) -> None:
        self._recorder = weakref.ref(recorder)
        self._run = str(recorder.path)
        self._how = how
        self._seen = 0  # segments at the last look
        self._stopped = False
        self._wake: SimpleQueue[None] = (
            SimpleQueue()
        )  # a signal's handler may close its recorder, too
        self._told = False
        self._thread = threading.Thread(target=self._work, name="fastlog-compress", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # no room for a thread
            self._tell(error)

    def stop(self) -> None:
        """Stop: a compression that is at work is given up, and its file stays plain."""
        self._stopped = True
        self._wake.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until it has stopped, but not for a disk that hangs."""
        with contextlib.suppress(RuntimeError):  # it was never started
            self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            check_library(self._how)
            while not self._stopped:
                with contextlib.suppress(Empty):
                    self._wake.get(timeout=POLL_S)
                if not self._look():
                    return
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - nothing here may reach the program
            self._tell(error)

    def _look(self) -> bool:
        """Compress what was closed since the last look; False if the recorder is out of use."""
        recorder = self._recorder()
        if self._stopped or recorder is None or recorder.closed:
            return False
        stats = recorder.stats()
        segments = sum(stream["segments"] for stream in stats["streams"].values())
        if segments == self._seen:
            return True
        plain = recorder._files()  # noqa: SLF001 - its own package
        named = {Path(file): parse_name(Path(file).name) for file in plain}
        files = {path: name for path, name in named.items() if name is not None and path.exists()}
        writer = Writer.from_label(recorder.label, recorder.stamp)
        ring = stats["ring_path"]
        writing = _writing(self._run, ring, recorder.label, stats)
        del recorder, plain
        if writing is None:
            return True
        if sum(last + 1 for last, _, _ in writing["streams"]) >= segments:  # all are committed
            self._seen = segments
        for file in closed_segments(files, {writer: writing}):
            self._pack(file, ring)
        return True

    def _pack(self, file: Path, ring: str | None) -> None:
        try:
            pack(
                file,
                self._how,
                before_removal=lambda: sync_ring(ring),
                go_on=lambda: not self._stopped,
            )
        except FileNotFoundError:  # somebody else has compressed it, or removed it
            pass
        except OSError as error:  # tried again when the next one is closed
            self._tell(error)

    def _tell(self, error: BaseException) -> None:
        """Log once why segments are not compressed."""
        if not self._told:
            self._told = True
            reason = getattr(error, "strerror", None) or error
            _log.warning("closed segments of %s are not compressed: %s", self._run, reason)


def _writing(
    run: str, ring: str | None, label: str, stats: core.RecorderStats
) -> core.Writing | None:
    """Return how far a recorder of this process has committed; None if that is not known."""
    if ring is not None:
        return core.view_ring(os.fsencode(run), os.fsencode(ring), {})["writing"]
    if stats["errors"]:  # lines may have to be moved to another segment, and nobody would know
        return None
    counts = [stats["streams"][stream]["segments"] for stream in STREAMS]
    streams: list[tuple[int, int, tuple[int, int] | None]] = [(n - 1, 0, None) for n in counts]
    return {"label": label, "stamp": "", "streams": streams, "files": []}
