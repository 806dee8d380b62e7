"""A ring file, checked: what a process that was killed had recorded and not yet written.

The layout is described in ``docs/format.md``; ``csrc/core/ring_layout.hpp`` and
``record.hpp`` define it, and ``ring_image.cpp`` does in C++ what this module does.

Everything in the file may be damaged or hostile: sizes are checked before anything is
read, a record is believed when its stamp, its bounds and its checksum are right, and
what a file can make this module do is bounded by a few times its own size.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from foundry_fastlog.reading.crc32c import crc32c
from foundry_fastlog.reading.ring_keys import read_key_sets

__all__ = [
    "DROPS",
    "DROPS_WRITTEN",
    "FRAGMENT",
    "METRICS",
    "MOST_SEGMENTS",
    "RECORDS_LOST",
    "TIMING",
    "NewerRingError",
    "Record",
    "RingError",
    "RingHeader",
    "RingImage",
    "Slot",
    "StreamCommit",
]

#: Kinds of records; 0 is a pad.
PAD, METRICS, TIMING, FRAGMENT, DROPS = range(5)

#: Flags of a slot: all drops have a marker in the files; there were holes among the records before.
DROPS_WRITTEN, RECORDS_LOST = 1, 2

#: The newest layout that this module knows.
VERSION = 3

_MAGIC = b"FLOGRING"
_PAGE = 4096
_TAIL = _PAGE
_DROPS = _PAGE + 256
_SLOTS = (_PAGE + 512, _PAGE + 1024)
_HOMES = (_PAGE + 1536, _PAGE + 1792)
_FILE_NOTES = _PAGE + 2048
_NOTES = 8  # of files, per stream
_FIRST_WITH_NOTES = 3
_RECOVERY_MARK = _PAGE + 3072
_KEY_TABLE = 2 * _PAGE
_LEAST_RING = 1024
_MOST_RING = 64 << 20
_MOST_KEY_TABLE = 1 << 20
_TICKS_ARE_TSC = 1
_RENUMBERS = 1  # flag of a home note: inodes do not tell which files are the writer's
_CLOSED = 1 << 63
_UINT64 = (1 << 64) - 1
_MOST_OFFSET = 1 << 60
MOST_SEGMENTS = 1_000_000
_STREAMS = 4
_LOOKS = 100  # at the slots of a live ring, one of which is whole at any instant

_HEADER = struct.Struct("<8s2I8QIi40s40s64s192s64s2I")
_SLOT = struct.Struct("<3Qqd160s2I")
_STREAM = struct.Struct("<3Q2I2HI")
_HOME = struct.Struct("<5Q192s2I")
_FILE_NOTE = struct.Struct("<2Q4I")
_RECORD = struct.Struct("<Q2IQI2BH")
_PLACE = struct.Struct("<2Q")
_ALIGN = 32
_STAMP_FACTOR = 0x9E3779B97F4A7C15

_LABEL = re.compile(rb"[a-z0-9-]*")
_STAMP = re.compile(rb"[_0-9-]*")


class RingError(ValueError):
    """The file is no ring that can be trusted; the text says why."""


class NewerRingError(ValueError):
    """The file may be a good ring, of a layout that this version does not know."""


@dataclass(frozen=True)
class RingHeader:
    """What a ring file says about its writer.

    Attributes:
        version: Version of the layout.
        tsc: Whether ticks are the processor's counter; else they are nanoseconds.
        key_table_bytes: Size of the key table.
        ring_bytes: Size of the ring's data.
        salt: What makes this ring's stamps its own.
        run: Device and inode of the run directory.
        ring: Device and inode of the ring file itself; a copy has others. None in a ring
            that has no notes.
        files: Device and inode per stream and segment, of the last ones that the writer
            made; 0 and 0 for one that it was about to make. Empty without notes.
        segment_bytes: A stream file that would grow past this is continued in a next one.
        pid: The writer's process id.
        rank: Its rank, -1 for none.
        uuid: What the names of its file and of a pointer to it have.
        boot_id: Which boot of which machine it ran in.
        host: Its host's name.
        label: Its label in file names.
        stamp: What goes behind the stream in file names, ``""`` or ``_<time>``.
    """

    version: int
    tsc: bool
    key_table_bytes: int
    ring_bytes: int
    salt: int
    run: tuple[int, int]
    segment_bytes: int
    pid: int
    rank: int
    uuid: str
    boot_id: str
    host: str
    label: str
    stamp: str
    ring: tuple[int, int] | None = None
    files: tuple[dict[int, tuple[int, int]], ...] = ({},) * _STREAMS


class StreamCommit(NamedTuple):
    """How far a stream is in its files.

    Attributes:
        offset: Where its next byte goes, in the segment.
        seq: Number of its next line.
        trim_bytes: Where `trim_segment` ends, if `has_trim`.
        segment: The segment that is being written.
        trim_segment: An earlier one whose rest was moved into a later one.
        exists: Whether the segment has been made.
        has_trim: Whether `trim_segment` has to be cut.
        ahead: How far its position is before the commit's, in steps of 32 bytes: its records
            before that are in the files too. Always 0 in a ring of version 1.
    """

    offset: int = 0
    seq: int = 0
    trim_bytes: int = 0
    segment: int = 0
    trim_segment: int = 0
    exists: int = 0
    has_trim: int = 0
    ahead: int = 0


class Slot(NamedTuple):
    """A commit: every record before its stream's position is in the files, once; no other is.

    Attributes:
        epoch: Number of the commit.
        position: Where the first record lies that is not in the files: the least position of
            a stream.
        anchor_ticks: A moment in ticks, ...
        anchor_wall_ns: ... and in nanoseconds since 1970.
        ns_per_tick: The clock's rate.
        streams: Per stream, where its files end.
        flags: `DROPS_WRITTEN` and `RECORDS_LOST`, set by recovery.
    """

    epoch: int = 0
    position: int = 0
    anchor_ticks: int = 0
    anchor_wall_ns: int = 0
    ns_per_tick: float = 0.0
    streams: tuple[StreamCommit, ...] = (StreamCommit(),) * _STREAMS
    flags: int = 0

    @property
    def positions(self) -> tuple[int, ...]:
        """Per stream, where its first record lies that is not in the files."""
        return tuple(self.position + _ALIGN * at.ahead for at in self.streams)


class Record(NamedTuple):
    """A record as it lies in the ring.

    Attributes:
        kind: `METRICS`, `TIMING`, `FRAGMENT`, `DROPS`, or anything in a damaged ring.
        stream: Number of its stream, or anything in a damaged ring.
        ticks: Time of the call.
        thread: Id of the thread.
        payload: The rest.
        position: Where it lies.
    """

    kind: int
    stream: int
    ticks: int
    thread: int
    payload: memoryview
    position: int


class RingImage:
    """A ring file in memory.

    Args:
        data: All of its bytes.

    Attributes:
        header: What it says about its writer.
        slot: The newest commit that is whole.
        key_sets: The sets of keys that records name by number.
        holes: Claims that their threads never finished; complete when `records` has ended.
        hole_bytes: Their size.

    Raises:
        RingError: It cannot be trusted.
        NewerRingError: It is of a newer version.
    """

    def __init__(self, data: bytes) -> None:
        self.header = _add_notes(_parse_header(data, len(data)), data)
        self.slot = _newest_slot(data, self.header.ring_bytes)
        self._control = data[_PAGE:_KEY_TABLE]
        view = memoryview(data)
        begin = _KEY_TABLE + self.header.key_table_bytes
        self.key_sets = read_key_sets(view[_KEY_TABLE:begin])
        if not all(keys.fits for keys in self.key_sets):
            raise RingError("its key table has a key that is longer than a recorder puts there")
        self._data = view[begin:]
        self.holes = 0
        self.hole_bytes = 0
        self._mismatched = 0

    @classmethod
    def read(cls, descriptor: int) -> RingImage:
        """Read a ring file; nothing of it is read before its size is plausible.

        Args:
            descriptor: An open regular file.

        Raises:
            RingError: It cannot be trusted.
            NewerRingError: It is of a newer version.
            OSError: It cannot be read.
        """
        size = os.fstat(descriptor).st_size
        if size < _KEY_TABLE:
            raise RingError(f"it has {size} bytes, too few for a ring file")
        _parse_header(_read(descriptor, _HEADER.size), size)
        return cls(_read(descriptor, size))

    @staticmethod
    def is_marked(descriptor: int) -> bool:
        """Tell whether a recovery has begun on a ring: its writer is dead, whoever locks it.

        Args:
            descriptor: An open regular file.

        Raises:
            OSError: It cannot be read.
        """
        return any(os.pread(descriptor, 8, _RECOVERY_MARK))

    @staticmethod
    def look(descriptor: int) -> tuple[RingHeader, Slot]:
        """As `read`, whose a ring is and its newest commit alone; its writer may be at work."""
        looks = _LOOKS
        while True:
            data = _read(descriptor, _KEY_TABLE)
            header = _add_notes(_parse_header(data, os.fstat(descriptor).st_size), data)
            try:
                return header, _newest_slot(data, header.ring_bytes)
            except RingError:  # its writer may have been at both slots meanwhile
                looks -= 1
                if not looks:
                    raise

    @property
    def drops(self) -> tuple[int, ...]:
        """Per stream, how many records were dropped of which no line tells."""
        if self.slot.flags & DROPS_WRITTEN:
            return (0,) * _STREAMS
        return struct.unpack_from("<4Q", self._control, _DROPS - _PAGE)

    @property
    def dated(self) -> bool:
        """Whether anything tells what the ticks of its records mean, if it has records."""
        return self.slot.epoch != 0 or next(self.records(trust_tail=False), None) is None

    def records(self, *, trust_tail: bool) -> Iterator[Record]:
        """Yield the records from the slot's position on, and count the holes between them.

        A stream may be ahead of others: those of its records that lie before its own position
        are among them, and in the files already.

        Args:
            trust_tail: Whether the tail bounds the records. After a power loss its page
                may be older than theirs.
        """
        ring_bytes, start = self.header.ring_bytes, self.slot.position
        (tail,) = struct.unpack_from("<Q", self._control, _TAIL - _PAGE)
        tail &= ~_CLOSED
        trusted = trust_tail and start <= tail <= start + ring_bytes
        end = tail if trusted else start + ring_bytes
        stamps = self._data.cast("Q")
        mask, salt = ring_bytes - 1, self.header.salt | 1
        self.holes = self.hole_bytes = self._mismatched = 0
        at, hole = start, 0
        while at + _ALIGN <= end:
            expected = (at ^ salt) * _STAMP_FACTOR & _UINT64
            # Most places of a hole end here.
            record = self._record(at, end) if stamps[(at & mask) >> 3] == expected else None
            if record is None:
                at += _ALIGN
                hole += _ALIGN
                continue
            if hole:
                self.holes += 1
                self.hole_bytes += hole
                hole = 0
            if record.kind != PAD:
                yield record
            at += _record_size(len(record.payload))
        # What is behind the last record: unfinished claims, where the tail tells of them.
        if trusted and hole:
            self.holes += 1
            self.hole_bytes += hole

    def _record(self, position: int, end: int) -> Record | None:
        """The record whose stamp stands at a position, if all of it is right."""
        ring_bytes = self.header.ring_bytes
        offset = position & (ring_bytes - 1)
        _, length, crc, ticks, thread, kind, stream, _ = _RECORD.unpack_from(self._data, offset)
        size = _record_size(length)
        if (
            length > ring_bytes // 8 - _ALIGN
            or size > ring_bytes - offset
            or size > end - position
            # Records do not overlap, so no ring of ours has more of them than it has bytes:
            # one that was made so that each of them has to be checked is not believed.
            or self._mismatched > 2 * ring_bytes
        ):
            return None
        stop = offset + _ALIGN + length
        # What lies in a pad is nobody's.
        checked = self._data[offset + 16 : offset + _ALIGN if kind == PAD else stop]
        found = crc32c(_PLACE.pack(position, length) + checked)
        if found != crc:
            self._mismatched += size
            return None
        payload = self._data[offset + _ALIGN : stop]
        return Record(kind, stream, ticks, thread, payload, position)


def _record_size(length: int) -> int:
    return _ALIGN + (length + _ALIGN - 1 & -_ALIGN)


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        block = os.pread(descriptor, size - len(data), len(data))
        if not block:
            raise RingError("it could not be read to its end")
        data = data + block if data else block
    return data


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _parse_header(data: bytes, file_bytes: int) -> RingHeader:
    """Check the header of a file that has so many bytes.

    Raises:
        RingError: It is none.
        NewerRingError: It is none that can be read.
    """
    if file_bytes < _KEY_TABLE:
        raise RingError(f"it has {file_bytes} bytes, too few for a ring file")
    (
        magic,
        version,
        flags,
        stated_bytes,
        key_table_bytes,
        ring_bytes,
        salt,
        run_device,
        run_inode,
        segment_bytes,
        _process_start,
        pid,
        rank,
        uuid,
        boot_id,
        host,
        label,
        stamp,
        _reserved,
        crc,
    ) = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise RingError("it does not begin as a ring file")
    if version > VERSION:  # nothing else is known of its layout, not even its checksum
        raise NewerRingError("written by a newer version of foundry_fastlog: recover with that")
    if crc != crc32c(data[: _HEADER.size - 4]):
        raise RingError("its header is damaged (checksum)")
    if not (
        _LEAST_RING <= ring_bytes <= _MOST_RING
        and ring_bytes & (ring_bytes - 1) == 0
        and _PAGE <= key_table_bytes <= _MOST_KEY_TABLE
        and key_table_bytes % _PAGE == 0
        and file_bytes % _PAGE == 0
        and stated_bytes == _KEY_TABLE + key_table_bytes + ring_bytes == file_bytes
    ):
        raise RingError("its sizes do not fit together")
    if (
        not (_is_name(label, _LABEL) and _is_name(stamp, _STAMP))
        or b"\0" not in boot_id
        or segment_bytes == 0
    ):
        raise RingError("its label is none that a recorder gives")
    return RingHeader(
        version=version,
        tsc=bool(flags & _TICKS_ARE_TSC),
        key_table_bytes=key_table_bytes,
        ring_bytes=ring_bytes,
        salt=salt,
        run=(run_device, run_inode),
        segment_bytes=segment_bytes,
        pid=pid,
        rank=rank,
        uuid=_text(uuid).decode("utf-8", "backslashreplace"),
        boot_id=_text(boot_id).decode("utf-8", "backslashreplace"),
        host=_text(host).decode("utf-8", "backslashreplace"),
        label=_text(label).decode(),
        stamp=_text(stamp).decode(),
    )


def _add_notes(header: RingHeader, data: bytes) -> RingHeader:
    """Bring a header up to date: where the writer's files are now, and which they are."""
    if header.version < _FIRST_WITH_NOTES:
        return header
    epoch, renumbers = 0, False
    for offset in _HOMES:
        raw = data[offset : offset + _HOME.size]
        number, ring_device, ring_inode, run_device, run_inode, label, flags, crc = _HOME.unpack(
            raw
        )
        if number > epoch and crc == crc32c(raw[:-4]) and _is_name(label, _LABEL):
            epoch, renumbers = number, bool(flags & _RENUMBERS)
            header = replace(
                header,
                run=(run_device, run_inode),
                ring=(ring_device, ring_inode),
                label=_text(label).decode(),
            )
    if renumbers:  # names alone tell then, as in a ring without notes
        return replace(header, ring=None)
    files: tuple[dict[int, tuple[int, int]], ...] = tuple({} for _ in range(_STREAMS))
    for number in range(_STREAMS * _NOTES):
        offset = _FILE_NOTES + number * _FILE_NOTE.size
        raw = data[offset : offset + _FILE_NOTE.size]
        device, inode, segment, home, used, crc = _FILE_NOTE.unpack(raw)
        if (
            used == 1
            and crc == crc32c(raw[:-4])
            and home == epoch & 0xFFFFFFFF
            and segment < MOST_SEGMENTS
            and segment % _NOTES == number % _NOTES
        ):
            files[number // _NOTES][segment] = (device, inode)
    return replace(header, files=files)


def _is_name(field: bytes, allowed: re.Pattern[bytes]) -> bool:
    """Whether a text ends within its field and may become part of a file's name."""
    return b"\0" in field and allowed.fullmatch(_text(field)) is not None


def _newest_slot(data: bytes, ring_bytes: int) -> Slot:
    """Choose the newest commit that is whole.

    One that was filled but not made current is true as well: its lines are in the files,
    and the producers were not told yet.

    Raises:
        RingError: Both are damaged.
    """
    newest: Slot | None = None
    untouched = True
    for offset in _SLOTS:
        raw = data[offset : offset + _SLOT.size]
        untouched = untouched and not any(raw)
        epoch, position, ticks, wall_ns, rate, streams, flags, crc = _SLOT.unpack(raw)
        commits = tuple(map(StreamCommit._make, _STREAM.iter_unpack(streams)))
        slot = Slot(epoch, position, ticks, wall_ns, rate, commits, flags)
        if crc != crc32c(raw[:-4]) or not _plausible(slot, ring_bytes):
            continue
        if newest is None or slot.epoch > newest.epoch:
            newest = slot
    if newest is not None:
        return newest
    if untouched:  # its writer died before it could record anything
        return Slot()
    raise RingError("both of its commit slots are damaged (checksum)")


def _plausible(slot: Slot, ring_bytes: int) -> bool:
    return (
        slot.position % _ALIGN == 0
        and not slot.position & _CLOSED
        and all(
            max(at.offset, at.seq, at.trim_bytes) < _MOST_OFFSET
            and max(at.segment, at.trim_segment) < MOST_SEGMENTS
            and _ALIGN * at.ahead <= ring_bytes
            for at in slot.streams
        )
        # Its position is that of the stream which is furthest behind.
        and any(at.ahead == 0 for at in slot.streams)
    )
