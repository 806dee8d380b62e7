"""How far a series has been read, and reading on from there.

Only whole lines are taken. A place knows the file that it is in by its inode, by how its first line
begins, and by what stands before the place: so a file that was truncated or replaced is noticed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any
from zlib import crc32

import orjson

from foundry_fastlog.reading.lines import MAX_LINE_BYTES
from foundry_fastlog.run.files import Segment, Series, Writer
from foundry_fastlog.run.packed import Identity, identity_of, is_packed
from foundry_fastlog.run.segment_file import SegmentFile

__all__ = ["Place", "advance", "go_on", "seq_of", "step_back", "tail_of", "without_known"]

_BLOCK_BYTES = 1 << 16
_HEAD_BYTES, _BEFORE_BYTES = 128, 64
_SEQ = re.compile(rb'\{\s*"timestamp":\s*"[^"]*",\s*"seq":\s*([0-9]{1,19}),')

#: How many bytes of a file were looked at, and their checksum.
_Print = tuple[int, int]


@dataclass
class Place:
    """The position up to which a series has been read."""

    segment: int
    offset: int = 0  # after the last whole line that was taken
    inode: int = 0
    head: _Print = (0, 0)  # of how the file begins
    before: _Print = (0, 0)  # of what stands before the place
    next_seq: int = 0  # of the line after the last one taken
    known_below: int = 0  # lines with a lower seq were taken already, and will be read again
    first: int = -1  # the segment that was read first, and how it begins
    origin: _Print = (0, 0)
    settled: object = None  # the end of the files according to a ring, when last checked
    compared: Identity | None = None  # the compressed file whose beginning was compared last
    gone: bool = False  # the file is missing, and this was reported
    anew: bool = False  # it was read from its start again since the last poll

    def to_json(self, stream: str, writer: Writer) -> dict[str, Any]:
        """Return what a position keeps of it."""
        kept = {name: value for name, value in asdict(self).items() if name not in _NOT_KEPT}
        return {"stream": stream, "label": writer.label, "stamp": writer.stamp, **kept}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> tuple[str, Writer, Place]:
        """Return stream, writer and place from what a position keeps.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        kept = {"first": -1, "origin": (0, 0), **kept}  # which older positions lack
        values = {
            field.name: kept[field.name] for field in fields(cls) if field.name not in _NOT_KEPT
        }
        for name in ("head", "before", "origin"):
            size, checksum = values[name]
            values[name] = (int(size), int(checksum))
        numbers = {name: value for name, value in values.items() if type(value) is int}
        if len(numbers) + 3 != len(values):
            raise ValueError("not a number")
        writer = Writer.from_label(kept["label"], kept["stamp"])
        return str(kept["stream"]), writer, cls(**values)

    def begin(self, segment: int) -> None:
        """Go to the start of another segment."""
        self.segment, self.offset, self.inode = segment, 0, 0
        self.head = self.before = (0, 0)

    def note(self, handle: SegmentFile, offset: int, inode: int) -> None:
        """Remember a place in an opened file."""
        self.offset, self.inode = offset, inode
        self.before = _print_of(handle, max(0, offset - _BEFORE_BYTES), offset)
        self.head = _print_of(handle, 0, min(_HEAD_BYTES, offset))
        if self.first in (-1, self.segment):
            self.first, self.origin = self.segment, self.head

    def begin_anew(self, series: Series) -> None:
        """Go to the start of a series that is not the one that was read."""
        self.begin(series.segments[0].name.segment)
        self.next_seq = self.known_below = 0
        self.first, self.origin = -1, (0, 0)
        self.anew = True


_NOT_KEPT = ("settled", "compared", "gone", "anew")


def _print_of(handle: SegmentFile, begin: int, end: int) -> _Print:
    handle.seek(begin)
    return end - begin, crc32(handle.read(end - begin))


def go_on(segments: Iterable[Segment], place: Place) -> list[Segment]:
    """Return the files that a place is in or before.

    Two have the place's number where the writer began a file anew that somebody had compressed.
    """
    later = [segment for segment in segments if segment.name.segment >= place.segment]
    alike = [segment for segment in later if segment.name.segment == place.segment]
    size, _ = place.head
    for number, segment in enumerate(alike if len(alike) > 1 and size else ()):
        with contextlib.suppress(OSError), segment.open() as handle:
            if _print_of(handle, 0, size) == place.head:
                return later[number:]
    return later


def _is_same(series: Series, place: Place) -> bool | None:
    """Return whether a series begins as it did when it was read; None where nothing tells."""
    size, _ = place.origin
    found = None
    for segment in series.segments:
        if not size or segment.name.segment != place.first:  # two, where a file was begun anew
            continue
        with contextlib.suppress(OSError):
            known = identity_of(segment.path.stat()) if is_packed(segment.path) else None
            if known is not None and place.compared == known:
                return True
            with segment.open() as handle:
                begun = _print_of(handle, 0, size)
                if begun == place.origin:
                    place.compared = known
                    return True
                found = False if handle.size >= size else found
    return found


