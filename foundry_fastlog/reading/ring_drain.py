"""What recovery would make of one dead ring: the changes to its writer's files, in memory.

The steps are those of ``csrc/core/recovery.cpp``, ``drainer.cpp``, ``file_sink.cpp`` and
``written_lines.cpp``.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from foundry_fastlog.reading.found_rings import FoundRing, RingReport, has_rival
from foundry_fastlog.reading.ring_image import (
    MOST_SEGMENTS,
    RECORDS_LOST,
    RingHeader,
    RingImage,
    StreamCommit,
)
from foundry_fastlog.reading.ring_lines import LineRenderer, dropped_members
from foundry_fastlog.run.checks import StepSet
from foundry_fastlog.run.files import STREAMS
from foundry_fastlog.run.segment_file import Range, SegmentFile

__all__ = ["MOST_PENDING_BYTES", "Edit", "drain"]

#: More text from one ring is not held in memory. A ring of 16 MiB makes no more of it, whatever is
#: in it; the largest one does with many long keys, or in hostile hands.
MOST_PENDING_BYTES = 1 << 30

#: A file with more pieces of damage than this is not mended in memory.
_MOST_RANGES = 1 << 20

_SEQ_NUMBERS = 1 << 64
_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 128
_MOST_BEGUN = 8  # segments behind the noted one; a writer begins two at most
_LEAST_SEGMENT = 4096  # bytes; or a 64th of the ring: fewer would make a file of each record
_LONGEST_LINE = 64 << 20
_LINE = re.compile(rb'\{"timestamp":"[^\x00-\x1f]{27}","seq":([0-9]+),[^\x00-\x1f]*\}')
_LINE_HEAD, _TIMESTAMP, _SEQ_HEAD = b'{"timestamp":"', 27, b'","seq":'
_SEQ = re.compile(rb"[0-9]+")
#: Lines of others that stay: any text, unless a power loss may have made it of ours.
_OTHER_LINE = re.compile(rb"[^\x00]*")
_OTHER_LINE_AFTER_POWER_LOSS = re.compile(rb"\{[^\x00-\x1f]*\}")


@dataclass(frozen=True)
class Edit:
    """A file as recovery would leave it.

    Attributes:
        kept: Which of its bytes stay.
        pending: What is written behind them.
        removed: It is gone, a segment that was begun and never noted.
    """

    kept: tuple[Range, ...]
    pending: bytes = b""
    removed: bool = False

    @property
    def size(self) -> int:
        """Bytes in the file then."""
        return sum(end - begin for begin, end in self.kept) + len(self.pending)


class _RefusedError(Exception):
    """Recovery would fail here; the text says why."""


class _Numbers(StepSet):
    """Numbers of lines."""

    end = 0  # one past the largest

    def add(self, step: int) -> None:
        """Add a number."""
        super().add(step)
        self.end = max(self.end, step + 1)


class _File:
    """One file with the changes to it."""

    def __init__(self, path: Path, edit: Edit | None) -> None:
        self.path = path
        self.changed = edit is not None
        self.regular = True
        self.exists = edit is not None and not edit.removed
        self.id = (0, 0)  # device and inode
        self.kept: tuple[Range, ...] = ()
        self.parts: list[bytes] = []
        try:
            status = path.lstat()
        except OSError:
            status = None
        if status is not None:
            self.id = (status.st_dev, status.st_ino)
        if edit is not None:
            self.kept = edit.kept
            self.parts = [edit.pending] if edit.pending else []
        elif status is not None:
            self.exists = True
            self.regular = stat.S_ISREG(status.st_mode)
            self.kept = ((0, status.st_size),) if status.st_size else ()
        self.size = self.edit().size

    def head(self) -> bytes:
        """Its first bytes."""
        with self.open() as handle:
            return handle.read(_HEAD_BYTES)

    def cut(self, size: int) -> None:
        """Leave out what lies behind a size."""
        if self.exists and self.size > size:
            self.keep_only([(0, size)])

    def keep_only(self, ranges: list[Range]) -> None:
        """Leave out all but these ranges of what the file is now, in order."""
        pending = b"".join(self.parts)
        behind = self.size - len(pending)
        kept: list[Range] = []
        parts: list[bytes] = []
        start = 0
        at = 0  # in self.kept
        for begin, end in ranges:
            parts.append(pending[max(0, begin - behind) : max(0, end - behind)])
            while at < len(self.kept) and start < end:
                first, last = self.kept[at]
                stop = start + last - first
                if begin < stop:
                    kept.append((first + max(0, begin - start), first + min(end, stop) - start))
                if stop > end:
                    break
                start = stop
                at += 1
        self.kept = tuple((begin, end) for begin, end in kept if begin < end)
        self.parts = [part for part in parts if part]
        self.size = self.edit().size
        self.changed = True

    def remove(self) -> None:
        """Leave the file out."""
        self.exists, self.regular, self.changed = False, True, True
        self.parts, self.kept, self.size = [], (), 0

    def append(self, line: bytes) -> None:
        """Add a line; makes the file."""
        self.exists = self.changed = True
        self.parts.append(line)
        self.size += len(line)

    def open(self) -> SegmentFile:
        """Open the file as it is now."""
        return SegmentFile(self.path, self.kept, b"".join(self.parts))

    def edit(self) -> Edit:
        """Give the changes."""
        return Edit(self.kept, b"".join(self.parts), removed=not self.exists)


class _Sink:
    """The files of one writer."""

    def __init__(self, run: Path, header: RingHeader, edits: Mapping[str, Edit]) -> None:
        self._run = run
        self._edits = edits
        self._files: dict[str, _File] = {}
        self._label = f".{header.label}" if header.label else ""
        self._stamp = header.stamp
        self._segment_bytes = max(header.segment_bytes, header.ring_bytes // 64, _LEAST_SEGMENT)
        #: Per stream the segment that is written to, and its file, once there is one.
        self.current: list[tuple[int, _File | None]] = []

    def name(self, stream: int, segment: int) -> str:
        number = f".{segment:06d}" if segment else ""
        return f"{STREAMS[stream]}{self._stamp}{self._label}{number}.jsonl"

    def file(self, stream: int, segment: int) -> _File:
        name = self.name(stream, segment)
        found = self._files.get(name)
        if found is None:
            found = self._files[name] = _File(self._run / name, self._edits.get(name))
        return found

    def segments(self, stream: int) -> list[int]:
        """Numbers of the segments that are there."""
        begin = re.escape(f"{STREAMS[stream]}{self._stamp}{self._label}")
        pattern = re.compile(begin + r"(?:\.([0-9]{6}))?\.jsonl")
        # What is there, and what a ring before this one adds.
        names = {*os.listdir(self._run), *self._edits}  # noqa: PTH208  # names are all we need
        numbers = {int(match[1] or 0) for name in names if (match := pattern.fullmatch(name))}
        return [n for n in sorted(numbers) if self.file(stream, n).exists]

    def append(self, stream: int, line: bytes, *, rotate: bool = True) -> None:
        """Write a line, into a next segment when it does not fit."""
        segment, file = self.current[stream]
        full = file is not None and file.size and file.size + len(line) > self._segment_bytes
        if rotate and full and segment + 1 < MOST_SEGMENTS:
            segment, file = segment + 1, None
        if file is None:
            while (file := self.file(stream, segment)).exists:  # somebody else's
                if segment + 1 >= MOST_SEGMENTS:
                    raise _RefusedError(f"open {file.path}: File exists")
                segment += 1
        self.current[stream] = segment, file
        file.append(line)

    def edits(self) -> dict[str, Edit]:
        return {name: file.edit() for name, file in self._files.items() if file.changed}


def _line_head(head: bytes) -> tuple[bool, int | None]:
    """Whether a file that begins so begins with a line of ours, and that line's number."""
    rest = head[len(_LINE_HEAD) + _TIMESTAMP :]
    if not (
        _LINE_HEAD.startswith(head[: len(_LINE_HEAD)])
        and _SEQ_HEAD.startswith(rest[: len(_SEQ_HEAD)])
    ):
        return False, None
    rest = rest[len(_SEQ_HEAD) :]
    number = _SEQ.match(rest)
    end = number.end() if number is not None else 0
    if end == len(rest):
        return True, None  # torn before the number's end
    if number is None or rest[end : end + 1] != b"," or int(number[0]) >= _SEQ_NUMBERS:
        return False, None
    return True, int(number[0])


