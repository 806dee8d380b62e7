"""Read a run while it is written: at each poll what is new, and only that.

    >>> from foundry_fastlog import Cursor          # doctest: +SKIP
    >>> cursor = Cursor("runs/exp0")
    >>> polled = cursor.poll()
    >>> polled.columns["metrics"].to_polars(), polled.lines[-1]
    >>> saved = cursor.position               # JSON: Cursor("runs/exp0", position=saved) goes on

Only whole lines are given. Each poll notices new segments, new processes, and files that were
truncated or replaced. When a process is killed, the records in its ring follow; recovery later
writes the same bytes to the same places in the files, and nothing comes twice.
"""

from __future__ import annotations

import errno
import heapq
from collections.abc import Collection, Mapping
from dataclasses import replace
from operator import itemgetter
from typing import Any, Literal

from foundry_fastlog.base.arguments import whole_number
from foundry_fastlog.reading.counting import known_streams, number_starts
from foundry_fastlog.reading.lines import find_rewinds
from foundry_fastlog.reading.overlay import Overlay, describe_ring
from foundry_fastlog.reading.places import (
    Place,
    advance,
    go_on,
    seq_of,
    step_back,
    tail_of,
    without_known,
)
from foundry_fastlog.reading.polled import Line, Polled
from foundry_fastlog.reading.watch import Watch
from foundry_fastlog.run.files import (
    STREAMS,
    Segment,
    Series,
    StrPath,
    Writer,
    open_run_dir,
)
from foundry_fastlog.run.packed import is_packed
from foundry_fastlog.run.start_entries import list_entries

__all__ = ["Cursor", "Line", "Polled", "process_name"]

_FORMAT = 1
_POLL_BYTES = 4 << 20
_MOST_BYTES = 256 << 20  # at a time, of each stream of each process

_Key = tuple[str, Writer]


