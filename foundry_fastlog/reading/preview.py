"""Find the runs whose processes left rings, and preview what recovery would do.

Recovery itself: ``foundry_fastlog.recover``.
"""

from __future__ import annotations

import os
from pathlib import Path

from foundry_fastlog.reading.found_rings import RingReport
from foundry_fastlog.reading.overlay import Overlay
from foundry_fastlog.run.files import (
    PRIVATE_DIR,
    RunNotFoundError,
    StrPath,
    find_runs,
    open_run_dir,
)
from foundry_fastlog.run.info import RUN_FILE, last_unended

__all__ = ["RingReport", "preview", "runs_with_rings"]


def runs_with_rings(path: StrPath) -> list[Path]:
    """List the runs at or below a path that may have rings, sorted.

    Args:
        path: A run, or a directory with runs somewhere below it. Links and hidden
            directories are not followed.

    Returns:
        The directories that have a private directory, those without one whose last start did not
        end, and those that cannot be listed.

    Raises:
        RunNotFoundError: There is no run. The message says what to do.
    """
    root = Path(path)
    if not root.is_dir():
        open_run_dir(root)  # raises with the reason
    found: list[Path] = []
    unlisted: list[Path] = []
    for directory, names, files in os.walk(
        root, onerror=lambda error: unlisted.append(Path(error.filename))
    ):
        private = PRIVATE_DIR in (*names, *files)  # also if it is not a directory: that is reported
        if private or (RUN_FILE in files and last_unended(Path(directory)) is not None):
            found.append(Path(directory))
        names[:] = sorted(name for name in names if not name.startswith("."))
    found += [place for place in unlisted if place != root]
    if not found:
        try:
            open_run_dir(root)
        except RunNotFoundError:
            if not find_runs(root):
                raise
    return found


def preview(path: StrPath) -> list[RingReport]:
    """Report what recovery would do, without changing anything.

    Args:
        path: A run, or a directory with runs below it.

    Returns:
        A report per ring.

    Raises:
        RunNotFoundError: There is no run.
    """
    return [report for run in runs_with_rings(path) for report in Overlay(run).refresh()]
