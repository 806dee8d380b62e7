"""Reads files of JSON lines as any program writes them: an object a line, with values by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing.session import Line, Session, SourceError, flattened

__all__ = ["find_step", "read_json_lines"]

_STEPS = ("step", "_step", "global_step", "iteration", "iter", "it", "steps")
_TIMES = ("timestamp", "_timestamp", "time", "wall_time", "ts", "datetime", "date")
_EPOCH = "epoch"
_LOOKED_AT = 100  # lines, for the name of the step
_TICK_S = 1e-3  # between lines without a time
_MILLISECONDS = 1e11  # a time that is larger counts these


def read_json_lines(path: Path, step: str | None = None, time: str | None = None) -> Session:
    """Read a file.

    Args:
        path: The file.
        step: The member that is the step. Default: the first of ``step``, ``_step``,
            ``global_step``, ``iteration``, ``iter`` that lines have; without one lines are counted.
        time: The member that is the time: seconds or milliseconds since 1970, or ISO 8601. Default:
            the first of ``timestamp``, ``_timestamp``, ``time``, ``wall_time`` that is one. A line
            without one is a millisecond later than the last; where none has one, they end when
            the file was written.

    Raises:
        SourceError: No line is a JSON object.
    """
    found = Session(name=path.stem, key=str(path), lines=iter(()), directory=path.stem)
    known = find_step(path) if step is None else step
    found.lines = _lines(path, known, time, found)
    return found


def find_step(path: Path) -> str | None:
    """Return the member that is the step in the first lines.

    Raises:
        SourceError: None of these is a JSON object.
    """
    names: set[str] = set()
    count = 0
    for _, values in _objects(path):
        names |= {name for name, value in values.items() if _is_whole(value)}
        count += 1
        if count == _LOOKED_AT:
            break
    if not count:
        raise SourceError(f"{path} has no line that is a JSON object")
    return next((name for name in _STEPS if name in names), None)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of each line that is one."""
    with path.open("rb") as file:
        for number, raw in enumerate(file):
            try:
                found = json.loads(raw)  # takes NaN and Infinity, as Python writes them
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                yield number, found


def _lines(path: Path, step: str | None, time: str | None, session: Session) -> Iterator[Line]:
    last = path.stat().st_mtime - _TICK_S * (_count(path) + 1)  # none is later than the file
    count = -1
    for number, values in _objects(path):
        session.left_out["line"] += number - count - 1
        count = number
        moment = _moment(values, time)
        last = last + _TICK_S if moment is None else moment
        place = values.pop(step, None) if step is not None else number
        if not _is_whole(place):
            session.left_out["line without a step"] += 1
            continue
        fields: dict[str, Any] = {"step": int(place)}
        epoch = values.get(_EPOCH)
        if isinstance(epoch, (int, float)) and not isinstance(epoch, bool) and math.isfinite(epoch):
            fields["epoch"] = values.pop(_EPOCH)
        metrics = flattened(values, session.left_out)
        if metrics:
            yield Line("metrics", last, {**fields, "metrics": metrics})


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))


def _moment(values: dict[str, Any], time: str | None) -> float | None:
    """Take the time out of a line's values."""
    for name in _TIMES if time is None else (time,):
        value = values.get(name)
        if isinstance(value, str):
            found = moment_of(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value > 1e8:
            found = value / 1e3 if value > _MILLISECONDS else float(value)
        else:
            continue
        if math.isfinite(found):
            del values[name]
            return found
    return None
