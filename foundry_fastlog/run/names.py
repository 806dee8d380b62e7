"""The names of a run's files; a module of its own, as every start of a program needs it.

Parsed as specified in ``docs/format.md``.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from pathlib import Path
from typing import NamedTuple

from foundry_fastlog.run.streams import STREAMS

__all__ = [
    "PRIVATE_DIR",
    "RUN_INFO",
    "SUFFIXES",
    "StreamName",
    "Writer",
    "above_standard",
    "find_file",
    "format_name",
    "is_packed",
    "make_directories",
    "parse_name",
    "plain_name",
    "timestamp",
]

#: The file with the run's facts. It may be missing or stale.
RUN_INFO = "run.json"

#: The recorder's own directory inside a run, with the rings of its processes.
PRIVATE_DIR = ".fastlog"

_STDERR = 2
_DIGITS = str.maketrans("123456789", "000000000")
_STAMP = "0000-00-00_00-00-00"
_ENDING = ".jsonl"

#: The endings of compressed stream files by format; the first one counts where there are both.
SUFFIXES = {"zstd": ".zst", "gzip": ".gz"}


def _number(part: str, letter: str) -> int:
    """Return the number of a part such as ``r3``, 0 if it is none."""
    digits = part[1:]
    is_one = part[:1] == letter and digits.isascii() and digits.isdecimal() and digits[0] != "0"
    return int(digits) if is_one else 0


def _is_child(part: str) -> bool:
    pid, x, count = part[1:].partition("x")
    is_pid = part[:1] == "w" and pid.isascii() and pid.isdecimal()
    return is_pid and (not x or _number(f"x{count}", "x") > 0)


class Writer(NamedTuple):
    """One process that recorded in a run: its rank, start and child path.

    Writers sort by rank, then by start (stamp, attempt), then by peer, parents before children.

    Attributes:
        rank: Rank of the process in the training job, 0 for the main process.
        stamp: Start time in the file name, ``2025-09-30_14-30-00``, or ``""``.
        attempt: Number of the start: 0 for the first, then 1, 2, ... for each resume.
        peer: 0 but for a process beside another one of the same rank in the same start, and for one
            whose files somebody took away or replaced.
        children: ``w<pid>`` parts of a forked or spawned child, outermost first.
    """

    rank: int = 0
    stamp: str = ""
    attempt: int = 0
    peer: int = 0
    children: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The writer's part of the file name; ``""`` for the main process, first attempt."""
        parts = [f"r{self.rank}"] if self.rank else []
        if self.attempt:
            parts.append(f"a{self.attempt}")
        if self.peer:
            parts.append(f"p{self.peer}")
        return "-".join([*parts, *self.children])

    @property
    def display(self) -> str:
        """The label for people: ``main`` if the label is empty, followed by the stamp."""
        label = self.label or "main"
        return f"{label} {self.stamp}" if self.stamp else label

    @classmethod
    def from_label(cls, label: str, stamp: str = "") -> Writer:
        """Parse a label.

        Args:
            label: Text such as ``r3-a1-w4711``, or ``""``.
            stamp: Start time in the file name, ``""`` if there is none.

        Raises:
            ValueError: The text is not a label.
        """
        parts = label.split("-") if label else []
        numbers = {"r": 0, "a": 0, "p": 0}
        for letter in numbers:
            if parts and (number := _number(parts[0], letter)):
                numbers[letter] = number
                parts = parts[1:]
        if not all(map(_is_child, parts)):
            raise ValueError(f"{label!r} is not a writer label; labels look like 'r3-a1-w4711'")
        return cls(numbers["r"], stamp, numbers["a"], numbers["p"], tuple(parts))


class StreamName(NamedTuple):
    """The parts of a stream file's name.

    Attributes:
        stream: One of ``STREAMS``.
        writer: The process that wrote the file.
        segment: Number of the segment, 0 for the first.
    """

    stream: str
    writer: Writer = Writer()
    segment: int = 0


@functools.lru_cache(maxsize=1 << 14)  # who follows a run lists its directory again and again
def parse_name(name: str) -> StreamName | None:
    """Parse a file name.

    Args:
        name: A file name without its directory.

    Returns:
        The parts of the name, or None if it is not the name of a stream file.
    """
    # By hand: a start of a program does not wait for a pattern to be compiled.
    if not name.endswith(_ENDING):
        return None
    first, *rest = name[: -len(_ENDING)].split(".")
    stream, _, stamp = first.partition("_")
    if stream not in STREAMS or (stamp and stamp.translate(_DIGITS) != _STAMP):
        return None
    segment = 0
    if rest and len(rest[-1]) >= 6 and rest[-1].isascii() and rest[-1].isdecimal():
        segment = int(rest.pop())
    try:
        writer = Writer.from_label(rest[0] if rest else "", stamp)
    except ValueError:  # the part between the dots only looks like a label
        return None
    parsed = StreamName(stream, writer, segment)
    # One spelling per file: segment 0 has no number, numbers have no extra zeros.
    return parsed if format_name(parsed) == name else None


def format_name(name: StreamName) -> str:
    """Format the file name of a segment; the inverse of ``parse_name``.

    Raises:
        ValueError: The stream is unknown or the segment negative.
    """
    if name.stream not in STREAMS:
        raise ValueError(f"unknown stream {name.stream!r}; streams are {', '.join(STREAMS)}")
    if name.segment < 0:
        raise ValueError(f"segment must be >= 0, got {name.segment}")
    stamp = f"_{name.writer.stamp}" if name.writer.stamp else ""
    label = f".{name.writer.label}" if name.writer.label else ""
    segment = f".{name.segment:06d}" if name.segment else ""
    return f"{name.stream}{stamp}{label}{segment}.jsonl"


def plain_name(name: str) -> str:
    """Return the name that a stream file has when it is not compressed."""
    for suffix in SUFFIXES.values():
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed, by its name."""
    return path.suffix in SUFFIXES.values()


def find_file(path: Path) -> Path:
    """Return where a stream file is now: it may have been compressed since it was listed."""
    if not os.path.lexists(path):
        for suffix in SUFFIXES.values():
            packed = path.with_name(path.name + suffix)
            if os.path.lexists(packed):
                return packed
    return path


def make_directories(directory: Path) -> None:
    """Create a directory and its parents; none is world-writable, whatever the umask."""
    for part in (*reversed(directory.parents), directory):
        if not part.is_dir():
            with contextlib.suppress(FileExistsError):  # another process was faster
                part.mkdir(mode=0o775)


def above_standard(descriptor: int) -> int:
    """Move a descriptor that has a closed standard stream's number: others write to that one.

    Args:
        descriptor: A descriptor just opened; if moved, it is closed.
    """
    if descriptor > _STDERR:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STDERR + 1)
    finally:
        os.close(descriptor)


def timestamp() -> str:
    """Return the local time as used in file names."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")
