"""One `Recorder` per directory and process, shared by the components that record there."""

from __future__ import annotations

import os
import weakref
from typing import Any

from foundry_fastlog.base.fork_lock import ForkLock
from foundry_fastlog.recording.recorder import Recorder, open_run, recorder_of

__all__ = ["acquire", "release"]

# How many components use a recorder that acquire() opened. A recorder opened by someone else is
# not in here: whoever opened it closes it.
_users: weakref.WeakKeyDictionary[Recorder, int] = weakref.WeakKeyDictionary()
_lock = ForkLock()  # reentrant: the garbage collector may release() while acquire() holds it


def acquire(
    directory: str | os.PathLike[str],
    **options: Any,  # noqa: ANN401 - passed to Recorder, which types them
) -> Recorder:
    """Return this process's recorder for a directory, opening one if there is none.

    Args:
        directory: The run's directory.
        **options: As for `Recorder`; used if the recorder is opened here, ignored if it is already
            open.

    Returns:
        The recorder. Pass it to release() when done. The last release() closes it, unless it was
        open before the first acquire().
    """
    with _lock:
        found = recorder_of(directory, options.get("rank"))
        recorder = open_run(directory, **options) if found is None else found
        if found is None or recorder in _users:
            _users[recorder] = _users.get(recorder, 0) + 1
        return recorder


def release(recorder: Recorder) -> bool:
    """Release a recorder that acquire() returned.

    Args:
        recorder: The recorder.

    Returns:
        False when this closed the recorder and the timeout expired before everything was written.
    """
    with _lock:
        count = _users.get(recorder)
        if count is None:
            return True
        if count > 1:
            _users[recorder] = count - 1
            return True
        del _users[recorder]
    return recorder.close()