class Cursor:
    """A place in a run that moves on with each poll. For one thread at a time.

    It gives everything that was recorded, whatever later starts and rewinds say; each row has the
    number of its start, and ``Polled`` says when something came that makes earlier rows count no
    longer.

    Args:
        path: The directory passed to ``Recorder``.
        streams: Which streams to read, or which one.
        position: What `position` said earlier, in this process or another one: what was given up to
            then is not given again. By default the run is read from its beginning.
        starts: ``"all"``, or the number of the one start to follow, which may be yet to come. What
            counts (``"latest"``) nobody can say of what is new: a later start may take it over.

    Attributes:
        path: The run directory.

    Raises:
        RunNotFoundError: The path is not a run. The message says what to do.
        TypeError: ``starts`` is neither a str nor an int.
        ValueError: An unknown stream, a position that is none, or ``starts="latest"``.
    """

    def __init__(
        self,
        path: StrPath,
        streams: Collection[str] = STREAMS,
        *,
        position: Mapping[str, Any] | None = None,
        starts: int | Literal["all"] = "all",
    ) -> None:
        self.path = open_run_dir(path)
        self._streams = known_streams(streams)
        self._only = None if starts == "all" else _start_of(starts)
        self._overlay = Overlay(self.path)
        self._watch = Watch(self.path, self._overlay)
        self._places: dict[_Key, Place] = {}
        self._unread: set[str] = set()
        self._numbers: dict[Writer, int] = {}
        self._starts: set[int] = set()
        self._refused = False
        if position is not None:
            self._go_to(position)

    @property
    def position(self) -> dict[str, Any]:
        """Where it is: values that JSON can have, a few hundred bytes per stream and process.

        Save it when what was polled is safe elsewhere: who is killed before polls the same again.
        """
        places = [place.to_json(*key) for key, place in sorted(self._places.items())]
        starts = [[w.label, w.stamp, number] for w, number in sorted(self._numbers.items())]
        return {"format": _FORMAT, "places": places, "starts": starts}

    def reached(self, stream: str) -> dict[str, int]:
        """Return how far each process of a stream was read: the ``seq`` behind its last line.

        Args:
            stream: Its name.

        Returns:
            By process, named as `process_name` does.
        """
        return {
            process_name(self._numbers[writer], writer.label): place.next_seq
            for (of, writer), place in self._places.items()
            if of == stream and writer in self._numbers
        }

    def _go_to(self, position: Mapping[str, Any]) -> None:
        try:
            if position["format"] != _FORMAT:
                raise KeyError(position["format"])  # noqa: TRY301 - as one that lacks it
            for kept in position["places"]:
                stream, writer, place = Place.from_json(kept)
                if stream in self._streams:
                    self._places[stream, writer] = place
            for label, stamp, number in position["starts"]:
                self._numbers[Writer.from_label(label, stamp)] = int(number)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"position must be what Cursor.position returned: {type(error).__name__}: {error}"
            ) from error
        self._starts = set(self._numbers.values())

    def last(self, count: int) -> Polled:
        """Return the last lines of the run, and go behind them.

        Args:
            count: How many, over all streams and processes; 0 or more.

        Raises:
            OSError: The run directory cannot be read.
            TypeError: `count` is not an int.
            ValueError: `count` is negative.
        """
        count = whole_number("count", count)
        if count < 0:
            raise ValueError(f"count must be 0 or more, got {count}")
        result = Polled()
        batches: list[list[Line]] = []
        found = self._list(result)
        for series in found:
            raws = self._last_lines(series, count, result)
            part = Polled([_holding(series, {series.segments[-1]: _joined(raws)})])
            batches.append(part.lines)
            result.notes += part.notes
        merged = list(heapq.merge(*batches, key=itemgetter(0)))
        kept: dict[_Key, list[bytes]] = {}
        for _, series, _, raw in merged[max(0, len(merged) - count) :]:
            kept.setdefault((series.stream, series.writer), []).append(raw)
        result.series = [
            _holding(series, {series.segments[-1]: _joined(kept[series.stream, series.writer])})
            for series in found
            if (series.stream, series.writer) in kept
        ]
        result.unread = len(self._unread)
        return result

    def poll(self, limit: int = _POLL_BYTES) -> Polled:
        """Return what was written since the last call.

        A look at a run in which nothing has changed for some seconds costs a few system calls for
        each process; else its directory is listed, some 30 us for each file.

        Args:
            limit: About how many bytes to read of each stream of each process, so that a backlog
                takes little memory; ``Polled.more`` says that there is more.

        Raises:
            OSError: The run directory is gone or cannot be read.
            TypeError: `limit` is not an int.
            ValueError: `limit` is less than 1.
        """
        limit = min(whole_number("limit", limit), _MOST_BYTES)
        if limit < 1:
            raise ValueError(f"limit must be 1 byte or more, got {limit}")
        result = Polled(unread=len(self._unread), numbers=self._numbers)
        if self._watch.is_unchanged():
            return result
        found = self._list(result)
        # Lines out of a ring may have been given that are in no file yet.
        at_work = self._overlay.labels_at_work()
        self._refused = result.refused = bool(at_work)
        found = [series for series in found if series.writer.label not in at_work]
        followed = {key for key in self._places if self._is_followed(key[1])}
        known = {key for key in followed if key[1].label not in at_work}
        for key in known - {(series.stream, series.writer) for series in found}:
            result.notes.append(f"the {key[0]} files of {key[1].display} were removed")
            result.anew = True
            del self._places[key]  # if they reappear, they are new
        for series in found:
            place = self._places.get((series.stream, series.writer))
            if place is None:  # a new process, or the first record of a stream
                place = Place(series.segments[0].name.segment)
                self._places[series.stream, series.writer] = place
            step_back(series, place, result.notes)
            parts = self._read(series, place, limit, result)
            result.anew |= place.anew
            place.anew = False
            if parts:
                result.series.append(_holding(series, parts))
                new = result.series[-1]
                result.rewinds += [(new, seq, step) for seq, step, _ in find_rewinds(new)]
        result.unread = len(self._unread)
        if result.more or self._refused:
            self._watch.forget()
        else:
            self._watch.remember(found)
        return result

    def _list(self, result: Polled) -> list[Series]:
        found = self._overlay.list_series()
        for ring in self._overlay.rings:
            if not ring.sound:
                self._note_unread(ring.ring, describe_ring(ring), result)
        for name, reason in self._overlay.unread:
            self._note_unread(name, f"is not read: {reason}", result)
        self._number({series.writer for series in found}, result)
        return [
            series
            for series in found
            if series.stream in self._streams and self._is_followed(series.writer)
        ]

    def _is_followed(self, writer: Writer) -> bool:
        return self._only is None or self._numbers.get(writer) == self._only

    def _number(self, writers: set[Writer], result: Polled) -> None:
        """Say which start each writer is of."""
        entries = [number for number, _ in list_entries(self.path)]
        numbers = number_starts(writers, entries)
        result.anew = any(
            numbers.get(writer, number) != number for writer, number in self._numbers.items()
        )
        result.starts = sorted(set(numbers.values()) - self._starts)
        self._starts.update(numbers.values())
        self._numbers = result.numbers = numbers

    def _note_unread(self, what: str, reason: str, result: Polled) -> None:
        """Report once what cannot be read."""
        if what not in self._unread:
            self._unread.add(what)
            result.notes.append(f"{what}: {reason}")

    def _refuse(self, segment: Segment, error: OSError, result: Polled) -> None:
        """Report a file that cannot be read, and try again at the next poll."""
        self._refused = True
        reason = f"cannot be read: {error.strerror or error}"
        self._note_unread(segment.path.name, reason, result)

    def _last_lines(self, series: Series, count: int, result: Polled) -> list[bytes]:
        """Read the last whole lines of a series backwards, and go behind them."""
        newest = series.segments[-1]
        place = self._places[series.stream, series.writer] = Place(newest.name.segment)
        raws: list[bytes] = []
        for segment in reversed(series.segments):
            try:
                # One at least: its number is that of the place.
                lines = tail_of(
                    segment, max(1, count - len(raws)), place if segment is newest else None
                )
            except FileNotFoundError:  # removed since it was listed
                continue
            except OSError as error:
                self._refuse(segment, error, result)
                continue
            raws[:0] = lines
            if len(raws) >= max(1, count):
                break
        place.next_seq = _next_seq(raws)
        return raws[max(0, len(raws) - count) :]

    def _read(
        self, series: Series, place: Place, budget: int, result: Polled
    ) -> dict[Segment, bytes]:
        """Read the whole lines after a place, across segments, up to a limit."""
        parts: dict[Segment, bytes] = {}
        later = go_on(series.segments, place)
        if not later or later[0].name.segment > place.segment:
            self._missing(series, place, result)
        for number, segment in enumerate(later):
            # A second file of this number: the place stays in the first until there is a line.
            left = replace(place) if number and segment.name.segment == place.segment else None
            if number or segment.name.segment > place.segment:
                place.begin(segment.name.segment)
            place.gone = False
            # A later segment existed before this read, so this one is complete.
            final = number + 1 < len(later)
            try:
                data, more = advance(segment, place, budget, result.notes, final=final)
            except FileNotFoundError:  # removed since it was listed; the next poll reports it
                self._refused = result.refused = True
                break
            except OSError as error:
                self._refuse(segment, error, result)
                if final and error.errno == errno.EIO and is_packed(segment.path):
                    continue  # it is damaged, and stays so
                result.refused = True
                break
            if left is not None and not place.offset:
                vars(place).update(vars(left))
            budget -= len(data)
            result.more |= more or budget <= 0
            if place.known_below:
                data = without_known(data, place.known_below)
            if data:
                parts[segment] = data
                place.next_seq = max(place.next_seq, _next_seq(_last_two(data)))
            if more or budget <= 0:
                break
        return parts

    @staticmethod
    def _missing(series: Series, place: Place, result: Polled) -> None:
        if not place.gone:
            name = series.segments[0].path.name
            result.notes.append(f"segment {place.segment} of {name} was removed")
            result.anew = place.gone = True


def process_name(start: int, label: str) -> str:
    """Name a process of a run, each of which numbers its own lines."""
    return f"{label}@{start}"


def _start_of(starts: object) -> int:
    if isinstance(starts, str):
        raise ValueError(  # noqa: TRY004 - a text may be right
            f"starts of a cursor must be 'all' or the number of a start, got {starts!r}: what "
            "counts of new lines a later start may change"
        )
    return whole_number("starts", starts)


def _next_seq(lines: list[bytes]) -> int:
    """Return the number after that of the last line that has one."""
    return next((seq + 1 for line in reversed(lines) if (seq := seq_of(line)) is not None), 0)


def _last_two(data: bytes) -> list[bytes]:
    """Return the last lines, two at most."""
    before = max(0, data.rfind(b"\n", 0, -1))
    return data[data.rfind(b"\n", 0, before) + 1 :].split(b"\n")[:-1]


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _holding(series: Series, parts: Mapping[Segment, bytes]) -> Series:
    """Return a series that has these bytes alone, in memory."""
    segments = [
        replace(segment, size=len(data), kept=(), pending=data) for segment, data in parts.items()
    ]
    return replace(series, segments=tuple(segments))
