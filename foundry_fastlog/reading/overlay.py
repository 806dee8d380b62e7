"""A run as recovery would leave it, without changing any file.

A killed process leaves records in its ring that are not yet in any file, and perhaps the beginning
of a batch in its files that it had not marked as written. Recovery cuts torn ends and writes the
records whose lines are missing. Here recovery does the same to a view of the files
(``csrc/core/shadow_files.hpp``), so that every reader sees exactly what was recorded.

The files of a live process are read as far as its ring marks them as complete. What follows is
still being written: a line may be torn, or a segment may exist before the previous one is listed.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from foundry_fastlog.run.files import (
    PRIVATE_DIR,
    STREAMS,
    Segment,
    Series,
    StrPath,
    Writer,
    group_series,
    parse_name,
)
from foundry_fastlog.run.listing import Unread, list_files
from foundry_fastlog.run.packed import is_packed
from foundry_fastlog.run.segment_file import Range

if TYPE_CHECKING:  # loaded only if a run has rings; so is the extension
    from foundry_fastlog._core import Writing
    from foundry_fastlog.reading.found_rings import RingReport

__all__ = ["Edit", "Overlay", "describe_ring"]

#: Outcomes of a recovery in a view, where nothing is changed.
_WOULD_BE = {"recovered": "recoverable", "quarantined": "damaged"}

#: Why a ring cannot be read: its records are being moved to the files right now.
_AT_WORK = "it is being recovered: read again when that is done"

#: Maximum number of attempts to read a run while processes start or recoveries run.
_LOOKS = 40
_PAUSE_S = 0.05

#: Device and inode of two files: the ring, and the pointer that led to it.
_Identity = tuple[int, int, int, int]


class Edit(NamedTuple):
    """A file as recovery would leave it.

    Attributes:
        kept: The ranges of its bytes that stay.
        pending: The bytes written after them.
        removed: The file is removed: a segment that was started but never marked.
    """

    kept: tuple[Range, ...]
    pending: bytes
    removed: bool

    @property
    def size(self) -> int:
        """The resulting size of the file in bytes."""
        return sum(end - begin for begin, end in self.kept) + len(self.pending)


class _Known(NamedTuple):
    """A ring that has been read. A dead ring does not change until it is removed."""

    identity: _Identity | None
    report: RingReport
    edits: dict[str, Edit]
    writing: Writing | None = None
    epoch: int | None = None  # of a dead ring's last commit


class Overlay:
    """Lists the files of a run, including what its processes' rings say about them.

    Args:
        run: The run directory.

    Attributes:
        rings: One report per ring, as of the last listing, including quarantined rings.
        unread: Files that may hold lines of the run but are not read, as of the last listing.
    """

    def __init__(self, run: StrPath) -> None:
        self._run = Path(run)
        self._known: dict[str, _Known] = {}
        self.rings: list[RingReport] = []
        self.unread: list[Unread] = []

    def list_series(self) -> list[Series]:
        """List the run's current series.

        Raises:
            OSError: The run directory cannot be listed.
        """
        for _ in range(_LOOKS):
            # Rings first: if one is recovered in between, the files listed next are complete.
            edits = self._refresh()
            listed, self.unread = list_files(self._run)
            if self._has_new_rings():  # a process has started to write in between
                continue
            if not self._is_being_recovered():
                break
            time.sleep(_PAUSE_S)
        segments = {segment.path.name: segment for segment in listed}
        by_writer: dict[Writer, list[str]] = {}  # thousands of files with as many rings
        for name, segment in segments.items():
            by_writer.setdefault(segment.name.writer, []).append(name)
        for known in self._known.values():
            if known.writing is not None:
                _leave_out_unnoted(segments, by_writer, known.writing)
        for name, edit in edits.items():
            parsed = parse_name(name)
            if edit.removed:
                segments.pop(name, None)
            elif parsed is not None:  # a ring may name files that do not belong to a run
                segments[name] = Segment(
                    self._run / name, parsed, edit.size, edit.kept, edit.pending
                )
        return group_series(segments.values())

    def refresh(self) -> list[RingReport]:
        """Check the rings only, and report on each."""
        self._refresh()
        return self.rings

    def writing(self) -> list[tuple[str, Writing]]:
        """Return the rings of those who record now, and how far they have committed."""
        return [(k.report.ring, k.writing) for k in self._known.values() if k.writing is not None]

    def labels_at_work(self) -> set[str]:
        """Return the labels of killed processes whose records are being written to their files."""
        return {ring.label for ring in self.rings if ring.reason == _AT_WORK}

    def unsettled(self) -> list[RingReport]:
        """Return the rings of which it is not known which files they mean, and who writes these."""
        told = {id(known.report) for known in self._known.values() if known.writing is not None}
        settled = ("gone", "quarantined")
        return [ring for ring in self.rings if id(ring) not in told and ring.outcome not in settled]

    def ring_states(self) -> tuple[object, ...] | None:
        """Say, at little cost, what the rings of the last listing are like now.

        Returns:
            What differs once a writer has committed or died, or a ring was replaced. None where
            only another listing tells.
        """
        states: list[object] = []
        held: list[bytes] = []
        for name, known in self._known.items():
            if known.report.outcome == "live":
                held.append(os.fsencode(known.report.ring))
            elif known.report.reason == _AT_WORK:
                return None
            else:
                states.append(self._identify(name, known.report))
        if held:
            from foundry_fastlog import _core

            states += _core.held_ring_epochs(held)
        return tuple(states)

    def _refresh(self) -> dict[str, Edit]:
        """Read rings that have died since; return the changes that all of them make."""
        before, self._known, self.rings = self._known, {}, []
        edits: dict[str, Edit] = {}
        try:
            names = self._ring_names()
        except OSError as error:
            from foundry_fastlog.reading.found_rings import RingReport

            directory = str(self._run / PRIVATE_DIR)
            reason = f"read {directory}: {error.strerror or error}"
            self.rings = [RingReport(self._run, directory, "failed", reason=reason)]
            return {}
        for name in names or ():
            known = before.get(name)
            if (
                known is None
                or known.identity is None
                or known.identity != self._identify(name, known.report)
            ):
                known = self._read(name, edits)
            self._known[name] = known
            self.rings.append(known.report)
            edits |= known.edits
        from foundry_fastlog.reading.absent_rings import report_absent, report_unended

        if names is None:
            self.rings += report_unended(self._run)
        else:
            from foundry_fastlog.reading.found_rings import list_quarantined

            self.rings += list_quarantined(self._run) + report_absent(self._run)
        return edits

    def _ring_names(self) -> list[str] | None:
        """List rings and pointers; None if there is no private directory.

        Raises:
            OSError: It cannot be listed.
        """
        try:
            (self._run / PRIVATE_DIR).lstat()
            from foundry_fastlog.reading.found_rings import list_rings

            return list_rings(self._run)
        except FileNotFoundError:
            return None

    def _has_new_rings(self) -> bool:
        try:
            return not self._known.keys() >= set(self._ring_names() or ())
        except OSError:  # the last read reported it
            return False

    def _is_being_recovered(self) -> bool:
        """Return whether records are being moved from a ring to the files that were listed."""
        found = False
        for name, known in self._known.items():
            if known.report.reason == _AT_WORK:
                found = True
            elif known.epoch is not None and not _is_untouched(known):
                self._known[name] = known._replace(identity=None)
                found = True
        return found

    def _read(self, name: str, edits: dict[str, Edit]) -> _Known:
        """Read a ring, on top of the changes made by the rings before it."""
        from foundry_fastlog.reading.found_rings import RingReport, vanishes

        path = self._run / PRIVATE_DIR / name
        try:
            from foundry_fastlog import _core
        except ImportError as error:
            reason = f"the native part of foundry_fastlog, which reads rings, is missing ({error})"
            return _Known(None, RingReport(self._run, str(path), "failed", reason=reason), {})
        view = _core.view_ring(os.fsencode(self._run), os.fsencode(path), edits)
        found = RingReport(self._run, **view["report"])
        outcome = _WOULD_BE.get(found.outcome, found.outcome)
        report = replace(found, outcome=outcome)
        if outcome == "elsewhere" and not os.path.lexists(report.ring) and vanishes(str(path)):
            outcome = "gone"
        if outcome == "gone":
            return _Known(None, RingReport(self._run, report.ring, "gone"), {})
        if view["at_work"]:
            return _Known(None, replace(found, outcome="failed", reason=_AT_WORK), {})
        dead = view["epoch"] is not None
        identity = self._identify(name, report) if dead or outcome == "damaged" else None
        changes = {name: Edit._make(edit) for name, edit in view["edits"].items()}
        return _Known(identity, report, changes, view["writing"], view["epoch"])

    def _identify(self, name: str, report: RingReport) -> _Identity | None:
        """Return what distinguishes a ring from one that replaces it; None if it is gone."""
        try:
            entry = (self._run / PRIVATE_DIR / name).lstat()
            ring = os.lstat(report.ring)
        except OSError:
            return None
        return (entry.st_dev, entry.st_ino, ring.st_dev, ring.st_ino)


def _is_untouched(known: _Known) -> bool:
    """Return whether no recovery of a dead ring has started since it was read."""
    from foundry_fastlog import _core

    return _core.dead_ring_epoch(os.fsencode(known.report.ring)) == known.epoch


def _leave_out_unnoted(
    segments: dict[str, Segment], by_writer: dict[Writer, list[str]], writing: Writing
) -> None:
    """Exclude parts of a live writer's files that its ring has not marked as complete."""
    try:
        writer = Writer.from_label(writing["label"], writing["stamp"].removeprefix("_"))
    except ValueError:  # not a recorder's
        return
    noted = dict(zip(STREAMS, writing["streams"], strict=True))
    for name in by_writer.get(writer, []):
        segment = segments.get(name)  # none where another ring of this label left it out
        if segment is None or not _is_of_writer(segment, writing):
            continue
        last, offset, trimmed = noted[segment.name.stream]
        number = segment.name.segment
        if number > last:
            del segments[name]
        elif is_packed(segment.path):  # closed, or laid aside by somebody
            continue
        elif number == last:
            segments[name] = _up_to(segment, offset)
        elif trimmed is not None and number == trimmed[0]:  # the rest is in a later segment
            segments[name] = _up_to(segment, trimmed[1])


def _is_of_writer(segment: Segment, writing: Writing) -> bool:
    """Return whether a file is among the live writer's last ones in its ring, by inode."""
    noted = writing["files"][STREAMS.index(segment.name.stream)].get(segment.name.segment)
    if noted is None or noted == (0, 0):
        return True
    try:
        status = segment.path.lstat()
    except OSError:  # reported when the file is read
        return True
    return (status.st_dev, status.st_ino) == noted


def _up_to(segment: Segment, size: int) -> Segment:
    size = min(size, segment.size)
    return replace(segment, size=size, kept=((0, size),) if size else ())


def describe_ring(ring: RingReport) -> str:
    """Describe what readers lose with a ring that is not sound."""
    if ring.damaged:
        return f"{ring.damaged:,} records in it are damaged"
    if ring.outcome == "quarantined":
        return f"its records were moved aside: {ring.reason}"
    if ring.outcome == "absent":
        return f"{ring.label}: {ring.reason}" if ring.label else ring.reason
    what = "a killed process" if ring.outcome == "damaged" else "a process"
    return f"the records of {what} cannot be read: {ring.reason}"
