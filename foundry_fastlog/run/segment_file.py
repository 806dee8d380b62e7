"""Open a stream file as readers see it: what is on disk, plus what a ring adds."""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from foundry_fastlog.run.packed import Unpacked, find_file, is_packed

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SHORTER", "Range", "SegmentFile"]

#: What an error says of a file that has lost bytes.
SHORTER = "it is shorter than its writer left it"

#: The start and end offset of a part of a file.
Range = tuple[int, int]


class SegmentFile:
    """A stream file, opened for reading; a context manager.

    All offsets and sizes are in lines' bytes, whether or not the file is compressed. Seeking in a
    compressed file decompresses what lies between, and all before it when going back.

    Args:
        path: The file. It need not exist if nothing of it is kept. If it was compressed since it
            was listed, the compressed one is read.
        kept: The byte ranges that count. Default: all.
        pending: The bytes that follow them, from the ring of a killed process.

    Attributes:
        inode: The file's inode, 0 if the file is not opened, or compressed.
        packed: Whether it is compressed: such a one is kept, not opened again for each block.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(
        self, path: Path, kept: tuple[Range, ...] | None = None, pending: bytes = b""
    ) -> None:
        self._path = path
        self._file: BinaryIO | Unpacked | None = None
        self.inode = self._size = self._at = 0
        if kept != ():
            self._file = _open(path)
            if not isinstance(self._file, Unpacked):
                status = os.fstat(self._file.fileno())
                self.inode, self._size = status.st_ino, status.st_size
        self.packed = isinstance(self._file, Unpacked)
        self._kept = kept
        self._pending = pending
        if kept is not None:
            # Where each range, and then the pending bytes, begin for the reader.
            self._starts = [0, *accumulate(end - begin for begin, end in kept)]
            self._size = self._starts[-1] + len(pending)

    def __enter__(self) -> Self:
        """Return the file itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it."""
        if self._file is not None and not isinstance(self._file, Unpacked):
            self._file.close()

    @property
    def size(self) -> int:
        """Total size in bytes, including pending bytes; a compressed file is read for it."""
        if self._kept is None and isinstance(self._file, Unpacked):
            return self._file.size
        return self._size

    def seek(self, offset: int) -> None:
        """Go to an offset from the beginning."""
        self._at = offset
        if self._kept is None:
            assert self._file is not None
            self._file.seek(offset)

    def read(self, count: int) -> bytes:
        """Read `count` bytes; fewer only at the end.

        Raises:
            OSError: The file cannot be read, or has lost bytes that its writer had written.
        """
        if self._kept is None:
            assert self._file is not None
            return self._file.read(count)
        parts: list[bytes] = []
        while count and (part := self._part(count)):
            parts.append(part)
            count -= len(part)
            self._at += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, count: int) -> bytes:
        """Read a contiguous part at the current offset."""
        assert self._kept is not None
        number = bisect_right(self._starts, self._at) - 1
        within = self._at - self._starts[number]
        if number == len(self._kept):
            return self._pending[within : within + count]
        assert self._file is not None
        begin, end = self._kept[number]
        count = min(count, end - begin - within)
        self._file.seek(begin + within)
        data = self._file.read(count)
        if len(data) < count:
            raise OSError(errno.EIO, SHORTER, str(self._path))
        return data


def _open(path: Path) -> BinaryIO | Unpacked:
    """Open a file, or what it was compressed to since it was listed."""
    if not is_packed(path):
        try:
            return path.open("rb")
        except FileNotFoundError:
            path = find_file(path)
            if not is_packed(path):
                raise
    return Unpacked(path)
