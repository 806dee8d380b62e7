"""What killed processes left in their rings is put into the files of their runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_fastlog.recording.extension import core
from foundry_fastlog.run.info import last_unended

if TYPE_CHECKING:
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["finish_dead", "mark_lost", "recover"]

_log = logging.getLogger("foundry_fastlog")


def recover(path: str | os.PathLike[str]) -> list[RingReport]:
    """Put what killed processes left in their rings into the files of their runs.

    Opening and closing a `Recorder` does so for its run, and readers show these records
    anyway; this is for runs that nobody goes on with, and for those that read the files
    with other programs. Safe at any time, also while the run trains, and safe to repeat.

    Args:
        path: A run's directory, or a directory with runs somewhere below it.

    Returns:
        A report per ring that was found; see `foundry_fastlog.RingReport`. Its ``sound`` is
        False where something could not be recovered.

    Raises:
        RunNotFoundError: There is no run. The message says what to do.
    """
    from foundry_fastlog.reading.absent_rings import report_absent
    from foundry_fastlog.reading.found_rings import RingReport, list_quarantined
    from foundry_fastlog.reading.overlay import Overlay
    from foundry_fastlog.reading.preview import runs_with_rings

    reports: list[RingReport] = []
    for run in runs_with_rings(path):
        before = list_quarantined(run)
        found = [RingReport(run, **report) for report in core.recover_run(os.fsencode(run))]
        # No ring at all: perhaps because they may not be listed, which the overlay tells.
        reports += [*found, *before, *report_absent(run)] if found else Overlay(run).refresh()
    return reports


def mark_lost(directory: Path) -> None:
    """Keep in mind what a run without a private directory lacks, if it does.

    Args:
        directory: The run's directory.
    """
    label = last_unended(directory)
    if label is not None:
        from foundry_fastlog.reading import absent_rings

        absent_rings.mark_lost(directory, label)


def finish_dead(directory: str, timeout_s: float = 1e9) -> None:
    """Put what dead processes left in their rings into the run's files, and say so.

    Args:
        directory: The run's directory.
        timeout_s: Begin with no further ring after so many seconds.
    """
    for report in core.recover_run(os.fsencode(directory), timeout_s):
        if report["outcome"] == "recovered" and report["emitted"]:
            _log.info(
                "recovered %d records that a killed process had left in %s",
                report["emitted"],
                report["ring"],
            )
        elif report["outcome"] in ("quarantined", "failed", "elsewhere"):
            _log.warning(
                "a ring file could not be recovered (%s): %s: %s",
                report["outcome"],
                report["ring"],
                report["reason"],
            )
