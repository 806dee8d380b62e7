"""Processes that a part has started and lost track of, as when their parent was killed."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

OURS = "GPU_CHECK_OUT"
"""Set by the runner: this process's group belongs to a part only."""


def group_of(stat: Path) -> int:
    """Return the process group from a process's `stat`; 0 if the process is gone."""
    try:
        return int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[2])
    except (OSError, IndexError, ValueError):
        return 0


def end_leftovers() -> None:
    """End the other processes of this part's group, which would keep the device busy."""
    me = os.getpid()
    if OURS not in os.environ or os.getpgrp() != me:
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        if pid != me and group_of(stat) == me:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
