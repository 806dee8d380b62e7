"""Reads the arrays of numbers in a page, in another way than the page does."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any


def decode(text: str) -> list[Any]:
    """Read what `encode` wrote."""
    data = zlib.decompress(base64.b64decode(text))
    found, offset = [], 0
    while offset < len(data):
        kind, differences, length, first = struct.unpack_from("<BBId", data, offset)
        width = (1, 2, 4, 4, 8)[kind]
        offset += 14
        planes = [data[offset + p * length : offset + (p + 1) * length] for p in range(width)]
        raw = bytes(byte for number in zip(*planes, strict=True) for byte in number)
        values = [value for (value,) in struct.iter_unpack("<" + "BHIfd"[kind], raw)]
        if differences:
            values = [first + sum(values[1 : n + 1]) for n in range(length)]
        found.append(values)
        offset += width * length
    return found
