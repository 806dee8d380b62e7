"""Open a stream file as a reader sees it: what is on disk, and what a ring adds to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SegmentFile"]


class SegmentFile:
    """A stream file, opened for reading; a context manager.

    Args:
        path: The file. It need not be there when nothing of it is kept.
        keep: How many of its bytes count; all of them by default.
        pending: What follows them, from the ring of a process that was killed.

    Attributes:
        size: Bytes in it, with what follows.
        inode: The file's number, 0 when it is not looked at.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, keep: int | None = None, pending: bytes = b"") -> None:
        self._path = path
        self._pending = pending
        self._file: BinaryIO | None = None
        self._at = 0
        self.inode = self.size = 0
        if keep != 0:
            self._file = path.open("rb")
            status = os.fstat(self._file.fileno())
            self.inode, self.size = status.st_ino, status.st_size
        self._keep = keep
        if keep is not None:
            self.size = keep + len(pending)

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
        if self._file is not None:
            self._file.close()

    def seek(self, offset: int) -> None:
        """Go to an offset from the beginning."""
        self._at = offset
        if self._file is not None:
            self._file.seek(offset)

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end only.

        Raises:
            OSError: The file cannot be read, or has lost bytes that its writer had in it.
        """
        if self._keep is None:
            assert self._file is not None
            return self._file.read(count)
        data = b""
        here = min(count, self._keep - self._at)
        if here > 0:
            assert self._file is not None
            data = self._file.read(here)
            if len(data) < here:
                raise OSError(errno.EIO, "it is shorter than its writer left it", str(self._path))
        if len(data) < count:
            begin = max(0, self._at - self._keep)
            data += self._pending[begin : begin + count - len(data)]
        self._at += len(data)
        return data
