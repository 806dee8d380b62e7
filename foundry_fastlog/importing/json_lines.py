"""Reads files of JSON lines as any program writes them: an object a line, with values by name.

Also a file that is one list of such objects, or an object that has one, as ``log_history`` in the
``trainer_state.json`` of Transformers. Each may be compressed by gzip.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from foundry_fastlog.base.environment import moment_of
from foundry_fastlog.importing.own_lines import is_own, read_own_lines
from foundry_fastlog.importing.session import Line, Session, SourceError, flattened

__all__ = ["read_json_lines"]

_STEPS = ("step", "_step", "global_step", "iteration", "iter", "it", "steps")
_TIMES = ("timestamp", "_timestamp", "time", "wall_time", "ts", "datetime", "date")
_EPOCH = "epoch"
_LOOKED_AT = 100  # lines, for the name of the step
_TICK_S = 1e-3  # between lines without a time
_MILLISECONDS = 1e11  # a time that is larger counts these
_LARGEST = 1 << 63  # a step is below
_GZIP = b"\x1f\x8b"
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_WHOLE_BYTES = 1 << 28  # of a file that is read at once


def read_json_lines(path: Path, step: str | None = None, time: str | None = None) -> list[Session]:
    """Read a file.

    Args:
        path: The file.
        step: The member that is the step. Default: the first of ``step``, ``_step``,
            ``global_step``, ``iteration``, ``iter`` that lines have; without one lines are counted.
        time: The member that is the time: seconds or milliseconds since 1970, or ISO 8601. Default:
            the first of ``timestamp``, ``_timestamp``, ``time``, ``wall_time`` that is one. A line
            without one is a millisecond later than the last; where none has one, they end when
            the file was written.

    Returns:
        A session; of lines of this package one for each start of each run.

    Raises:
        SourceError: No line is a JSON object, or none has the members that were named.
    """
    source = _File(path)
    name = Path(path.stem).stem if path.suffix == ".gz" else path.stem
    _, first = next(source.objects(), (0, None))
    if first is None:
        raise SourceError(f"{path} has no line that is a JSON object")
    for member in (step, time):
        if member is not None and not any(member in values for _, values in source.objects()):
            raise SourceError(f"no line of {path} has a member {member!r}")
    if is_own(first) and step is None and time is None:
        return read_own_lines(path, name, source.objects)
    found = Session(name=name, key=str(path), lines=iter(()), directory=name)
    found.config = source.beside
    known = _find_step(source) if step is None else step
    found.lines = _lines(source, known, time, found)
    return [found]


class _File:
    """A file, whose objects can be read several times.

    Attributes:
        path: The file.
        beside: What is said beside a list of objects that is the file's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beside: dict[str, Any] = {}
        self._list: list[dict[str, Any]] | None = None
        whole = self._read_whole()
        if isinstance(whole, dict):
            lists = [value for value in whole.values() if _has_objects(value)]
            if lists:
                self._list = lists[0]
                self.beside = {key: one for key, one in whole.items() if one is not lists[0]}
        elif _has_objects(whole):
            self._list = whole

    def objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield number and object of each line that is one."""
        if self._list is not None:
            yield from enumerate(map(dict, self._list))
            return
        with self._open() as file:
            for number, raw in enumerate(file):
                if (found := _object(raw)) is not None:
                    yield number, found

    def count(self) -> int:
        """Return how many lines there are, or objects."""
        if self._list is not None:
            return len(self._list)
        with self._open() as file:
            return sum(1 for _ in file)

    def _open(self) -> IO[bytes]:
        with self.path.open("rb") as file:
            packed = file.read(len(_GZIP)) == _GZIP
        return cast("IO[bytes]", gzip.open(self.path)) if packed else self.path.open("rb")

    def _read_whole(self) -> Any:  # noqa: ANN401 - any JSON
        """Return what the file says if it is one value; None if it has lines."""
        if self.path.stat().st_size > _WHOLE_BYTES:
            return None
        with self._open() as file:
            first = _object(file.readline())
            if first is not None and (file.read(1) or not any(map(_has_objects, first.values()))):
                return None
            file.seek(0)
            try:
                return json.load(file)
            except (ValueError, RecursionError):
                return None


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)  # takes NaN and Infinity, as Python writes them
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _has_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _find_step(source: _File) -> str | None:
    """Return the member that is the step in the first lines."""
    names: set[str] = set()
    for _, values in itertools.islice(source.objects(), _LOOKED_AT):
        names |= {name for name, value in values.items() if _whole(value) is not None}
    return next((name for name in _STEPS if name in names), None)


def _whole(value: object) -> int | None:
    """Return a whole number of 64 bits that is a number, or its text."""
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if abs(value) < _LARGEST and value == value // 1 else None


def _lines(source: _File, step: str | None, time: str | None, session: Session) -> Iterator[Line]:
    total = source.count()
    last = source.path.stat().st_mtime - _TICK_S * (total + 1)  # none is later than the file
    count = -1
    for number, values in source.objects():
        session.left_out["line"] += number - count - 1
        count = number
        moment = _moment(values, time)
        last = last + _TICK_S if moment is None else moment
        place = number if step is None else _whole(values.pop(step, None))
        if place is None:
            session.left_out["line without a step"] += 1
            continue
        fields: dict[str, Any] = {"step": place}
        epoch = values.get(_EPOCH)
        if isinstance(epoch, (int, float)) and not isinstance(epoch, bool) and math.isfinite(epoch):
            fields["epoch"] = values.pop(_EPOCH)
        metrics = flattened(values, session.left_out)
        if metrics:
            yield Line("metrics", last, {**fields, "metrics": metrics})
    session.left_out["line"] += total - count - 1


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
