"""The key table of a ring file: the sets of keys that its records name by number.

What ``csrc/core/key_table.cpp`` writes, and reads back.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from foundry_fastlog.reading.crc32c import crc32c

__all__ = ["MOST_KEY_TEXT", "KeySet", "read_key_sets", "string_text"]

#: Longer keys, as JSON with their quotes, are in the records themselves. So no line is longer than
#: 64 times its record in the ring, whatever a ring file says.
MOST_KEY_TEXT = 256

_ESCAPED = re.compile(rb'[\x00-\x1f"\\]')
_ESCAPES = {
    **{code: f"\\u{code:04x}".encode() for code in range(0x20)},
    **{
        ord(char): f"\\{name}".encode()
        for char, name in zip('\b\t\n\f\r"\\', 'btnfr"\\', strict=True)
    },
}


def string_text(text: bytes) -> bytes:
    """Write UTF-8 text as a JSON string."""
    if _ESCAPED.search(text):
        text = _ESCAPED.sub(lambda match: _ESCAPES[match[0][0]], text)
    return b'"' + text + b'"'


class KeySet(NamedTuple):
    """A key set as JSON.

    Attributes:
        keys: Each key quoted, with its colon.
        epoch: Which of them is ``epoch``, or -1.
    """

    keys: tuple[bytes, ...]
    epoch: int

    @property
    def fits(self) -> bool:
        """Whether a recorder would have put it into the table."""
        return all(len(key) <= MOST_KEY_TEXT + 1 for key in self.keys)


def read_key_sets(table: memoryview) -> list[KeySet]:
    """Read the key sets up to the first damaged one."""
    sets: list[KeySet] = []
    (published,) = struct.unpack_from("<Q", table)
    arena = bytes(table[8:])
    end = min(published, len(arena))
    offset = 0
    while offset + 12 <= end:
        size, count, crc = struct.unpack_from("<3I", arena, offset)
        at, limit = offset + 12, offset + size
        if size < 12 or size % 8 or limit > end or count > size // 4:
            break
        if crc != crc32c(arena[at:limit], crc32c(arena[offset : offset + 8])):
            break
        keys: list[bytes] = []
        while len(keys) < count and at + 4 <= limit:
            (length,) = struct.unpack_from("<I", arena, at)
            if length > limit - at - 4:
                break
            keys.append(arena[at + 4 : at + 4 + length])
            at += 4 + length
        if len(keys) < count:
            break
        epochs = [index for index, key in enumerate(keys) if key == b"epoch"]
        texts = tuple(string_text(key) + b":" for key in keys)
        sets.append(KeySet(texts, epochs[-1] if epochs else -1))
        offset += size
    return sets
