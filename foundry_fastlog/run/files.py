"""The names of a run's files, and finding them in a directory.

A run is a directory. Each process that recorded in it (a *writer*) has its own files, one series of
numbered segments per stream::

    {stream}[_{stamp}][.{label}][.{segment:06d}].jsonl

This module parses names as specified in ``docs/format.md``. Nothing here reads a stream file: names
and directory entries are enough.
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
from foundry_fastlog.run.packed import plain_name
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

#: The file with the run's facts. It may be missing or stale.
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
    """The path is not a run. The message says what to do."""


@dataclass(frozen=True, order=True)
class Writer:
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
            raise ValueError(f"{label!r} is not a writer label; labels look like 'r3-a1-w4711'")
        return cls(rank, stamp, attempt, peer, tuple(parts))


@dataclass(frozen=True, order=True)
class StreamName:
    """The parts of a stream file's name.

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
        The parts of the name, or None if it is not the name of a stream file.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        writer = Writer.from_label(match["label"] or "", match["stamp"] or "")
    except ValueError:  # the part between the dots only looks like a label
        return None
    parsed = StreamName(match["stream"], writer, int(match["segment"] or 0))
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


def looks_like_stream_file(name: str) -> bool:
    """Return whether a reader or a person could take this name for a run's stream file."""
    return _LOOKS_LIKE.fullmatch(name) is not None


@dataclass(frozen=True)
class Segment:
    """One stream file on disk.

    If its process was killed, its ring may hold further lines for it; they are `pending`, and it
    may lack them, or not even exist. See ``overlay``.

    Attributes:
        path: Where the file is.
        name: The parts of its name.
        size: Bytes when it was listed, pending ones included; compressed ones, if it is.
        kept: The byte ranges of the file (decompressed) that count, as offsets; None for all.
        pending: The bytes that follow them.
    """

    path: Path
    name: StreamName
    size: int
    kept: tuple[tuple[int, int], ...] | None = None
    pending: bytes = field(default=b"", repr=False, hash=False)  # megabytes, in a cursor

    def open(self) -> SegmentFile:
        """Open the segment for reading.

        Raises:
            OSError: It cannot be opened.
        """
        return SegmentFile(self.path, self.kept, self.pending)


@dataclass(frozen=True)
class Series:
    """All segments of one stream of one writer, in order; ``seq`` counts through all of them.

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
        """List the names of segments before the newest one that must have existed.

        Consecutive names are abbreviated as ``first ... last``, so the list stays short.
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
                parse_name(plain_name(entry.name)) or entry.name == RUN_INFO for entry in entries
            )
    except OSError:  # unreadable or gone: not a run that could be opened
        return False


def _subdirectories(directory: Path) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            )
    except OSError:  # an unreadable directory hides its runs; not an error here
        return
    for name in names:
        yield directory / name


def find_runs(directory: StrPath, *, depth: int = 3, limit: int = 1000) -> list[Path]:
    """Find run directories below a directory.

    Args:
        directory: Where to search. The directory itself is not reported.
        depth: How many levels down to search.
        limit: Stop after this many runs.

    Returns:
        Paths of runs, most recently changed first.
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
    except OSError:  # removed in between: sorts last
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
        path: The directory passed to ``Recorder``.

    Returns:
        The path.

    Raises:
        RunNotFoundError: The path is missing, is a file, or is not a run. The message names runs
            nearby.
    """
    run = Path(path)
    if not run.exists():
        near = run.parent
        runs = find_runs(near, depth=1) if near.is_dir() else []
        hint = (
            f"Runs in {near} (newest first):\n{_listing(runs)}"
            if runs
            else "Check the spelling; a run is the directory passed to Recorder(path)."
        )
        raise RunNotFoundError(f"{run} does not exist. {hint}")
    if not run.is_dir():
        hint = (
            f"Use its directory: {run.parent}"
            if _is_run(run.parent)
            else "Use the directory passed to Recorder(path)."
        )
        raise RunNotFoundError(f"{run} is a file, but a run is a directory. {hint}")
    if _is_run(run):
        return run
    if not os.access(run, os.R_OK | os.X_OK):
        raise RunNotFoundError(f"{run} cannot be read: permission denied. Check its owner.")
    runs = find_runs(run)
    if runs:
        count = f"{len(runs)} runs" if len(runs) > 1 else "one run"
        raise RunNotFoundError(
            f"{run} is not a run, but contains {count} (newest first):\n{_listing(runs)}"
        )
    raise RunNotFoundError(
        f"{run} is not a run: it has no metrics.jsonl and no run.json. A run is the directory "
        f"passed to Recorder(path); 'foundry-fastlog demo' creates one to try."
    )


def timestamp() -> str:
    """Return the local time as used in file names."""
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def make_directories(directory: Path) -> None:
    """Create a directory and its parents; none is world-writable, whatever the umask."""
    for part in (*reversed(directory.parents), directory):
        if not part.is_dir():
            with contextlib.suppress(FileExistsError):  # another process was faster
                part.mkdir(mode=0o775)
