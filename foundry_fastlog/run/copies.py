"""Which of a segment's files counts, where one is plain and others are compressed.

A compression was killed before it removed the plain file, a decompression before it was complete,
or somebody keeps both. The file with more whole lines counts, and among equals the plain one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from foundry_fastlog.run.files import Segment
from foundry_fastlog.run.packed import SUFFIXES, Identity, identity_of, is_packed, plain_name
from foundry_fastlog.run.segment_file import SegmentFile

__all__ = ["begin_alike", "has_more_lines", "leave_out_copies"]

#: Of a file's beginning, and of its end; a line's time and number are within.
_HEAD_BYTES = _TAIL_BYTES = 64
_BLOCK_BYTES = 1 << 20
_SEQ = re.compile(rb'"seq"\s*:\s*([0-9]+)')


class _Content(NamedTuple):
    """What a file has, in the order in which one is better than another."""

    lines: int = -1  # whole ones; less than none where it cannot be opened
    sound: bool = False  # without damage, and without zeros, which a power loss leaves
    size: int = 0
    tail: bytes = b""

    def is_more(self, other: _Content) -> bool:
        return (self.lines, self.sound) > (other.lines, other.sound)


#: Of files that were read for it: who follows a run asks at each look.
_contents: dict[tuple[Path, Identity], _Content] = {}
_MOST_CONTENTS = 1000


def leave_out_copies(found: list[Segment]) -> list[Segment]:
    """Leave out files whose lines are in another one, too.

    Such files begin alike; where a writer began a file anew, they do not, and both count.
    """
    order = {"": 0, **{suffix: place for place, suffix in enumerate(SUFFIXES.values(), 1)}}
    kept: dict[str, list[Segment]] = {}
    for segment in sorted(found, key=lambda one: order.get(one.path.suffix, 0)):
        others = kept.setdefault(plain_name(segment.path.name), [])
        for place, other in enumerate(others):
            if begin_alike(segment.path, other.path):
                copied = _is_copied(segment.path, other.path)
                if not copied and has_more_lines(segment.path, other.path):
                    others[place] = segment
                break
        else:
            others.append(segment)
    return [segment for segments in kept.values() for segment in segments]


def begin_alike(one: Path, other: Path) -> bool:
    """Return whether two stream files begin with the same line, as far as it is there."""
    try:
        with SegmentFile(one) as first, SegmentFile(other) as second:
            first.seek(0)
            second.seek(0)
            heads = (file.read(_HEAD_BYTES).partition(b"\0")[0] for file in (first, second))
            less, more = sorted(heads, key=len)
            return more.startswith(less)
    except OSError:  # it is told of the plain one, if it is not whole, by its numbers
        return True


def has_more_lines(one: Path, other: Path) -> bool:
    """Return whether a stream file has more whole lines than another, or as many without damage."""
    content = _content(one)
    return not _goes_on(other, content) and content.is_more(_content(other))


def _is_copied(packed: Path, plain: Path) -> bool:
    """Return whether a compression has taken in all of a plain file: both have one time.

    Times have ticks: a decompression may have been killed in that of what it reads.
    """
    try:
        made, of = packed.stat(), plain.stat()
        return (
            made.st_mtime_ns == of.st_mtime_ns
            and not is_packed(plain)
            and _read_end(plain, of.st_size, 1) == b"\n"
        )
    except OSError:
        return False


def _goes_on(path: Path, content: _Content) -> bool:
    """Return whether a plain file has all of another, and more: somebody compressed it meanwhile.

    It may be written to, and is not read whole each time.
    """
    if is_packed(path):
        return False
    try:
        longer = path.stat().st_size > content.size
        return longer and _read_end(path, content.size, len(content.tail)) == content.tail
    except OSError:
        return False


def _read_end(path: Path, end: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, end - count))
        return file.read(min(end, count))


def _content(path: Path) -> _Content:
    try:
        key = path, identity_of(path.stat())
        content = _contents.get(key)
        if content is None:
            content = _look_at(path)
            if len(_contents) >= _MOST_CONTENTS:
                _contents.clear()
            _contents[key] = content
    except OSError:
        return _Content()
    return content


def _look_at(path: Path) -> _Content:
    lines = size = 0
    tail, sound = b"", True
    with SegmentFile(path) as file:
        for block in (blocks := _Blocks(file)):
            lines += block.count(b"\n")
            size += len(block)
            sound = sound and b"\0" not in block
            tail = (tail + block[-_TAIL_BYTES:])[-_TAIL_BYTES:]
    if not (sound := sound and not blocks.damaged):
        with SegmentFile(path) as file:
            lines = _count_lines(_Blocks(file))
    return _Content(lines, sound, size, tail)


def _count_lines(blocks: Iterable[bytes]) -> int:
    """Count lines by their numbers: what damage decompresses to can be any lines again."""
    count, last, rest = 0, -1, b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        rest = rest[:_BLOCK_BYTES]
        for line in lines:
            found = None if b"\0" in line else _SEQ.search(line)
            if found is not None and len(found[1]) < 20 and int(found[1]) > last:
                count, last = count + 1, int(found[1])
    return count


class _Blocks:
    """The bytes of a file, to its end or to where it is damaged."""

    def __init__(self, file: SegmentFile) -> None:
        self._file = file
        self.damaged = False

    def __iter__(self) -> Iterator[bytes]:
        self.damaged = True
        with contextlib.suppress(OSError):
            self._file.seek(0)
            while block := self._file.read(_BLOCK_BYTES):
                yield block
            self.damaged = False
