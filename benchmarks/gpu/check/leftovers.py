"""Processes that a part has started and lost sight of, as when the one between was killed."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

OURS = "GPU_CHECK_OUT"
"""A variable that the runner sets: the group of this process is a part's, and nobody else's."""


def group_of(stat: Path) -> int:
    """Return the process group in a process's `stat`; 0 for one that is gone."""
    try:
        return int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[2])
    except (OSError, IndexError, ValueError):
        return 0


def end_leftovers() -> None:
    """End the other processes of this part's group: they would keep the device busy."""
    me = os.getpid()
    if OURS not in os.environ or os.getpgrp() != me:
        return
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        if pid != me and group_of(stat) == me:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
