"""Compressed stream files: their names, and what they decompress to.

Gzip is the standard library's; Zstandard is, too, from Python 3.14 on, and ``backports.zstd``
before. What is read may come from anywhere: it is decompressed a block at a time, whatever its
headers say.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from foundry_fastlog.run.names import SUFFIXES, find_file, is_packed, plain_name

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = [
    "SUFFIXES",
    "Identity",
    "Unpacked",
    "check_library",
    "find_file",
    "identity_of",
    "is_packed",
    "open_packer",
    "plain_name",
]

_RAW_BYTES = 64 << 10
_BLOCK_BYTES = 256 << 10
_STEP_BYTES = 64 << 10  # at most so much before damage is lost with it
_LEVELS = {"zstd": 3, "gzip": 6}


def check_library(how: str) -> None:
    """Raise OSError if there is no library for a format; the message says what to install."""
    if how == "zstd":
        _zstd()


def open_packer(file: IO[bytes], how: str) -> IO[bytes]:
    """Return a file that compresses what is written to it into another one.

    Args:
        file: Where it goes; it stays open.
        how: One of ``SUFFIXES``.

    Raises:
        OSError: There is no library for it; the message says what to install.
    """
    if how == "gzip":
        import gzip

        packer: Any = gzip.GzipFile("", "wb", _LEVELS[how], file, mtime=0)
    else:
        zstd = _zstd()
        options = {
            zstd.CompressionParameter.compression_level: _LEVELS[how],
            zstd.CompressionParameter.checksum_flag: 1,
        }
        packer = zstd.ZstdFile(file, "wb", options=options)
    return cast("IO[bytes]", packer)


class Unpacked:
    """The bytes of a compressed file, read in order; going back begins anew.

    The file is open only while some of it is read, so that thousands can be read in turn.

    Args:
        path: The file.

    Attributes:
        at: The offset of the next byte, in decompressed bytes.

    Raises:
        OSError: It cannot be opened, or there is no library for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.at = 0
        self._raw = _Raw(path)
        self._file = self._open()
        self._done = 0  # bytes that were decompressed
        self._error: OSError | None = None

    def seek(self, offset: int) -> None:
        """Go to an offset from the beginning."""
        self.at = offset

    def read(self, count: int) -> bytes:
        """Read so many bytes; fewer at the end, and before damage.

        Raises:
            OSError: What follows cannot be read; the message says why.
        """
        data = bytearray()
        block = bytearray(min(count, _BLOCK_BYTES))  # whatever is asked for, most files are small
        while wanted := min(len(block), count - len(data)):
            try:
                got = self.readinto(memoryview(block)[:wanted])
            except OSError:
                if not data:
                    raise
                break
            if not got:
                break
            data += memoryview(block)[:got]
        return bytes(data)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into a buffer, as ``read`` does; return how many bytes."""
        view = memoryview(buffer)
        if _known_size(self._raw.identity) == self.at:
            return 0
        self._skip()
        taken = 0
        while taken < len(view) and (got := self._next(view[taken:])):
            taken += got
        self.at += taken
        if self._error is not None and not taken:
            raise self._error
        return taken

    @property
    def size(self) -> int:
        """How many bytes it has in all; those before the damage in a damaged file."""
        known = _known_size(self._raw.identity)
        if known is None:
            block = memoryview(bytearray(_BLOCK_BYTES))
            while self._next(block):
                pass
            known = self._done
        return known

    def _skip(self) -> None:
        """Decompress up to the offset of the next byte."""
        if self._done > self.at:
            self._raw = _Raw(self._path)
            self._file = self._open()
            self._done, self._error = 0, None
        if self._done < self.at:
            block = memoryview(bytearray(min(_BLOCK_BYTES, self.at - self._done)))
            while self._done < self.at and self._next(block[: self.at - self._done]):
                pass

    def _next(self, view: memoryview) -> int:
        """Decompress some bytes; none at the end, and where it is damaged."""
        if self._error is None:
            try:
                got = self._decompress(view)
            except OSError as error:
                self._error = error
            else:
                self._done += got
                if not got:
                    _note_size(self._raw.identity, self._done)
                return got
        return 0

    def _decompress(self, view: memoryview) -> int:
        if not self._raw.identity[2]:
            raise OSError(errno.EIO, "it is empty, which no compressed file is", str(self._path))
        try:
            data = self._file.read1(min(len(view), _STEP_BYTES))
        except OSError as error:
            if error.errno is not None:
                raise  # the system's
            reason = f"it is damaged: {error}"
        except EOFError:
            reason = "it is truncated"
        except MemoryError:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(self._path)) from None
        except Exception as error:  # noqa: BLE001 - each library has its own
            reason = f"it is damaged: {error}"
        else:
            view[: len(data)] = data
            return len(data)
        raise OSError(errno.EIO, reason, str(self._path))

    def _open(self) -> Any:  # noqa: ANN401 - of one of three modules
        raw = io.BufferedReader(self._raw, _RAW_BYTES)
        if self._path.suffix == SUFFIXES["gzip"]:
            import gzip

            return gzip.GzipFile(fileobj=raw, mode="rb")
        return _zstd().ZstdFile(raw, "rb")


class _Raw(io.RawIOBase):
    """A file that is opened anew for each read.

    Attributes:
        identity: Its device, inode, size and time, by which a later one is told from it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._at = 0
        with self._open() as file:
            self.identity = identity_of(os.fstat(file.fileno()))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with self._open() as file:
            if identity_of(os.fstat(file.fileno())) != self.identity:
                raise OSError(errno.EIO, "it was changed while it was read", str(self._path))
            file.seek(self._at)
            got = file.readinto(buffer)
        self._at += got
        return got

    def _open(self) -> io.FileIO:
        file = io.FileIO(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is not a regular file", str(self._path))
        return file


Identity = tuple[int, int, int, int]
"""Device, inode, size and time of a file, by which a later one is told from it."""

#: Decompressed sizes of files that were read to their ends: who follows a run asks at each look.
_sizes: dict[Identity, int] = {}
_MOST_SIZES = 10_000


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells a file from one that replaces it, or from itself with other content."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _known_size(identity: Identity) -> int | None:
    return _sizes.get(identity)


def _note_size(identity: Identity, size: int) -> None:
    if len(_sizes) >= _MOST_SIZES:
        _sizes.clear()
    _sizes[identity] = size


@functools.cache
def _zstd() -> Any:  # noqa: ANN401 - a module
    """Return the module for Zstandard.

    Raises:
        OSError: There is none; the message says what to install.
    """
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:  # noqa: PERF203 - two of them
            continue
    raise OSError(
        errno.EOPNOTSUPP,
        "Zstandard needs Python 3.14 or the package backports.zstd: "
        "pip install 'foundry_fastlog[zstd]'",
    )