def _is_outdated(sink: _Sink, image: RingImage) -> bool:
    """Whether there are later lines than its writer had when this ring was copied.

    Behind the segments that it notes is another one with them. A copy that is put back may get the
    inode of the ring that it is of.
    """
    if image.header.ring is None:
        return False
    outdated = False
    for stream, noted in enumerate(image.slot.streams):
        for segment in range(noted.segment + 1, noted.segment + 1 + _MOST_BEGUN):
            file = sink.file(stream, segment)
            if segment not in image.header.files[stream] and file.exists and file.regular:
                seq = _line_head(file.head())[1]
                outdated = outdated or (seq is not None and seq >= noted.seq)
    return outdated


class _Inventory:
    """Which files are a dead writer's, and which lines are in them; see ``written_lines.cpp``."""

    def __init__(self, run: Path, sink: _Sink, ring: FoundRing) -> None:
        assert ring.image is not None
        self._sink = sink
        self._power_loss = ring.own and not ring.same_boot
        self._rival = not ring.own and has_rival(run, ring)
        self._own, self._same_boot, self._certain = ring.own, ring.same_boot, ring.certain
        self._header, self._noted = ring.image.header, ring.image.slot.streams
        self.present = tuple(_Numbers() for _ in STREAMS)
        self.cut_bytes = 0

    def take(self) -> None:
        """Cut and leave out what is torn or twice, and set where the streams go on."""
        for stream, noted in enumerate(self._noted):
            segment = noted.segment if self._certain else 0
            current: _File | None = None
            if self._certain:
                if noted.has_trim and (trimmed := self._find(stream, noted.trim_segment)):
                    self._cut(trimmed, noted.trim_bytes)
                numbers = self._last_segments(stream, noted)
            else:
                numbers = self._sink.segments(stream)
            for number in numbers:
                if (file := self._find(stream, number)) and self._take(stream, number, file):
                    segment, current = number, file
            if not self._own:  # what is there may be anybody's
                segment = min(numbers[-1] + 1, MOST_SEGMENTS - 1) if numbers else 0
                current = None
            self._sink.current.append((segment, current))

    def _find(self, stream: int, segment: int) -> _File | None:
        """A segment, if it is there and the writer's."""
        file = self._sink.file(stream, segment)
        if not file.exists or not file.regular:
            return None
        if self._own and self._header.ring is not None:
            noted = self._header.files[stream].get(segment)
            if noted is not None:
                device, inode = noted
                known = inode == file.id[1] and (device == file.id[0] or not self._same_boot)
                if known or (not inode and not file.size):
                    # Not a file that got the inode of a removed one.
                    return file if _begins_as_ours(file) else None
            if self._same_boot:
                return None
        return file if _begins_as_ours(file) else None

    def _last_segments(self, stream: int, noted: StreamCommit) -> list[int]:
        """The segment that the commit speaks of, and those that were begun behind it."""
        if self._header.ring is not None:
            begun = (n for n in self._header.files[stream] if n > noted.segment)
            return sorted({noted.segment, *begun})
        numbers = [noted.segment]
        for number in range(noted.segment + 1, noted.segment + 1 + _MOST_BEGUN):
            if file := self._find(stream, number):
                seq = _line_head(file.head())[1]
                if seq is None or seq >= noted.seq or number == noted.segment + 1:
                    numbers.append(number)
        return numbers

    def _take(self, stream: int, number: int, file: _File) -> bool:
        """Note the lines of a segment; False where it is left out."""
        noted = self._noted[stream]
        begin = 0
        if self._certain and number == noted.segment and _offset_holds(file, noted):
            begin = noted.offset
        if self._certain and number > noted.segment:
            seq = _line_head(file.head())[1]
            if seq is not None and seq < noted.seq and noted.exists:
                # Lines that a failed fsync had moved here: they are in the segment before as well.
                self.cut_bytes += file.size
                file.remove()
                return False
        ranges = _sound_lines(
            file, begin, self.present[stream], own=self._own, power_loss=self._power_loss
        )
        if self._rival:
            return True
        if not self._power_loss:
            self._cut(file, ranges[-1][1] if ranges else begin)
        elif ranges != ([(0, file.size)] if file.size else []):
            before = file.size
            file.keep_only(ranges)
            self.cut_bytes += before - file.size
        return True

    def _cut(self, file: _File, size: int) -> None:
        self.cut_bytes += max(0, file.size - size)
        file.cut(size)