def step_back(series: Series, place: Place, notes: list[str]) -> None:
    """Check where a ring says that a writer's files end, and go back there.

    Lines already read after that point will be written again, perhaps with other digits; lines
    already taken are recognised by their seq. Where the run was removed and begun again under its
    name, another one is read from its start.
    """
    same = _is_same(series, place)
    if same is False:
        name = series.segments[0].path.name
        notes.append(f"{name} was replaced; reading the new file from its start")
        place.begin_anew(series)
    overlaid = next((seg for seg in series.segments if seg.kept is not None), None)
    if overlaid is None or place.settled == (overlaid.name, overlaid.kept):
        return
    place.settled = (overlaid.name, overlaid.kept)
    first = overlaid.kept[0] if overlaid.kept else (0, 0)
    # Everything up to here is as it was read.
    end = (overlaid.name.segment, 0 if first[0] else first[1])
    if (place.segment, place.offset) <= end:
        return
    if same is None and place.first >= 0:  # it ends before what was read first: a new one
        place.begin_anew(series)
        return
    place.begin(end[0])
    place.offset = end[1]
    place.known_below = place.next_seq


def advance(
    segment: Segment, place: Place, budget: int, notes: list[str], *, final: bool
) -> tuple[bytes, bool]:
    """Read the whole lines of a file from a place on; say whether there may be more.

    Args:
        segment: The file.
        place: Moves behind them.
        budget: About how many bytes to read, 1 or more.
        notes: Receives what is wrong with the file.
        final: Nothing will be appended to it.

    Raises:
        OSError: The file cannot be read.
    """
    name = segment.path.name
    with segment.open() as handle:
        _compare(handle, place, name, notes)
        handle.seek(place.offset)
        lines, offset, rest = b"", place.offset, b""
        while True:
            wanted = max(budget, len(rest))
            block = handle.read(wanted)
            more = len(block) == wanted
            if end := block.rfind(b"\n") + 1:
                lines = rest + block[:end] if rest else block[:end]  # copied once as a rule
                offset += len(lines)
                rest = b""
            rest += block[end:]
            if len(rest) > MAX_LINE_BYTES:
                notes.append(f"{name}: skipping a line longer than {MAX_LINE_BYTES >> 20} MiB")
                offset += len(rest)
                rest = b""
            if lines or not more:
                break
        if handle.packed and not more:
            _note_damage(handle, name, notes, read=bool(lines))
        if offset != place.offset or handle.inode != place.inode:
            place.note(handle, offset, handle.inode)
    if final and rest and not more:
        notes.append(f"{name}: {len(rest)} trailing bytes without a newline were skipped")
    return lines, more


def _note_damage(handle: SegmentFile, name: str, notes: list[str], *, read: bool) -> None:
    """Say why a compressed file ends here, if it is damaged; raise it where nothing was read."""
    try:
        handle.read(1)
    except OSError as error:
        if not read:
            raise
        notes.append(f"{name}: cannot be read on: {error.strerror or error}")


def _compare(handle: SegmentFile, place: Place, name: str, notes: list[str]) -> None:
    """Go to the start of a file that is not the one that was read."""
    if not place.offset or (handle.packed and handle.size == place.offset):
        return  # nothing is appended to a compressed one: it was read to its end
    size, _ = place.head
    is_known = 0 < size <= handle.size and _print_of(handle, 0, size) == place.head
    size, _ = place.before
    if handle.inode and place.inode not in (0, handle.inode):
        notes.append(f"{name} was replaced; reading the new file from its start")
    elif handle.size < place.offset:
        notes.append(f"{name} was truncated; reading it from its start")
    elif size and _print_of(handle, place.offset - size, place.offset) != place.before:
        notes.append(f"{name} was changed; reading it from its start")
    else:
        return
    # Where it begins as before, it has lines that were taken already.
    place.known_below = place.next_seq if is_known else 0
    place.next_seq = place.known_below
    place.begin(place.segment)
    place.anew = True


def tail_of(segment: Segment, count: int, place: Place | None) -> list[bytes]:
    """Read a file's last whole lines.

    Args:
        segment: The file.
        count: How many.
        place: Goes behind them.

    Raises:
        OSError: The file cannot be read.
    """
    with segment.open() as handle:
        start = handle.size
        data = b""
        # One more newline than lines: the one before the first line, or the start of the file.
        while start and data.count(b"\n") <= count and len(data) <= MAX_LINE_BYTES:
            size = min(start, max(_BLOCK_BYTES, len(data)))
            start -= size
            handle.seek(start)
            data = handle.read(size) + data
        if place is not None:
            torn = len(data) - (data.rfind(b"\n") + 1)
            place.note(handle, handle.size - torn, handle.inode)
    lines = data.split(b"\n")[:-1]
    if start and lines:  # the first line may be incomplete
        lines = lines[1:]
    return lines[max(0, len(lines) - count) :]


def seq_of(line: bytes) -> int | None:
    """Return the number of a line, None where it has none."""
    if (match := _SEQ.match(line)) is not None:
        return int(match[1])
    try:
        record = orjson.loads(line)
    except ValueError:
        return None
    seq = record.get("seq") if isinstance(record, dict) else None
    return seq if type(seq) is int else None


def without_known(data: bytes, below: int) -> bytes:
    """Leave out the lines whose numbers are lower, and damaged ones among them."""
    kept: list[bytes] = []
    is_known = True
    for line in data.split(b"\n")[:-1]:
        if (seq := seq_of(line)) is not None:
            is_known = seq < below
        if not is_known:
            kept.append(line + b"\n")
    return b"".join(kept)
