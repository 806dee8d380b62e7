"""Ring files as bytes: what csrc/core/ring_layout.hpp and record.hpp draw, read and patched.

Written a second time, in Python, so that a mistake in the core's own reading shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rings import HEADER_BYTES, crc32c

PAGE = 4096
TAIL, HEAD, EPOCH, DROPS = 4096, 4160, 4288, 4352
SLOTS = (4608, 5120)
SLOT_BYTES = 248
KEY_TABLE = 8192
_BOOT_ID = 128
_FIRST = struct.Struct("<8sIIQQQQ")  # magic, version, flags, file, key table and ring bytes, salt
_RECORD = struct.Struct("<QIIQIBBH")  # stamp, length, crc, ticks, thread, kind, stream, flags
_STREAM = struct.Struct("<QQQIIHHI")  # offset, seq, trim bytes, segment, trim segment, ...
_MASK = (1 << 64) - 1
PAD = 0


@dataclass(frozen=True)
class Record:
    """A record in the ring."""

    position: int  # absolute
    at: int  # in the file
    size: int  # header included
    length: int  # of the payload
    kind: int
    stream: int


@dataclass(frozen=True)
class Slot:
    """A commit slot: position and, per stream, segment, offset and seq, and how far it is ahead."""

    epoch: int
    position: int
    streams: tuple[tuple[int, int, int], ...]
    ahead: tuple[int, ...]


class RingFile:
    """A ring file, read whole; `save()` writes it back in place."""

    def __init__(self, path: Path, content: bytes | None = None) -> None:
        self.path = path
        self.bytes = bytearray(path.read_bytes() if content is None else content)
        fields = _FIRST.unpack_from(self.bytes)
        self.key_table_bytes, self.ring_bytes, self.salt = fields[4], fields[5], fields[6]
        self.data = KEY_TABLE + self.key_table_bytes

    def save(self) -> None:
        with self.path.open("r+b") as handle:
            handle.write(self.bytes)

    def set_other_boot(self) -> None:
        """Make it a ring from before a restart of the machine."""
        self.bytes[_BOOT_ID : _BOOT_ID + 36] = b"00000000-1111-2222-3333-444444444444"
        crc = crc32c(bytes(self.bytes[: HEADER_BYTES - 4]))
        struct.pack_into("<I", self.bytes, HEADER_BYTES - 4, crc)

    def slot(self) -> Slot:
        """The newest commit slot that is whole."""
        found = [slot for at in SLOTS if (slot := self._slot_at(at))]
        return max(found, key=lambda slot: slot.epoch)

    def _slot_at(self, at: int) -> Slot | None:
        raw = bytes(self.bytes[at : at + SLOT_BYTES])
        if crc32c(raw[:-4]) != struct.unpack_from("<I", raw, SLOT_BYTES - 4)[0]:
            return None
        epoch, position = struct.unpack_from("<QQ", raw)
        streams = [_STREAM.unpack_from(raw, 40 + 40 * i) for i in range(5)]
        ahead = tuple(32 * s[7] for s in streams)
        return Slot(epoch, position, tuple((s[3], s[0], s[1]) for s in streams), ahead)

    @property
    def tail(self) -> int:
        """Where the next claim begins."""
        return struct.unpack_from("<Q", self.bytes, TAIL)[0] & ~(1 << 63)

    def pending(self) -> Iterator[Record]:
        """Walk the finished records between the newest slot and the tail."""
        position = self.slot().position
        while position < self.tail:
            at = self.data + position % self.ring_bytes
            stamp, length, _, _, _, kind, stream, _ = _RECORD.unpack_from(self.bytes, at)
            if stamp != ((position ^ self.salt) * 0x9E3779B97F4A7C15) & _MASK:
                return
            size = _RECORD.size + (length + 31) // 32 * 32
            yield Record(position, at, size, length, kind, stream)
            position += size
