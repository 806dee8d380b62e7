"""A run as recovery would leave it, without changing a file.

A process that was killed leaves records in its ring that are in no file yet, and perhaps
the beginning of a batch in its files that it had not noted as written. Recovery cuts the
files where the ring says that they end, and writes the records; here the same is done to
a view of the files, so that every reader sees what was recorded, to the byte.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foundry_fastlog.files import (
    PRIVATE_DIR,
    Segment,
    Series,
    StrPath,
    group_series,
    list_segments,
    parse_name,
)

if TYPE_CHECKING:  # loaded when a run has rings
    from foundry_fastlog.ring_drain import Edit
    from foundry_fastlog.ring_files import RingReport

__all__ = ["Overlay"]

#: Device and inode of a file, twice: of the ring, and of the pointer that led to it.
_Identity = tuple[int, int, int, int]


class _Known(NamedTuple):
    """A dead ring that has been read. It stays what it is until it is gone."""

    identity: _Identity | None
    report: RingReport
    edits: dict[str, Edit]


class Overlay:
    """Lists the files of a run with what the rings of dead processes add to them.

    Args:
        run: The run directory.

    Attributes:
        rings: What was found, per ring, when the files were last listed.
    """

    def __init__(self, run: StrPath) -> None:
        self._run = Path(run)
        self._known: dict[str, _Known] = {}
        self.rings: list[RingReport] = []

    def list_series(self) -> list[Series]:
        """List the run's series as they are now.

        Raises:
            OSError: The run directory cannot be listed.
        """
        # Rings first: one that is recovered meanwhile is complete in the files listed next.
        edits = self._refresh()
        segments = {segment.path.name: segment for segment in list_segments(self._run)}
        for name, edit in edits.items():
            parsed = parse_name(name)
            if edit.removed:
                segments.pop(name, None)
            elif parsed is not None:  # a ring may name files that are none of a run
                segments[name] = Segment(
                    self._run / name, parsed, edit.size, edit.kept, edit.pending
                )
        return group_series(segments.values())

    def refresh(self) -> list[RingReport]:
        """Look at the rings alone, and report on each."""
        self._refresh()
        return self.rings

    def _refresh(self) -> dict[str, Edit]:
        """Read the rings that have become dead; the changes that all of them make."""
        if not (self._run / PRIVATE_DIR).is_dir():
            self._known, self.rings = {}, []
            return {}
        from foundry_fastlog.ring_files import RingReport, list_rings

        try:
            names = list_rings(self._run)
        except OSError as error:
            directory = str(self._run / PRIVATE_DIR)
            reason = f"read {directory}: {error.strerror or error}"
            self._known, self.rings = (
                {},
                [RingReport(self._run, directory, "failed", reason=reason)],
            )
            return {}
        known: dict[str, _Known] = {}
        edits: dict[str, Edit] = {}
        for name in names:
            before = self._known.get(name)
            if (
                before is None
                or before.identity is None
                or before.identity != self._identify(name, before.report)
            ):
                before = self._read(name, edits)
            known[name] = before
            edits |= before.edits
        self._known = known
        self.rings = [one.report for one in known.values()]
        return edits

    def _read(self, name: str, edits: dict[str, Edit]) -> _Known:
        from foundry_fastlog.ring_drain import drain
        from foundry_fastlog.ring_files import RingReport, find_ring

        ring = find_ring(self._run, name)
        if ring.outcome == "dead":
            report, changes = drain(self._run, ring, edits)
            return _Known(self._identify(name, report), report, changes)
        report = RingReport(
            self._run, ring.ring, ring.outcome, ring.label, ring.reason, ring.same_boot
        )
        identity = self._identify(name, report) if ring.outcome == "damaged" else None
        return _Known(identity, report, {})

    def _identify(self, name: str, report: RingReport) -> _Identity | None:
        """What tells a ring from another that takes its place; None when it is gone."""
        try:
            entry = (self._run / PRIVATE_DIR / name).lstat()
            ring = os.lstat(report.ring)
        except OSError:
            return None
        return (entry.st_dev, entry.st_ino, ring.st_dev, ring.st_ino)
