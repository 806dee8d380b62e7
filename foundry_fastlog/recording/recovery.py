"""Recovery: write records that killed processes left in their rings to their runs' files."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from foundry_fastlog.recording.extension import core
from foundry_fastlog.run.info import last_unended
from foundry_fastlog.run.start_entries import note_killed

if TYPE_CHECKING:
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["finish_dead", "mark_lost", "recover"]

_log = logging.getLogger("foundry_fastlog")


def recover(path: str | os.PathLike[str]) -> list[RingReport]:
    """Write records that killed processes left in their rings to their runs' files.

    Opening and closing a `Recorder` does this for its run, and readers show these records anyway.
    Call this for runs that will not be resumed, and before other programs read the files. Safe at
    any time, even while the run trains, and safe to repeat.

    Args:
        path: A run's directory, or a directory with runs somewhere below it.

    Returns:
        A report per ring found; see `foundry_fastlog.RingReport`. Its ``sound`` is False if
        something could not be recovered.

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
        found = [RingReport(run, **report) for report in _recover(run)]
        # No rings found: they may be unreadable, which the overlay reports.
        reports += [*found, *before, *report_absent(run)] if found else Overlay(run).refresh()
    return reports


def mark_lost(directory: Path) -> None:
    """Remember what a run that has lost its private directory is missing, if anything.

    Args:
        directory: The run's directory.
    """
    label = last_unended(directory)
    if label is not None:
        from foundry_fastlog.reading import absent_rings

        absent_rings.mark_lost(directory, label)


def finish_dead(directory: str, timeout_s: float = 1e9) -> None:
    """Write records that dead processes left in their rings to the run's files, and log it.

    Args:
        directory: The run's directory.
        timeout_s: After this many seconds, do not start another ring.
    """
    for report in _recover(Path(directory), timeout_s):
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


def _recover(run: Path, timeout_s: float = 1e9) -> list[core.RecoveryReport]:
    reports = core.recover_run(os.fsencode(run), timeout_s)
    try:
        note_killed(run, [one["label"] for one in reports if one["outcome"] == "recovered"])
    except (OSError, ValueError) as error:  # or a label of another version
        _log.warning("could not write how processes of %s ended: %s", run, error)
    return reports
