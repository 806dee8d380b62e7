"""What recovery would make of one dead ring: the changes to its writer's files, in memory.

The steps are those of ``csrc/core/recovery.cpp``, ``drainer.cpp`` and ``file_sink.cpp``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foundry_fastlog.checks import StepSet
from foundry_fastlog.files import STREAMS
from foundry_fastlog.ring_files import FoundRing, RingReport
from foundry_fastlog.ring_image import RingHeader, StreamCommit
from foundry_fastlog.ring_lines import LineRenderer, dropped_members
from foundry_fastlog.segment_file import SegmentFile

__all__ = ["MOST_PENDING_BYTES", "Edit", "drain"]

#: More text from one ring is not held in memory. The largest ring, full of small records, makes a
#: quarter of it.
MOST_PENDING_BYTES = 1 << 30

_BLOCK_BYTES = 1 << 20
_LONGEST_LINE = 64 << 20
_LINE = re.compile(rb'\{"timestamp":"[^\x00-\x1f]{27}","seq":([0-9]+),[^\x00-\x1f]*\}')


@dataclass(frozen=True)
class Edit:
    """A file as recovery would leave it.

    Attributes:
        keep: How many of its bytes stay.
        pending: What is written behind them.
        removed: It is gone, a segment that was begun and never noted.
    """

    keep: int
    pending: bytes = b""
    removed: bool = False


class _RefusedError(Exception):
    """Recovery would fail here; the text says why."""


class _File:
    """One file with the changes to it."""

    def __init__(self, path: Path, edit: Edit | None) -> None:
        self.path = path
        self.parts: list[bytes] = []
        self.changed = edit is not None
        self.regular = True
        self.exists = edit is not None and not edit.removed
        self.keep = 0
        if edit is not None:
            self.keep = edit.keep
            self.parts = [edit.pending] if edit.pending else []
        else:
            try:
                status = path.lstat()
            except OSError:
                status = None
            if status is not None:
                self.exists = True
                self.regular = stat.S_ISREG(status.st_mode)
                self.keep = status.st_size
        self.size = self.keep + sum(map(len, self.parts))

    def require_regular(self) -> None:
        """Raise where recovery would refuse to write."""
        if self.exists and not self.regular:
            raise _RefusedError(f"{self.path} is no regular file")

    def cut(self, size: int) -> None:
        """Leave out what lies behind a size."""
        if not self.exists or self.size <= size:
            return
        pending = b"".join(self.parts)[: max(0, size - self.keep)]
        self.keep = min(self.keep, size)
        self.parts = [pending] if pending else []
        self.size = size
        self.changed = True

    def remove(self) -> None:
        """Leave the file out."""
        self.exists, self.regular, self.changed = False, True, True
        self.parts, self.keep, self.size = [], 0, 0

    def append(self, line: bytes) -> None:
        """Add a line; makes the file."""
        self.exists = self.changed = True
        self.parts.append(line)
        self.size += len(line)

    def edit(self) -> Edit:
        """Give the changes."""
        return Edit(self.keep, b"".join(self.parts), removed=not self.exists)


class _Sink:
    """The files of one writer."""

    def __init__(self, run: Path, header: RingHeader, edits: Mapping[str, Edit]) -> None:
        self._run = run
        self._edits = edits
        self._files: dict[str, _File] = {}
        self._label = f".{header.label}" if header.label else ""
        self._stamp = header.stamp
        self._segment_bytes = header.segment_bytes
        self._current: list[tuple[int, _File]] = []

    def name(self, stream: int, segment: int) -> str:
        number = f".{segment:06d}" if segment else ""
        return f"{STREAMS[stream]}{self._stamp}{self._label}{number}.jsonl"

    def file(self, stream: int, segment: int) -> _File:
        name = self.name(stream, segment)
        found = self._files.get(name)
        if found is None:
            found = self._files[name] = _File(self._run / name, self._edits.get(name))
        return found

    def segments(self, stream: int, most: int) -> list[int]:
        """Numbers of the segments that are there, up to one."""
        begin = re.escape(f"{STREAMS[stream]}{self._stamp}{self._label}")
        pattern = re.compile(begin + r"(?:\.([0-9]{6,7}))?\.jsonl")
        # What is there, and what a ring before this one adds.
        names = {*os.listdir(self._run), *self._edits}  # noqa: PTH208  # names are all we need
        numbers = {int(match[1] or 0) for name in names if (match := pattern.fullmatch(name))}
        return [n for n in sorted(numbers) if n <= most and self.file(stream, n).exists]

    def hold(self, streams: tuple[StreamCommit, ...]) -> int | None:
        """Bytes behind the offsets, or None when a file has fewer bytes than its offset."""
        behind = 0
        for stream, at in enumerate(streams):
            file = self.file(stream, at.segment)
            if not file.regular or file.size < at.offset:
                return None
            behind += max(0, file.size - at.offset) if file.exists else 0
        return behind

    def resume(self, streams: tuple[StreamCommit, ...]) -> None:
        """Cut off what lies behind the offsets, and leave out the segments behind theirs."""
        for stream, at in enumerate(streams):
            if at.has_trim:
                trimmed = self.file(stream, at.trim_segment)
                if trimmed.regular:
                    trimmed.cut(at.trim_bytes)
            file = self.file(stream, at.segment)
            file.require_regular()
            file.cut(at.offset)
            self._current.append((at.segment, file))
            segment = at.segment + 1
            while (later := self.file(stream, segment)).exists:
                if not later.regular and later.path.is_dir() and not later.path.is_symlink():
                    break  # no unlink() removes it
                later.remove()
                segment += 1

    def append(self, stream: int, line: bytes, *, rotate: bool = True) -> None:
        """Write a line, into a next segment when it does not fit."""
        segment, file = self._current[stream]
        if rotate and file.size and file.size + len(line) > self._segment_bytes:
            segment += 1
            file = self.file(stream, segment)
            self._current[stream] = segment, file
            if file.exists:
                raise _RefusedError(f"open {file.path}: File exists")
        file.append(line)

    def edits(self) -> dict[str, Edit]:
        return {name: file.edit() for name, file in self._files.items() if file.changed}


def _scan(file: _File, present: StepSet) -> int:
    """Note the numbers of a file's lines; returns where its last whole line ends."""
    file.require_regular()
    end = at = 0
    rest = b""
    oversized = False
    with SegmentFile(file.path, file.keep, b"".join(file.parts)) as handle:
        while block := handle.read(_BLOCK_BYTES):
            *lines, last = block.split(b"\n")
            for line in lines:
                at += len(line) + 1
                match = None if oversized else _LINE.fullmatch(rest + line)
                rest, oversized = b"", False
                if match is not None and (seq := int(match[1])) < 1 << 64:
                    present.add(seq)
                    end = at
            at += len(last)
            rest += last
            if len(rest) > _LONGEST_LINE:
                rest, oversized = b"", True  # no line of ours, however it goes on
    return end


