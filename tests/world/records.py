"""What the world's processes record, and how they say what was acknowledged.

Every record is a function of its writer, thread and number, so the oracle knows each line in full.
A *writer* is one recorder in one process: who forks, or opens another run, is another one. What
was acknowledged is a counter per thread in memory that the driver maps too: it outlives a kill,
needs no descriptor and no disk, and is raised only after ``record()`` returned True.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = (
    16  # numbers of threads in a writer; a later thread may go on with an earlier one's number
)
WRITERS = 24  # recorders that one process may open
PER_PROCESS = 1000  # writer = process * PER_PROCESS + how many the process had opened
NAMES = ("loss", "acc", "lr", "grad_norm")

_WORDS = 64  # of a writer: state, then counters
_RING, _ENDED, _CALLS, _NAMED, _ACKED, _FLUSHED = 0, 1, 2, 8, 16, 16 + THREADS
ACKS_BYTES = WRITERS * _WORDS * 8

UNKNOWN, MAPPED, MEMORY = 0, 1, 2  # where a writer's ring is
OPEN, CLOSED = 0, 1  # closed: close() returned True


def content(writer: int, thread: int, n: int) -> tuple[str, str, float]:
    bits = zlib.crc32(struct.pack("<3Q", writer, thread, n))
    stream = ("metrics",) * 5 + ("system", "log", "errors")
    return stream[bits & 7], NAMES[bits >> 3 & 3], (bits >> 5) / 1024


def origin(line: dict[str, Any]) -> tuple[int, int, int, str, str, float]:
    """Read (writer, thread, number, stream, name, value) out of a line, which may be none."""
    stream = next((name for name in ("metrics", "system") if name in line), "")
    values = dict(line[stream or "context"])
    stream = stream or ("errors" if "error_type" in line else "log")
    writer, thread, n = (values.pop(key) for key in ("w", "t", "n"))
    ((name, value),) = values.items()
    if line["step"] != n:
        raise ValueError(f"step {line['step']} in record {n}")
    return writer, thread, n, stream, name, value


@dataclass(frozen=True)
class Writer:
    """What a writer's counters say.

    Attributes:
        number: Of the writer.
        ring: UNKNOWN, MAPPED or MEMORY.
        ended: OPEN or CLOSED.
        ring_name: Its uuid; empty when there is none or it is not known.
        acked: Per thread, how many records were accepted.
        flushed: Per thread, how many of them flush() or close() said to be in the files.
    """

    number: int
    ring: int
    ended: int
    ring_name: str
    acked: tuple[int, ...]
    flushed: tuple[int, ...]


class Acks:
    """The counters of one process, in a file that is mapped by it and by the driver."""

    def __init__(self, path: Path, process: int, *, make: bool = False) -> None:
        if make:
            path.write_bytes(bytes(ACKS_BYTES))
        self.process = process
        with path.open("r+b") as handle:
            self._map = mmap.mmap(handle.fileno(), ACKS_BYTES)
        self._words = (ctypes.c_uint64 * (ACKS_BYTES // 8)).from_buffer(self._map)

    def begin(self, index: int) -> None:
        self._words[index * _WORDS + _CALLS] = 1

    def place(self, index: int, ring_path: str | None) -> None:
        name = b"" if ring_path is None else Path(ring_path).stem[-36:].encode()
        begin = (index * _WORDS + _NAMED) * 8
        self._map[begin : begin + 48] = name.ljust(48, b"\0")
        self._words[index * _WORDS + _RING] = MEMORY if ring_path is None else MAPPED

    def end(self, index: int) -> None:
        self._words[index * _WORDS + _ENDED] = CLOSED

    def acked(self, index: int, thread: int) -> int:
        return self._words[index * _WORDS + _ACKED + thread]

    def ack(self, index: int, thread: int, count: int) -> None:
        self._words[index * _WORDS + _ACKED + thread] = count

    def all_acked(self, index: int) -> list[int]:
        begin = index * _WORDS + _ACKED
        return list(self._words[begin : begin + THREADS])

    def flushed(self, index: int, counts: list[int]) -> None:
        """Note that so many records are said to be in the files."""
        for thread, count in enumerate(counts):
            self._words[index * _WORDS + _FLUSHED + thread] = count

    def writers(self) -> Iterator[Writer]:
        for index in range(WRITERS):
            begin = index * _WORDS
            words = self._words[begin : begin + _WORDS]
            if not words[_CALLS]:
                return
            name = bytes(self._map[(begin + _NAMED) * 8 : (begin + _NAMED) * 8 + 48])
            yield Writer(
                self.process * PER_PROCESS + index,
                words[_RING],
                words[_ENDED],
                name.rstrip(b"\0").decode(),
                tuple(words[_ACKED : _ACKED + THREADS]),
                tuple(words[_FLUSHED : _FLUSHED + THREADS]),
            )
