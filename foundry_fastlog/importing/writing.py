"""Writes sessions as the starts of a run, as docs/format.md says, with their own times."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from foundry_fastlog._version import __version__
from foundry_fastlog.base.json_text import readable, safe_str
from foundry_fastlog.importing.session import Line, Session, SourceError
from foundry_fastlog.run.info import FORMAT, RUN_FILE, render
from foundry_fastlog.run.names import StreamName, Writer, format_name
from foundry_fastlog.run.start_entries import STARTS_DIR

__all__ = ["write_run"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH).total_seconds() - 1
_MOST = 1 << 63
_VALUES = {"metrics": "metrics", "system": "system"}


def write_run(directory: Path, sessions: Iterable[Session]) -> dict[str, int]:
    """Write a run, whole or not at all.

    Args:
        directory: It must not be there yet.
        sessions: Its starts, in order.

    Returns:
        How many lines each stream has.

    Raises:
        SourceError: The directory is there, or a source cannot be read.
        OSError: It cannot be written.
    """
    if directory.exists():
        raise SourceError(f"{directory} is there already: remove it, or import elsewhere")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = directory.with_name(f".{directory.name[:100]}.{os.urandom(4).hex()}.import")
    counts: dict[str, int] = {}
    try:
        (temporary / STARTS_DIR).mkdir(parents=True)
        starts = [_write(temporary, number, one, counts) for number, one in enumerate(sessions)]
        _write_facts(temporary, directory.name, starts)
        temporary.rename(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return counts


_Start = tuple[Session, str, str]  # with its first and its last time


def _write(directory: Path, number: int, session: Session, counts: dict[str, int]) -> _Start:
    """Write a start: its lines, then its entry and its end."""
    writer = Writer(attempt=number)
    seq: dict[tuple[str, str], int] = {}
    first = last = ""
    with ExitStack() as opened:
        files: dict[tuple[str, str], BinaryIO] = {}
        for line in session.lines:
            moment = _text_of(line.time)
            first, last = min(first or moment, moment), max(last, moment)
            key = line.stream, line.label
            if key not in files:
                whose = Writer.from_label(line.label)._replace(attempt=number)
                path = directory / format_name(StreamName(line.stream, whose))
                files[key] = opened.enter_context(path.open("wb", buffering=1 << 20))
            place = seq.get(key, 0)
            files[key].write(_line(line, moment, place))
            seq[key] = place + 1
    for (stream, _), count in seq.items():
        counts[stream] = counts.get(stream, 0) + count
    started = (first or _text_of(0)) if session.started is None else _text_of(session.started)
    entry = {
        "format": FORMAT,
        "start": number,
        "started": started,
        "stamp": _stamp_of(started),
        "launch": None,
        "rank": None,
        "world_size": None,
        "pid": 1,
        "host": session.host,
        "boot": "",
        "argv": session.argv,
        "config": session.config,
        "git_hash": session.git_hash,
        "alive": [],
        "foundry_fastlog": __version__,
    }
    place_of = directory / STARTS_DIR / f"{number:06d}.json"
    place_of.write_bytes(render(entry))
    end: dict[str, Any] = {"format": FORMAT, "start": number, "label": writer.label}
    end |= {"ended": None if session.end == "killed" else last or started, "how": session.end}
    if session.end == "exception":
        end |= {"error_type": session.error[0], "error_message": session.error[1]}
    place_of.with_suffix(".end.json").write_bytes(render(end))
    return session, started, last


def _write_facts(directory: Path, name: str, starts: list[_Start]) -> None:
    """Write run.json."""
    attempts = [
        {
            "attempt": number,
            "label": Writer(attempt=number).label,
            "rank": 0,
            "pid": 1,
            "host": session.host,
            "started": started,
            "ended": last or started,
            "python": "",
            "platform": "",
            "foundry_fastlog": __version__,
        }
        for number, (session, started, last) in enumerate(starts)
    ]
    session = starts[-1][0]
    facts = {
        "format": FORMAT,
        "name": session.name or name,
        "created": starts[0][1],
        "config": session.config,
        "git_hash": session.git_hash,
        "host": session.host,
        "world_size": None,
        "attempts": attempts,
    }
    (directory / RUN_FILE).write_bytes(render(facts))


def _line(line: Line, moment: str, seq: int) -> bytes:
    """Return a line as it is in a file."""
    fields = dict(line.fields)
    odd: dict[str, str] = {}
    values = fields.get(_VALUES.get(line.stream, ""))
    if values is not None:
        fields[line.stream] = _plain(values, odd)
    found = {"timestamp": moment, "seq": seq, **fields}
    if odd:
        found["nonfinite"] = odd
    try:
        return orjson.dumps(found, default=safe_str) + b"\n"
    except TypeError:  # a lone surrogate, an int beyond 64 bits
        return orjson.dumps(readable(found)) + b"\n"


def _plain(values: Mapping[str, Any], odd: dict[str, str]) -> dict[str, Any]:
    """Return values as a line has them; `odd` receives what is not finite."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            odd[name] = str(value)
            value = None
        elif type(value) is int and not -_MOST <= value < _MOST:
            value = float(value) if abs(value) < 1 << 1000 else str(value)
        found[name] = value
    return found


def _text_of(seconds: float) -> str:
    """Return a time as lines have it."""
    known = min(max(0.0, seconds), _LAST) if math.isfinite(seconds) else 0.0
    moment = _EPOCH + timedelta(microseconds=round(known * 1e6))
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def _stamp_of(started: str) -> str:
    return started[:19].replace("T", "_").replace(":", "-")
