"""List a run directory: its stream files, and anything in place of one."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from foundry_fastlog.run.copies import leave_out_copies
from foundry_fastlog.run.files import (
    Segment,
    StreamName,
    StrPath,
    Writer,
    format_name,
    parse_name,
    sort_segments,
)
from foundry_fastlog.run.packed import find_file, plain_name

__all__ = ["Unread", "list_files", "list_segments"]

_LAID_ASIDE = re.compile(
    r"(?P<name>.+\.jsonl)(?P<rotated>[.-][0-9]+)?"
    r"(?P<packed>\.(?:gz|zst|bz2|xz|lz4|lzma|br|zip|Z))?"
)

_MOST_MISSED = 100


class Unread(NamedTuple):
    """Something that may hold lines of a run but is not read.

    Attributes:
        name: Its name in the run directory.
        reason: Why it is not read.
    """

    name: str
    reason: str


def list_segments(directory: StrPath) -> list[Segment]:
    """List the stream files directly inside a directory, sorted.

    Directories, pipes and other things with the name of a stream file are omitted.

    Args:
        directory: A run directory.

    Raises:
        OSError: The directory cannot be listed.
    """
    return list_files(directory)[0]


def list_files(directory: StrPath) -> tuple[list[Segment], list[Unread]]:
    """List the stream files directly inside a directory, and anything in place of one.

    A file created during the call is listed only together with all files created before it.

    Args:
        directory: A run directory.

    Returns:
        The stream files, sorted; and what may hold lines of the run but is not a stream file,
        sorted.

    Raises:
        OSError: The directory cannot be listed.
    """
    # One listing may include a new file and miss an older one. A second one includes everything in
    # the first and everything older than that.
    with os.scandir(directory) as entries:
        before = frozenset(entry.name for entry in entries)
    found: list[Segment] = []
    unread: list[Unread] = []
    with os.scandir(directory) as entries:
        now = frozenset(entry.name for entry in entries)
    for entry in _listed(Path(directory), before, now):
        name = parse_name(plain_name(entry))
        if name is None:
            if reason := _reason_aside(entry, before):
                unread.append(Unread(entry, reason))
            continue
        path = Path(directory, entry)
        try:
            path, status = _look(path)
        except OSError as error:
            # Not a link, and gone: removed, or compressed, between the listing and the stat.
            if path.is_symlink() or not isinstance(error, FileNotFoundError):
                unread.append(Unread(path.name, f"{error.strerror or error}"))
            continue
        if stat.S_ISREG(status.st_mode):
            found.append(Segment(path, name, status.st_size))
        else:
            unread.append(Unread(path.name, "it is not a regular file"))
    newest: dict[tuple[str, Writer], int] = {}
    for segment in found:
        if segment.path.name in before or plain_name(segment.path.name) in before:
            key = (segment.name.stream, segment.name.writer)
            newest[key] = max(newest.get(key, 0), segment.name.segment)
    found = [
        segment
        for segment in found
        if segment.name.segment <= newest.get((segment.name.stream, segment.name.writer), -1)
    ]
    found += _missed(Path(directory), found, newest)
    return sort_segments(leave_out_copies(found)), sorted(unread)


def _look(path: Path) -> tuple[Path, os.stat_result]:
    """Return where a file is now, and what it is."""
    try:
        return path, path.stat()
    except FileNotFoundError:
        return (path := find_file(path)), path.stat()


def _missed(
    directory: Path, found: list[Segment], newest: dict[tuple[str, Writer], int]
) -> Iterator[Segment]:
    """Yield segments before the newest that are compressed, and that no listing showed.

    A compressed file appears before the plain one goes, yet a listing made meanwhile may miss both.
    """
    present: dict[tuple[str, Writer], set[int]] = {}
    for one in found:
        present.setdefault((one.name.stream, one.name.writer), set()).add(one.name.segment)
    for (stream, writer), last in newest.items():
        absent = (n for n in range(last) if n not in present[stream, writer])
        for number in islice(absent, _MOST_MISSED):
            name = StreamName(stream, writer, number)
            with contextlib.suppress(OSError):  # it is missing
                path = find_file(directory / format_name(name))
                if stat.S_ISREG((status := path.stat()).st_mode):
                    yield Segment(path, name, status.st_size)


def _listed(directory: Path, before: frozenset[str], now: frozenset[str]) -> Iterator[str]:
    """Yield the names in a directory, with files that were compressed while it was listed."""
    yield from now
    for name in before - now:
        if parse_name(name) and (found := find_file(directory / name).name) not in now:
            yield found


def _reason_aside(name: str, present: Collection[str]) -> str:
    """Return why a file is not read that was compressed, or renamed as log rotation does."""
    match = _LAID_ASIDE.fullmatch(name)
    if match is None or parse_name(match["name"]) is None:
        return ""
    if match["packed"]:
        kept = match["rotated"] is None and match["name"] in present
        return "" if kept else "only .zst and .gz files are read compressed: decompress it"
    return "it was renamed: restore its name, or move it elsewhere if it is not part of the run"
