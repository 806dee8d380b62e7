"""File names of a run directory, and what is found in one.

A run is a directory. Each process that recorded in it (a *writer*) has files of
its own, one series of numbered segments per stream::

    {stream}[_{stamp}][.{label}][.{segment:06d}].jsonl

``docs/format.md`` is the contract that this module parses. Nothing here reads a
stream file: names and directory entries are enough.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.run.segment_file import SegmentFile
from foundry_fastlog.run.streams import STREAMS

__all__ = [
    "PRIVATE_DIR",
    "RUN_INFO",
    "STREAMS",
    "RunNotFoundError",
    "Segment",
    "Series",
    "StreamName",
    "Writer",
    "find_runs",
    "format_name",
    "group_series",
    "looks_like_stream_file",
    "make_directories",
    "open_run_dir",
    "parse_name",
    "sort_segments",
    "timestamp",
]

StrPath = Union[str, "os.PathLike[str]"]

#: The file with the run's facts. It may be absent or stale.
RUN_INFO = "run.json"

#: The recorder's own directory inside a run, with the rings of its processes.
PRIVATE_DIR = ".fastlog"

_NAME = re.compile(
    r"(?P<stream>metrics|performance|errors|log|system)"
    r"(?:_(?P<stamp>[0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2}))?"
    r"(?:\.(?P<label>[rapw][0-9apwx-]*))?"
    r"(?:\.(?P<segment>[0-9]{6,}))?"
    r"\.jsonl"
)
_RANK = re.compile(r"r([1-9][0-9]*)")
_ATTEMPT = re.compile(r"a([1-9][0-9]*)")
_PEER = re.compile(r"p([1-9][0-9]*)")
_CHILD = re.compile(r"w[0-9]+(?:x[1-9][0-9]*)?")
_LOOKS_LIKE = re.compile(
    r"(?:metrics|performance|errors|log|system)(?:[._].*)?\.jsonl", re.IGNORECASE
)


class RunNotFoundError(FileNotFoundError):
    """The path holds no run. The message says what to do about it."""


@dataclass(frozen=True, order=True)
class Writer:
    """One process that recorded in a run: which rank, which start, which child.

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
        """The label for people: ``main`` where the label is empty, the stamp behind it."""
        label = self.label or "main"
        return f"{label} {self.stamp}" if self.stamp else label

    @classmethod
    def from_label(cls, label: str, stamp: str = "") -> Writer:
        """Parse a label.

        Args:
            label: Text such as ``r3-a1-w4711``, or ``""``.
            stamp: Start time of the file name, ``""`` when there is none.

        Raises:
            ValueError: The text is no label.
        """
        parts = label.split("-") if label else []
        rank = attempt = peer = 0
        if parts and (match := _RANK.fullmatch(parts[0])):
            rank = int(match[1])
            parts = parts[1:]
        if parts and (match := _ATTEMPT.fullmatch(parts[0])):
            attempt = int(match[1])
            parts = parts[1:]
        if parts and (match := _PEER.fullmatch(parts[0])):
            peer = int(match[1])
            parts = parts[1:]
        if not all(_CHILD.fullmatch(part) for part in parts):
            raise ValueError(f"{label!r} is no writer label; labels look like 'r3-a1-w4711'")
        return cls(rank, stamp, attempt, peer, tuple(parts))


@dataclass(frozen=True, order=True)
class StreamName:
    """What a stream file's name says.

    Attributes:
        stream: One of ``STREAMS``.
        writer: The process that wrote the file.
        segment: Number of the segment, 0 for the first.
    """

    stream: str
    writer: Writer = Writer()
    segment: int = 0


def parse_name(name: str) -> StreamName | None:
    """Parse a file name.

    Args:
        name: A file name without its directory.

    Returns:
        What the name says, or None when it is not the name of a stream file.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        writer = Writer.from_label(match["label"] or "", match["stamp"] or "")
    except ValueError:  # the part between the dots only looks like a label
        return None
    parsed = StreamName(match["stream"], writer, int(match["segment"] or 0))
    # One spelling per file: segment 0 has no number, numbers have no needless zeros.
    return parsed if format_name(parsed) == name else None


def format_name(name: StreamName) -> str:
    """Spell the file name of a segment; the inverse of ``parse_name``.

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


def looks_like_stream_file(name: str) -> bool:
    """Whether a reader or a person could take this name for a stream file of a run."""
    return _LOOKS_LIKE.fullmatch(name) is not None


@dataclass(frozen=True)
class Segment:
    """One stream file on disk.

    A process that was killed may have left lines for it in its ring; they are `pending`,
    and the file on disk may lack them, or not even be there. See ``overlay``.

    Attributes:
        path: Where the file is.
        name: What its name says.
        size: Bytes in the file when the directory was listed, with what is pending.
        kept: Which bytes of the file on disk count, as ranges of offsets; None for all.
        pending: What follows them.
    """

    path: Path
    name: StreamName
    size: int
    kept: tuple[tuple[int, int], ...] | None = None
    pending: bytes = field(default=b"", repr=False)

    def open(self) -> SegmentFile:
        """Open it for reading.

        Raises:
            OSError: It cannot be opened.
        """
        return SegmentFile(self.path, self.kept, self.pending)