def _scan_streams(
    sink: _Sink, streams: tuple[StreamCommit, ...], present: tuple[StepSet, ...]
) -> tuple[tuple[StreamCommit, ...], int]:
    """Find out from the files alone where each stream ends, and which lines are in them."""
    found = []
    cut_bytes = 0
    for stream, at in enumerate(streams):
        last, offset = 0, 0
        # Segments may be missing in the middle (a user removed one), none beyond the next.
        for segment in sink.segments(stream, at.segment + 1):
            file = sink.file(stream, segment)
            last, offset = segment, _scan(file, present[stream])
            if segment >= at.segment:
                cut_bytes += file.size - offset
        found.append(at._replace(segment=last, offset=offset, has_trim=0))
    return tuple(found), cut_bytes


def drain(
    run: Path, ring: FoundRing, edits: Mapping[str, Edit]
) -> tuple[RingReport, dict[str, Edit]]:
    """Work out what recovery would do with a dead ring.

    Args:
        run: The run directory.
        ring: A ring whose outcome is ``dead``.
        edits: Changes that the rings before it make, by file name.

    Returns:
        The report, and the changes that this ring makes; none when recovery would fail.
    """
    assert ring.image is not None
    report = RingReport(
        run, ring.ring, "recoverable", ring.image.header.label, same_boot=ring.same_boot
    )
    try:
        return _drain(run, ring, edits, report)
    except (OSError, _RefusedError) as error:
        return replace(report, outcome="failed", reason=f"{error}. The ring stays"), {}


def _drain(
    run: Path, ring: FoundRing, edits: Mapping[str, Edit], report: RingReport
) -> tuple[RingReport, dict[str, Edit]]:
    image = ring.image
    assert image is not None
    sink = _Sink(run, image.header, edits)
    present = tuple(StepSet() for _ in STREAMS)
    streams = image.slot.streams
    cut_bytes = sink.hold(streams) if ring.same_boot else None
    if cut_bytes is None:
        # Neither the offsets nor the order in which pages reached the disk can be trusted.
        streams, cut_bytes = _scan_streams(sink, streams, present)
    sink.resume(streams)

    renderer = LineRenderer(image)
    seqs = [at.seq for at in streams]
    emitted = skipped = damaged = size = 0

    def wanted(stream: int) -> bool:
        nonlocal emitted, skipped
        seq = seqs[stream]
        seqs[stream] += 1
        if seq in present[stream]:
            skipped += 1
            return False
        emitted += 1
        return True

    for record in image.records(trust_tail=ring.same_boot):
        members = renderer.members(record)
        if members is None:
            damaged += 1
        elif wanted(record.stream):
            line = renderer.opening(record.ticks, seqs[record.stream] - 1) + members
            size += len(line)
            if size > MOST_PENDING_BYTES:
                raise _RefusedError(f"{ring.ring} makes more text than fits into memory")
            sink.append(record.stream, line)
    for stream, count in enumerate(image.drops):
        if count and wanted(stream):
            opening = renderer.opening(image.slot.anchor_ticks, seqs[stream] - 1)
            line = opening + dropped_members(count) + b"}\n"
            sink.append(stream, line, rotate=False)
    report = replace(
        report,
        emitted=emitted,
        skipped=skipped,
        holes=image.holes,
        hole_bytes=image.hole_bytes,
        damaged=damaged,
        cut_bytes=cut_bytes,
    )
    return report, sink.edits()
