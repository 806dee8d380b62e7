"""The names of a run's files, and finding them in a directory.

A run is a directory. Each process that recorded in it (a *writer*) has its own files, one series of
numbered segments per stream::

    {stream}[_{stamp}][.{label}][.{segment:06d}].jsonl

This module parses names as specified in ``docs/format.md``. Nothing here reads a stream file: names
and directory entries are enough.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from foundry_fastlog.base.formatting import printable
from foundry_fastlog.run.names import (
    PRIVATE_DIR,
    RUN_INFO,
    StreamName,
    Writer,
    above_standard,
    format_name,
    is_packed,
    make_directories,
    parse_name,
    plain_name,
    timestamp,
)
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
    "above_standard",
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

_LOOKS_LIKE = re.compile(
    r"(?:metrics|performance|errors|log|system)(?:[._].*)?\.jsonl", re.IGNORECASE
)


class RunNotFoundError(FileNotFoundError):
    """The path is not a run. The message says what to do."""


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
    """Sort stream files by stream, writer and number, a compressed one before one begun anew."""
    order = {stream: position for position, stream in enumerate(STREAMS)}
    return sorted(
        segments,
        key=lambda seg: (
            *(order[seg.name.stream], seg.name.writer, seg.name.segment),
            *(not is_packed(seg.path), seg.path.suffix),
        ),
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
