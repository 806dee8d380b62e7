"""Make room for lines between tqdm's progress bars. Those of rich replace the streams themselves.

tqdm is never imported: if the program has not, there are no bars.
"""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["bars_aside"]

_LOCK_S = 0.02


@contextlib.contextmanager
def bars_aside(stream: TextIO) -> Iterator[None]:
    """Clear the bars on a terminal, and draw them again after the block.

    The program's threads need tqdm's lock to advance a bar. So it is waited for briefly, and not
    taken at all if the terminal accepts nothing now; then lines come between what the bars write.

    Args:
        stream: Where the block writes.
    """
    bars: Any = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    if not getattr(bars, "_instances", None) or not _accepts(stream):
        yield
        return
    with contextlib.ExitStack() as stack:
        if _taken(bars.get_lock(), stack):
            with contextlib.suppress(Exception):  # tqdm's own classes, and others'
                stack.enter_context(bars.external_write_mode(file=stream, nolock=True))
        yield


def _taken(lock: Any, stack: contextlib.ExitStack) -> bool:  # noqa: ANN401 - tqdm's, or a user's
    """Take a lock, or the locks that tqdm's own is made of, until the stack is left."""
    for one in getattr(lock, "locks", [lock]):
        if not one.acquire(True, _LOCK_S):  # noqa: FBT003 - by place: the names differ
            return False
        stack.callback(one.release)
    return True


def _accepts(stream: TextIO) -> bool:
    """Whether a stream can be written to now; true where that cannot be asked."""
    try:
        asked = select.poll()
        asked.register(stream.fileno(), select.POLLOUT)
        return bool(asked.poll(0))
    except (OSError, ValueError, AttributeError):
        return True
