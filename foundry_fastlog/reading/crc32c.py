"""CRC-32C, the checksum of ring files (RFC 3720, appendix B.4), in plain Python."""

from __future__ import annotations

import functools

__all__ = ["crc32c"]

_POLYNOMIAL = 0x82F63B78  # reflected


@functools.cache
def _tables() -> tuple[list[int], list[int], list[int]]:
    """Make the tables at the first use: they cost 50 ms, and most readers need none.

    Returns:
        The table of single bytes; those of a pair of bytes with two more bytes behind it,
        and without.
    """
    single = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        single.append(value)
    last = [
        single[(single[pair & 0xFF] ^ pair >> 8) & 0xFF] ^ single[pair & 0xFF] >> 8
        for pair in range(1 << 16)
    ]
    first = [last[value & 0xFFFF] ^ value >> 16 for value in last]
    return single, first, last


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """Compute the checksum of some bytes.

    Args:
        data: The bytes.
        crc: The checksum of the bytes before them.

    Returns:
        The checksum of all of them, 32 bits.
    """
    single, first, last = _tables()
    view = memoryview(data)
    whole = len(view) & ~3
    crc ^= 0xFFFFFFFF
    for word in view[:whole].cast("I"):  # four bytes a step: two of them a table
        word ^= crc
        crc = first[word & 0xFFFF] ^ last[word >> 16]
    for byte in view[whole:]:
        crc = single[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
