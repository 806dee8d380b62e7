"""Read and check the lines of one series of segments.

The layer below ``reading``: bytes to records, in bounded memory. Damaged, torn, missing and
duplicate lines are counted and reported, never raised. The line format is specified in
``docs/format.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any

import orjson

from foundry_fastlog.run.checks import (
    Problems,
    SeriesCheck,
    note_gaps,
    note_missing_files,
    note_seq,
    note_tail,
    note_unreadable,
)
from foundry_fastlog.run.files import Segment, Series
from foundry_fastlog.run.packed import is_packed
from foundry_fastlog.run.segment_file import SegmentFile

__all__ = [
    "MAX_LINE_BYTES",
    "Entry",
    "Record",
    "check_record",
    "in_order",
    "parse_line",
    "read_series",
    "restore_nonfinite",
]

Record = dict[str, Any]

#: One line of a merged run: timestamp, series, parsed line, raw bytes without newline.
Entry = tuple[str, Series, Record, bytes]

#: A longer line is damage: no record is that large, and a reader must not exhaust memory.
MAX_LINE_BYTES = 64 << 20

_NONFINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
_SEARCH_BYTES = 1 << 20
_OVERSIZED = b"\n"  # stands for a line longer than MAX_LINE_BYTES; no line contains a newline
_FIRST_SEQ = re.compile(rb'\{"timestamp":"[^"]*","seq":([0-9]{1,20}),')
_HEAD_BYTES = 128
_begin_of = itemgetter(0)
_MAX_DEPTH = 64  # twice the depth that the recorder writes
_INT64 = 1 << 63
_NUMBER_OR_NONE = (int, float, type(None))
_TEXT_OR_NONE = (str, type(None))
_NAMES = ("nonfinite", "missing")  # fields that say why other values are null


def restore_nonfinite(record: Record) -> Record:
    """Restore NaN and infinities where a line has null for them, in place.

    Args:
        record: A parsed line.

    Returns:
        The same record. Its ``nonfinite`` field is kept.
    """
    names = record.get("nonfinite")
    if names:
        for path, text in names.items():
            value = _NONFINITE.get(text)
            if path == "epoch" and record.get("epoch", 0) is None:
                record["epoch"] = value
                continue
            for part in ("metrics", "summary", "context", "system"):
                _restore(record.get(part), path, value)
    return record


def _restore(holder: object, path: str, value: float | None) -> None:
    """Set a value where a dotted path of keys and list indices leads to null.

    Keys may themselves contain dots: at each level the longest matching key is used.
    """
    for _ in range(_MAX_DEPTH):
        if isinstance(holder, dict):
            if path in holder:
                if holder[path] is None:
                    holder[path] = value
                return
            at = path.rfind(".")
            while at >= 0 and path[:at] not in holder:
                at = path.rfind(".", 0, at)
            holder, path = holder.get(path[:at]) if at >= 0 else None, path[at + 1 :]
        elif isinstance(holder, list):
            index, _, path = path.partition(".")
            if not index.isdecimal() or int(index) >= len(holder):
                return
            if not path and holder[int(index)] is None:
                holder[int(index)] = value
                return
            holder = holder[int(index)]
        else:
            return


def check_record(stream: str, record: Record) -> str | None:
    """Check what readers depend on; the schema files check every detail.

    Args:
        stream: The stream of the line.
        record: The parsed line.

    Returns:
        None for a sound line, otherwise what is wrong with it.
    """
    seq = record.get("seq")
    if type(seq) is not int or not 0 <= seq < _INT64:
        return "no seq"
    if type(record.get("timestamp")) is not str:
        return "no timestamp"
    step = record.get("step")
    if step is not None and (type(step) is not int or not -_INT64 <= step < _INT64):
        return "step is not an integer"
    if type(record.get("epoch")) not in _NUMBER_OR_NONE:
        return "epoch is not a number"
    for names in _NAMES:
        if names in record and not _is_texts(record[names]):
            return f"{names} is not an object of strings"
    if "rewind" in record:
        rewind = record["rewind"]
        sound = type(rewind) is int and -_INT64 <= rewind < _INT64
        return None if sound else "rewind is not an integer"
    if "dropped" in record:
        dropped = record["dropped"]
        return None if type(dropped) is int and dropped >= 0 else "dropped is not a count"
    return _CHECKS[stream](record)


def _is_texts(names: object) -> bool:
    """Return whether it is an object of strings, or null."""
    return names is None or (
        type(names) is dict and all(type(text) is str for text in names.values())
    )


def _check_metrics(record: Record) -> str | None:
    body = record.get("metrics")
    if body is None:
        body = record.get("summary")
    return None if type(body) is dict else "no metrics object"


def _check_performance(record: Record) -> str | None:
    if type(record.get("name")) is not str:
        return "no name"
    if "device" in record or "device_duration_s" in record:
        if type(record.get("device")) not in _TEXT_OR_NONE:
            return "device is not a string"
        if type(record.get("device_duration_s")) not in _NUMBER_OR_NONE:
            return "device_duration_s is not a number"
    return None if type(record.get("duration_s")) in (float, int) else "no duration_s"


def _check_event(record: Record) -> str | None:
    if type(record.get("level")) is not str or type(record.get("message")) is not str:
        return "no level or message"
    return None if type(record.get("context", {})) is dict else "context is not an object"


def _check_system(record: Record) -> str | None:
    return None if type(record.get("system")) is dict else "no system object"


_CHECKS: dict[str, Callable[[Record], str | None]] = {
    "metrics": _check_metrics,
    "performance": _check_performance,
    "errors": _check_event,
    "log": _check_event,
    "system": _check_system,
}


def parse_line(stream: str, raw: bytes) -> Record | str:
    """Parse one line.

    Args:
        stream: The stream of the line.
        raw: Its bytes, without newline.

    Returns:
        The record, or, as text, what is wrong with the line.
    """
    try:
        record: Record = orjson.loads(raw)
        if type(record) is not dict:
            return "damaged line: JSON, but not an object"
        wrong = check_record(stream, record)
    except ValueError as error:
        if raw == _OVERSIZED:
            return f"damaged line: longer than {MAX_LINE_BYTES >> 20} MiB"
        if raw.strip(b"\0"):
            return f"damaged line: not JSON ({error})"
        # A block that never reached the disk reads as NUL bytes.
        return f"damaged line: {len(raw)} NUL bytes" if raw else "damaged line: empty"
    return record if wrong is None else f"damaged line: {wrong}"


class _Tail:
    """Bytes after the last newline of a file, left over by ``_batches``."""

    size = 0


def _batches(segment: Segment, block: int, tail: _Tail) -> Iterator[list[bytes]]:
    """Yield the complete lines of a file in lists, without their newlines.

    The file is opened once per block, so that a merge over thousands of writers does not need a
    file handle for each. A compressed one does the same itself.
    """
    if not segment.size and not is_packed(segment.path):  # just created: lines are for a later read
        return
    offset = 0
    packed: SegmentFile | None = None
    parts: list[bytes] = []
    held = 0
    oversized = False
    while True:
        with packed or segment.open() as handle:
            handle.seek(offset)
            data = handle.read(block)
        packed = handle if handle.packed else None  # it reads on, and holds no file meanwhile
        if not data:
            break
        offset += len(data)
        if b"\n" in data:
            lines = (b"".join(parts) + data).split(b"\n")
            if oversized:
                lines[0] = _OVERSIZED
            parts = [lines.pop()]
            held = len(parts[0])
            oversized = False
            yield lines
        else:
            held += len(data)
            parts.append(data)
            if held > MAX_LINE_BYTES:
                parts.clear()
                oversized = True
    tail.size = held


def read_series(
    series: Series,
    check: SeriesCheck,
    problems: Problems,
    *,
    block: int = 1 << 20,
    keep: Callable[[Record], Record | None] | None = None,
) -> Iterator[tuple[str, Series, Record, bytes]]:
    """Yield the sound lines of a series in file order.

    Args:
        series: The stream and writer to read.
        check: Filled in while reading; complete at the end.
        problems: Receives problems, with file and line.
        block: Bytes to read at a time.
        keep: Returns the part of a record to read, after it was checked; None to omit it.

    Yields:
        Timestamp, series, parsed line, and the line's bytes without newline. Drop markers are
        included.
    """
    note_missing_files(series, check, problems)
    try:
        for segment in in_order(series.segments):
            yield from _read_segment(segment, series, check, problems, block, keep)
    finally:
        note_gaps(check, problems)


def find_rewinds(series: Series) -> list[tuple[int, int, float | None]]:
    """Return ``seq``, step and epoch of each line that says that the writer went back."""
    found = []
    for segment in in_order(series.segments):
        try:
            for raw in _lines_with(segment, b'"rewind"'):
                record = parse_line(series.stream, raw)
                if not isinstance(record, str) and "rewind" in record:
                    found.append((record["seq"], record["rewind"], record.get("epoch")))
        except OSError:  # noqa: PERF203 - told when it is read
            continue
    return found


def _lines_with(segment: Segment, text: bytes) -> Iterator[bytes]:
    """Yield the lines that have a text; it is looked for in whole blocks."""
    begun: list[bytes] = []  # of a line that goes on
    held = 0
    with segment.open() as handle:
        handle.seek(0)
        while data := handle.read(_SEARCH_BYTES):
            if end := data.rfind(b"\n") + 1:
                block = b"".join((*begun, data[:end]))
                if text in block:
                    yield from (line for line in block.split(b"\n") if text in line)
                begun, held, data = [], 0, data[end:]
            begun.append(data)
            held += len(data)
            if held > MAX_LINE_BYTES:
                begun, held = [], 0


def in_order(segments: tuple[Segment, ...]) -> list[Segment]:
    """Order segments by the seq of their first lines.

    This is the order of their names, except after a backup was restored over a run: recovery then
    adds the missing lines after both the older and the newer ones.
    """
    begins: list[int] = []
    for segment in segments:
        before = begins[-1] if begins else 0
        begin = _first_seq(segment) if len(segments) > 1 else None
        begins.append(before if begin is None else begin)
    return [segment for _, segment in sorted(zip(begins, segments, strict=True), key=_begin_of)]


def _first_seq(segment: Segment) -> int | None:
    """Return the seq of a file's first line; None if it cannot be read."""
    try:
        with segment.open() as handle:
            handle.seek(0)
            match = _FIRST_SEQ.match(handle.read(_HEAD_BYTES))
    except OSError:  # reported when the file is read
        return None
    return None if match is None else int(match[1])


def _read_segment(
    segment: Segment,
    series: Series,
    check: SeriesCheck,
    problems: Problems,
    block: int,
    keep: Callable[[Record], Record | None] | None,
) -> Iterator[tuple[str, Series, Record, bytes]]:
    file = segment.path.name
    stream = series.stream
    number = 0
    tail = _Tail()
    try:
        for batch in _batches(segment, block, tail):
            for raw in batch:
                number += 1
                parsed = parse_line(stream, raw)
                if isinstance(parsed, str):
                    check.damaged += 1
                    problems.add("damaged", file, number, parsed)
                    continue
                record = parsed
                seq = record["seq"]
                if seq == check.next_seq:
                    check.next_seq = seq + 1
                else:
                    note_seq(seq, file, number, check, problems)
                check.lines += 1
                if "dropped" in record and "rewind" not in record:
                    check.dropped += record["dropped"]
                elif keep is not None:
                    kept = keep(record)
                    if kept is None:
                        check.superseded += 1
                        continue
                    if kept is not record:
                        record, raw = kept, orjson.dumps(kept)
                yield record["timestamp"], series, record, raw
    except OSError as error:
        note_unreadable(file, error, check, problems)
    if tail.size:
        note_tail(segment, number + 1, tail.size, check, problems)
