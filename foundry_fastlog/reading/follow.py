"""Follow a run while it is written: its last lines, then each new line.

Only complete lines are returned. Each poll notices new segments, new processes, and files that were
truncated or replaced. When a process is killed, the records in its ring follow; recovery later
writes the same bytes to the same places in the files.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

from foundry_fastlog.reading.lines import MAX_LINE_BYTES, Record, parse_line
from foundry_fastlog.reading.overlay import Overlay, describe_ring
from foundry_fastlog.run.files import STREAMS, Segment, Series, StrPath, Writer

__all__ = ["Follower", "Line", "Polled"]

_BLOCK_BYTES = 1 << 16
_POLL_BYTES = 4 << 20  # per file and poll, so that one long backlog does not delay the others

#: Timestamp, series, parsed line, raw bytes without newline.
Line = tuple[str, Series, Record, bytes]


@dataclass
class Polled:
    """The result of one poll.

    Attributes:
        lines: New lines, merged by time, in writing order within each process.
        notes: Messages for people: damaged lines, truncated files.
        more: Whether more can be read at once.
        unread: How many files and rings could not be read since the follower was created.
    """

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: bool = False
    unread: int = 0


@dataclass
class _Place:
    """The position up to which a series has been read."""

    segment: int
    offset: int = 0  # after the last complete line returned
    inode: int = 0
    gone: bool = False  # the file is missing, and this was reported
    next_seq: int = 0  # of the line after the last one returned
    settled: object = None  # the end of the files according to a ring, when last checked
    known_below: int = 0  # lines with a lower seq were already returned, and will be read again


class Follower:
    """Reads the end of a run, then its new lines.

    Args:
        path: The run directory, as checked by ``files.open_run_dir``.
        streams: Which streams to read.
    """

    def __init__(self, path: StrPath, streams: Collection[str] = STREAMS) -> None:
        self.path = Path(path)
        self._overlay = Overlay(self.path)
        self._streams = frozenset(streams)
        self._places: dict[tuple[str, Writer], _Place] = {}
        self._unread: set[str] = set()

    def last(self, count: int) -> Polled:
        """Return the last lines of the run, and position the follower after them.

        Args:
            count: How many, over all streams and processes.

        Raises:
            OSError: The run directory cannot be read.
        """
        result = Polled()
        batches: list[list[Line]] = []
        for series in self._list(result):
            raws, place = self._last_lines(series, count, result)
            self._places[series.stream, series.writer] = place
            batches.append(_parse(series, raws, place, result.notes))
        merged = list(heapq.merge(*batches, key=itemgetter(0)))
        result.lines = merged[max(0, len(merged) - count) :]
        result.unread = len(self._unread)
        return result

    def poll(self) -> Polled:
        """Return the lines written since the last call.

        Raises:
            OSError: The run directory is gone or cannot be read.
        """
        result = Polled()
        batches: list[list[Line]] = []
        found = self._list(result)
        for key in self._places.keys() - {(series.stream, series.writer) for series in found}:
            result.notes.append(f"the {key[0]} files of {key[1].display} were removed")
            del self._places[key]  # if they reappear, they are new
        for series in found:
            key = (series.stream, series.writer)
            place = self._places.get(key)
            if place is None:  # a new process, or the first record of a stream
                place = self._places[key] = _Place(series.segments[0].name.segment)
            _step_back(series, place)
            raws = self._read(series, place, result)
            batches.append(_parse(series, raws, place, result.notes))
        result.lines = list(heapq.merge(*batches, key=itemgetter(0)))
        result.unread = len(self._unread)
        return result

    def _list(self, result: Polled) -> list[Series]:
        found = self._overlay.list_series()
        for ring in self._overlay.rings:
            if not ring.sound:
                self._note_unread(ring.ring, describe_ring(ring), result)
        for name, reason in self._overlay.unread:
            self._note_unread(name, f"is not read: {reason}", result)
        return [series for series in found if series.stream in self._streams]

    def _note_unread(self, what: str, reason: str, result: Polled) -> None:
        """Report once what cannot be read."""
        if what not in self._unread:
            self._unread.add(what)
            result.notes.append(f"{what}: {reason}")

    def _last_lines(self, series: Series, count: int, result: Polled) -> tuple[list[bytes], _Place]:
        """Read the last complete lines of a series backwards, and the position after them."""
        newest = series.segments[-1]
        place = _Place(newest.name.segment)
        raws: list[bytes] = []
        for segment in reversed(series.segments):
            try:
                lines, end, inode = _tail_of(segment, count - len(raws))
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                self._note_unread(segment.path.name, _refusal(error), result)
                continue
            if segment is newest:
                place.offset, place.inode = end, inode
            raws[:0] = lines
            if len(raws) >= count:
                break
        return raws, place

    def _read(self, series: Series, place: _Place, result: Polled) -> list[bytes]:
        """Read the complete lines after a position, across segments, up to a limit."""
        raws: list[bytes] = []
        budget = _POLL_BYTES
        later = [segment for segment in series.segments if segment.name.segment >= place.segment]
        if not later or later[0].name.segment > place.segment:
            self._missing(series, place, result)
        for position, segment in enumerate(later):
            if segment.name.segment > place.segment:
                place.segment, place.offset, place.inode = segment.name.segment, 0, 0
            place.gone = False
            # A later segment existed before this read, so this one is complete.
            final = position + 1 < len(later)
            try:
                budget -= _advance(segment, place, budget, raws, result.notes, final=final)
            except FileNotFoundError:  # removed since it was listed; the next poll reports it
                break
            except OSError as error:  # retried at the next poll
                self._note_unread(segment.path.name, _refusal(error), result)
                break
            if budget <= 0:
                result.more = True
                break
        return raws

    @staticmethod
    def _missing(series: Series, place: _Place, result: Polled) -> None:
        if not place.gone:
            name = series.segments[0].path.name
            result.notes.append(f"segment {place.segment} of {name} was removed")
            place.gone = True


def _step_back(series: Series, place: _Place) -> None:
    """Check where a ring says that a writer's files end, and go back there.

    Lines already read after that point will be written again, perhaps with other digits; lines
    already returned are recognised by their seq.
    """
    overlaid = next((seg for seg in series.segments if seg.kept is not None), None)
    if overlaid is None or place.settled == (overlaid.name, overlaid.kept):
        return
    place.settled = (overlaid.name, overlaid.kept)
    first = overlaid.kept[0] if overlaid.kept else (0, 0)
    # Everything up to here is as it was read.
    end = (overlaid.name.segment, 0 if first[0] else first[1])
    if (place.segment, place.offset) > end:
        place.segment, place.offset = end
        place.inode = 0
        place.known_below = place.next_seq


def _advance(
    segment: Segment,
    place: _Place,
    budget: int,
    raws: list[bytes],
    notes: list[str],
    *,
    final: bool,
) -> int:
    """Read one file from a position on. Returns the number of bytes in the new lines."""
    path = segment.path
    taken = 0
    with segment.open() as handle:
        if handle.inode and place.inode not in (0, handle.inode):
            notes.append(f"{path.name} was replaced; reading the new file from its start")
            place.offset = place.known_below = 0
        elif handle.size < place.offset:
            notes.append(f"{path.name} was truncated; reading it from its start")
            place.offset = place.known_below = 0
        place.inode = handle.inode
        handle.seek(place.offset)
        rest = b""
        while taken < budget:
            block = handle.read(max(_BLOCK_BYTES, len(rest)))
            if not block:
                break
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            raws += lines
            size = sum(map(len, lines)) + len(lines)
            place.offset += size
            taken += size
            if len(rest) > MAX_LINE_BYTES:
                notes.append(f"{path.name}: skipping a line longer than {MAX_LINE_BYTES >> 20} MiB")
                place.offset += len(rest)
                taken += len(rest)
                rest = b""
    if final and rest and taken < budget:
        notes.append(f"{path.name}: {len(rest)} trailing bytes without a newline were skipped")
    return taken


def _refusal(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _tail_of(segment: Segment, count: int) -> tuple[list[bytes], int, int]:
    """Read a file's last complete lines; also return the offset after them and the inode."""
    with segment.open() as handle:
        start = handle.size
        data = b""
        # One more newline than lines: the one before the first line, or the start of the file.
        while start and data.count(b"\n") <= count and len(data) <= MAX_LINE_BYTES:
            size = min(start, max(_BLOCK_BYTES, len(data)))
            start -= size
            handle.seek(start)
            data = handle.read(size) + data
    torn = len(data) - (data.rfind(b"\n") + 1)
    lines = data.split(b"\n")[:-1]
    if start and lines:  # the first line may be incomplete
        lines = lines[1:]
    return lines[max(0, len(lines) - count) :], handle.size - torn, handle.inode


def _parse(series: Series, raws: list[bytes], place: _Place, notes: list[str]) -> list[Line]:
    lines: list[Line] = []
    for raw in raws:
        record = parse_line(series.stream, raw)
        if isinstance(record, str):
            notes.append(f"{series.stream} of {series.writer.display}: skipped a {record}")
        elif record["seq"] >= place.known_below:
            lines.append((record["timestamp"], series, record, raw))
            place.next_seq = record["seq"] + 1
    return lines