@dataclass(frozen=True)
class Series:
    """All segments of one stream of one writer, in order: one ``seq`` counts through them.

    Attributes:
        stream: One of ``STREAMS``.
        writer: The process that wrote the files.
        segments: The files, by segment number.
    """

    stream: str
    writer: Writer
    segments: tuple[Segment, ...] = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes in all segments."""
        return sum(segment.size for segment in self.segments)

    def missing_segments(self) -> list[str]:
        """Names of the files that must have been there before the newest one.

        Neighbours are named as ``first ... last``, so the list stays short.
        """
        missing = []
        expected = 0
        for segment in self.segments:
            if segment.name.segment > expected:
                first, last = (
                    format_name(StreamName(self.stream, self.writer, number))
                    for number in (expected, segment.name.segment - 1)
                )
                missing.append(first if first == last else f"{first} ... {last}")
            expected = segment.name.segment + 1
        return missing


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Sort stream files by stream, writer and number."""
    order = {stream: position for position, stream in enumerate(STREAMS)}
    return sorted(
        segments, key=lambda seg: (order[seg.name.stream], seg.name.writer, seg.name.segment)
    )


def group_series(segments: Iterable[Segment]) -> list[Series]:
    """Group stream files by stream and writer, sorted in that order."""
    groups: dict[tuple[str, Writer], list[Segment]] = {}
    for segment in sort_segments(segments):
        groups.setdefault((segment.name.stream, segment.name.writer), []).append(segment)
    return [Series(stream, writer, tuple(segs)) for (stream, writer), segs in groups.items()]


def _is_run(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(
                parse_name(entry.name) is not None or entry.name == RUN_INFO for entry in entries
            )
    except OSError:  # unreadable or gone: not a run that anyone could open
        return False


def _subdirectories(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:  # an unreadable directory hides its runs, which is no error here
        return
    for name in names:
        yield directory / name


def find_runs(directory: StrPath, *, depth: int = 3, limit: int = 1000) -> list[Path]:
    """Find run directories below a directory.

    Args:
        directory: Where to look. The directory itself is not reported.
        depth: How many levels down to look.
        limit: Stop after this many runs.

    Returns:
        Paths of runs, the one with the newest change first.
    """
    found: list[Path] = []
    level = [Path(directory)]
    for _ in range(depth):
        below: list[Path] = []
        for parent in level:
            for child in _subdirectories(parent):
                if not _is_run(child):
                    below.append(child)
                elif len(found) < limit:
                    found.append(child)
        level = below
    return sorted(found, key=lambda path: (-_mtime(path), path))


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile: sorts last
        return 0.0


def _listing(paths: Iterable[Path], limit: int = 10) -> str:
    shown = list(paths)
    lines = [f"  {printable(str(path))}" for path in shown[:limit]]
    if len(shown) > limit:
        lines.append(f"  ... and {len(shown) - limit} more")
    return "\n".join(lines)


def open_run_dir(path: StrPath) -> Path:
    """Check that a path is a run directory.

    Args:
        path: The directory that a ``Recorder`` was given.

    Returns:
        The path.

    Raises:
        RunNotFoundError: The path is missing, is a file, or holds no run. The message
            names runs near by.
    """
    run = Path(path)
    if not run.exists():
        near = run.parent
        runs = find_runs(near, depth=1) if near.is_dir() else []
        hint = (
            f"Runs in {near} (newest first):\n{_listing(runs)}"
            if runs
            else "Check the spelling; a run is the directory that Recorder(path) was given."
        )
        raise RunNotFoundError(f"{run} does not exist. {hint}")
    if not run.is_dir():
        hint = (
            f"Give its directory: {run.parent}"
            if _is_run(run.parent)
            else "Give the directory that Recorder(path) was given."
        )
        raise RunNotFoundError(f"{run} is a file, and a run is a directory. {hint}")
    if _is_run(run):
        return run
    if not os.access(run, os.R_OK | os.X_OK):
        raise RunNotFoundError(f"{run} cannot be read: permission denied. Check who owns it.")
    runs = find_runs(run)
    if runs:
        count = f"{len(runs)} runs" if len(runs) > 1 else "one run"
        raise RunNotFoundError(
            f"{run} is no run, but {count} below it can be given (newest first):\n{_listing(runs)}"
        )
    raise RunNotFoundError(
        f"{run} is no run: it holds no metrics.jsonl and no run.json. A run is the directory "
        f"that Recorder(path) was given; 'foundry-fastlog demo' makes one to try."
    )


def timestamp() -> str:
    """Return the local time as file names have it."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def make_directories(directory: Path) -> None:
    """Make a directory and those above it; none is writable by everybody, whatever the umask."""
    for part in (*reversed(directory.parents), directory):
        if not part.is_dir():
            with contextlib.suppress(FileExistsError):  # another process was faster
                part.mkdir(mode=0o775)
