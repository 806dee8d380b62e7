"""Find all runs below a directory, with a signature of what each consists of.

A signature changes whenever something in a run does: it is made of the names, sizes, times and
inodes of all that a reader looks at. So what was found out about a run can be kept beside it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundry_fastlog.run.files import StrPath
from foundry_fastlog.run.names import PRIVATE_DIR, RUN_INFO, parse_name, plain_name
from foundry_fastlog.run.start_entries import STARTS_DIR

__all__ = ["FoundRun", "find_all_runs", "find_run_at"]

# What is kept in the private directory for readers alone.
_CACHES = frozenset({"cache"})
# The streams of which new lines say that a run goes on.
_PROGRESS = ("metrics", "performance")
# Directories that were removed meanwhile, and links that lead nowhere.
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE))
_PARTS = (PRIVATE_DIR, f"{PRIVATE_DIR}/quarantine", STARTS_DIR)


@dataclass(frozen=True)
class FoundRun:
    """A run, as it looked when it was found.

    Attributes:
        path: Its directory.
        name: Its path below the directory that was searched, ``.`` for that itself.
        signature: Differs once anything in the run has changed.
        changed: The latest time of anything in it, in seconds since 1970.
        recorded: The latest time of a file with metrics or timings, 0 without any: what else there
            is goes on while training hangs.
        size: Bytes of its files, which say how long it takes to read.
    """

    path: Path
    name: str
    signature: str
    changed: float
    recorded: float
    size: int = 0


def find_all_runs(
    directory: StrPath, unsearched: dict[str, str] | None = None
) -> Iterator[FoundRun]:
    """Find the runs in a directory, itself included, at any depth, and also inside other runs.

    Links are followed, each directory is searched once, and hidden ones are not.

    Args:
        directory: Where to search.
        unsearched: Receives the directories that cannot be read, by their paths below that one,
            and why; not those that were removed meanwhile.

    Yields:
        The runs; those behind links come last.
    """
    root = os.fspath(directory)
    seen: set[tuple[int, int]] = set()
    waiting = deque([(root, ".")])
    links: deque[tuple[str, str]] = deque()
    while waiting or links:
        path, name = (waiting or links).popleft()
        try:
            status = os.stat(path)  # noqa: PTH116 - a Path costs more than the call
            if (identity := (status.st_dev, status.st_ino)) in seen:
                continue
            seen.add(identity)
            with os.scandir(path) as listing:
                entries = list(listing)
        except OSError as error:
            if unsearched is not None and error.errno not in _NOT_THERE:
                unsearched[name] = f"cannot be searched: {error.strerror or error}"
            continue
        is_run = _is_run(entries)
        if is_run:
            yield _sign(path, name, entries)
        for entry in entries:
            if entry.name[0] == "." or (is_run and entry.name == STARTS_DIR) or not _is_dir(entry):
                continue
            below = entry.name if name == "." else f"{name}/{entry.name}"
            (links if entry.is_symlink() else waiting).append((entry.path, below))


def find_run_at(path: StrPath, name: str) -> FoundRun | None:
    """Look at one directory as ``find_all_runs`` does; None where there is no run.

    Args:
        path: The directory.
        name: What the run is called.
    """
    place = os.fspath(path)
    try:
        with os.scandir(place) as listing:
            entries = list(listing)
    except OSError:
        return None
    return _sign(place, name, entries) if _is_run(entries) else None


def _is_run(entries: list[os.DirEntry[str]]) -> bool:
    return any(
        entry.name == RUN_INFO or parse_name(plain_name(entry.name)) is not None
        for entry in entries
    )


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _sign(path: str, name: str, entries: list[os.DirEntry[str]]) -> FoundRun:
    parts: list[object] = []
    changed = recorded = 0.0
    size = 0
    for directory, listed in [("", entries), *((part, None) for part in _PARTS)]:
        try:
            if listed is None:
                with os.scandir(f"{path}/{directory}") as listing:
                    listed = list(listing)
        except OSError as error:
            parts.append((directory, error.errno))
            continue
        for entry in sorted(listed, key=lambda one: one.name):
            # Directories besides those of the run tell nothing; a cache is written by readers.
            if (directory == PRIVATE_DIR and entry.name in _CACHES) or _is_dir(entry):
                continue
            try:
                status = entry.stat()
            except OSError as error:
                parts.append((directory, entry.name, error.errno))
                continue
            times = status.st_mtime_ns, status.st_ctime_ns
            parts.append((directory, entry.name, *times, status.st_size, status.st_ino))
            changed = max(changed, *(time / 1e9 for time in times))
            size += status.st_size
            if not directory:
                stream = parse_name(plain_name(entry.name))
                if stream is not None and stream.stream in _PROGRESS:
                    recorded = max(recorded, status.st_mtime_ns / 1e9)
    signature = hashlib.blake2b(repr(parts).encode("utf-8", "surrogateescape"), digest_size=16)
    return FoundRun(Path(path), name, signature.hexdigest(), changed, recorded, size)
