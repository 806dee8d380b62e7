"""List a run directory: its stream files, and anything in place of one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from foundry_fastlog.run.files import Segment, StrPath, Writer, parse_name, sort_segments

__all__ = ["Unread", "list_files", "list_segments"]

_LAID_ASIDE = re.compile(
    r"(?P<name>.+\.jsonl)(?P<rotated>[.-][0-9]+)?"
    r"(?P<packed>\.(?:gz|zst|bz2|xz|lz4|lzma|br|zip|Z))?"
)


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
        for entry in entries:
            name = parse_name(entry.name)
            if name is None:
                if reason := _reason_aside(entry.name, before):
                    unread.append(Unread(entry.name, reason))
                continue
            try:
                status = entry.stat()
            except OSError as error:
                # Not a link, and gone: removed between the listing and the stat.
                if entry.is_symlink() or not isinstance(error, FileNotFoundError):
                    unread.append(Unread(entry.name, f"{error.strerror or error}"))
                continue
            if stat.S_ISREG(status.st_mode):
                found.append(Segment(Path(entry.path), name, status.st_size))
            else:
                unread.append(Unread(entry.name, "it is not a regular file"))
    newest: dict[tuple[str, Writer], int] = {}
    for segment in found:
        if segment.path.name in before:
            key = (segment.name.stream, segment.name.writer)
            newest[key] = max(newest.get(key, 0), segment.name.segment)
    found = [
        segment
        for segment in found
        if segment.name.segment <= newest.get((segment.name.stream, segment.name.writer), -1)
    ]
    return sort_segments(found), sorted(unread)


def _reason_aside(name: str, present: Collection[str]) -> str:
    """Return why a file is not read that was compressed, or renamed as log rotation does."""
    match = _LAID_ASIDE.fullmatch(name)
    if match is None or parse_name(match["name"]) is None:
        return ""
    if match["packed"]:
        kept = match["rotated"] is None and match["name"] in present
        return "" if kept else "compressed files are not read: decompress it"
    return "it was renamed: restore its name, or move it elsewhere if it is not part of the run"