def _begins_as_ours(file: _File) -> bool:
    head = file.head()
    return not head or head[0] == 0 or _line_head(head)[0]


def _offset_holds(file: _File, noted: StreamCommit) -> bool:
    """Whether a commit's offset lies behind a whole line of the file that it speaks of.

    One that was made anew since, or truncated, begins with a later line.
    """
    if not 0 < noted.offset <= file.size:
        return False
    with file.open() as handle:
        handle.seek(noted.offset - 1)
        ended = handle.read(1) == b"\n"
    seq = _line_head(file.head())[1]
    return ended and seq is not None and seq < noted.seq


def _sound_lines(
    file: _File, begin_at: int, present: _Numbers, *, own: bool, power_loss: bool
) -> list[Range]:
    """Note the numbers of a file's lines, and tell where those are that stay.

    Ours do (once each, but in a copy), and what somebody else may have added; not torn
    ones, nor NULs.
    """
    other = _OTHER_LINE_AFTER_POWER_LOSS if power_loss else _OTHER_LINE
    ranges: list[Range] = []
    at = begin_at
    parts: list[bytes] = []  # of the line that the last block ended in
    held = 0  # bytes in it
    with file.open() as handle:
        handle.seek(begin_at)
        while block := handle.read(_BLOCK_BYTES):
            *lines, last = block.split(b"\n")
            for piece in lines:
                begin = at - held
                at += len(piece) + 1
                fits = held + len(piece) <= _LONGEST_LINE
                line = b"".join([*parts, piece]) if fits else b"\0"
                parts, held = [], 0
                match = _LINE.fullmatch(line)
                if match is not None and (seq := int(match[1])) < _SEQ_NUMBERS:
                    if own and seq in present:
                        continue
                    present.add(seq)
                elif other.fullmatch(line) is None:
                    continue
                if ranges and ranges[-1][1] == begin:
                    begin = ranges.pop()[0]
                ranges.append((begin, at))
            if len(ranges) > _MOST_RANGES:
                raise _RefusedError(f"{file.path} is damaged all over")
            at += len(last)
            held += len(last)
            parts = [*parts, last] if held <= _LONGEST_LINE else []  # no line, however it goes on
    return ranges


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
    if ring.certain and _is_outdated(sink, image):
        ring = ring._replace(own=False)
    inventory = _Inventory(run, sink, ring)
    inventory.take()
    present = inventory.present

    renderer = LineRenderer(image)
    seqs = [at.seq for at in image.slot.streams]
    positions = image.slot.positions
    emitted = skipped = damaged = size = 0
    records_lost = bool(image.slot.flags & RECORDS_LOST)

    def wanted(stream: int) -> bool:
        nonlocal emitted, skipped, records_lost
        records_lost = records_lost or image.holes + damaged > 0
        seq = seqs[stream]
        seqs[stream] += 1
        # A power loss, or a copy of a live run, may have taken records out of the middle of the
        # ring: the numbers behind them are too low, and the files may hold these records too.
        unsure = records_lost and not ring.certain
        if seq in present[stream] or (unsure and seq < present[stream].end):
            skipped += 1
            return False
        emitted += 1
        return True

    for record in image.records(trust_tail=ring.certain):
        if record.stream < len(STREAMS) and record.position < positions[record.stream]:
            continue  # in the files, while another stream waited
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
        cut_bytes=inventory.cut_bytes,
    )
    return report, sink.edits()
