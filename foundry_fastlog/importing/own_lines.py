"""Reads lines of this package in a file of JSON lines, as `export` writes them: all streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing.session import Line, Session
from foundry_fastlog.run.names import Writer
from foundry_fastlog.run.streams import STREAMS

__all__ = ["is_own", "read_own_lines"]

#: What `export` adds to lines, and what is numbered anew.
_ADDED = ("timestamp", "seq", "stream", "rank", "start", "label", "stamp", "run")
_FIELDS = {
    "metrics": "metrics",
    "summary": "metrics",
    "rewind": "metrics",
    "system": "system",
    "duration_s": "performance",
    "error_type": "errors",
    "message": "log",
}
_Objects = Callable[[], Iterator[tuple[int, dict[str, Any]]]]


def is_own(values: dict[str, Any]) -> bool:
    """Return whether a line is one of this package's streams."""
    return (
        type(values.get("seq")) is int
        and isinstance(values.get("timestamp"), str)
        and ("dropped" in values or _stream_of(values) is not None)
    )


def read_own_lines(path: Path, name: str, objects: _Objects) -> list[Session]:
    """Read lines into a session for each start of each run that they name.

    Args:
        path: The file.
        name: What a run is called that has no name there.
        objects: Reads the file.
    """
    found: dict[tuple[str, int], Session] = {}
    for _, values in objects():
        place = _place_of(values)
        if place not in found:
            run = place[0] or name
            session = Session(name=run, key=f"{path}/{place[0]}", lines=iter(()), directory=run)
            session.lines = _lines(objects, place, session)
            found[place] = session
    return [found[place] for place in sorted(found)]


def _stream_of(values: dict[str, Any]) -> str | None:
    if values.get("stream") in STREAMS:
        return str(values["stream"])
    return next((stream for field, stream in _FIELDS.items() if field in values), None)


def _place_of(values: dict[str, Any]) -> tuple[str, int]:
    """Return a line's run and start."""
    start = values.get("start")
    return str(values.get("run") or ""), start if type(start) is int else 0


def _lines(objects: _Objects, place: tuple[str, int], session: Session) -> Iterator[Line]:
    for _, values in objects():
        if _place_of(values) != place:
            continue
        stream = _stream_of(values)
        if not is_own(values) or "dropped" in values or stream is None:
            session.left_out["line"] += 1
            continue
        fields = {key: value for key, value in values.items() if key not in _ADDED}
        yield Line(stream, moment_of(values["timestamp"]), fields, _label_of(values))


def _label_of(values: dict[str, Any]) -> str:
    try:
        return Writer.from_label(str(values.get("label") or "")).label
    except ValueError:
        return ""
