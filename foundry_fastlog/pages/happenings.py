"""What a run said: its errors, grouped, and its messages, as many as a page can hold."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import Series

__all__ = ["read_errors", "read_messages"]

_MOST_GROUPS = 300
_FIRST, _LAST = 200, 1800  # of the messages
_MOST_TEXT = 20_000  # characters of a traceback
_MOST_FIELDS = 40
_MOST_MARKS = 50
_SAVED = re.compile(r"checkpoint", re.IGNORECASE), re.compile(r"sav|writ|stor", re.IGNORECASE)


def read_errors(run: Run, starts: Starts) -> dict[str, Any]:
    """Group the errors of a run by fingerprint, and its events by name.

    Returns:
        ``groups``, the most frequent first; ``omitted``, how many groups beyond 300 there are; and
        ``marks``, where to show the first of each in a chart, as ``[step, word]``.
    """
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    omitted: set[tuple[str, ...]] = set()
    for series, line in _lines(run, "errors", starts):
        kind, event = (_text(line.get(key)) for key in ("error_type", "event"))
        what = _text(line.get("fingerprint")) or event or _text(line.get("message"))[:200]
        key = (kind, event, what)
        at = {"time": line["timestamp"], "step": line.get("step")}
        found = groups.get(key)
        if found is None:
            if len(groups) >= _MOST_GROUPS:
                omitted.add(key)
                continue
            found = groups[key] = {
                "type": kind or event,
                "event": bool(event and not kind),
                "level": _text(line.get("level")),
                "logger": _text(line.get("logger")),
                "message": _text(line.get("message") or line.get("error_message"))[:2000],
                "traceback": _text(line.get("traceback"))[-_MOST_TEXT:],
                "fields": _fields(line),
                "first": at,
                "count": 0,
                "ranks": [],
            }
        found["count"] += 1
        found["last"] = at
        if series.writer.rank not in found["ranks"]:
            found["ranks"].append(series.writer.rank)
    ordered = sorted(groups.values(), key=lambda group: -group["count"])
    marks = [
        [group["first"]["step"], group["type"] or group["level"].lower()]
        for group in ordered
        if type(group["first"]["step"]) is int and group["type"] != "nonfinite"
    ]
    return {"groups": ordered, "omitted": len(omitted), "marks": marks[:_MOST_MARKS]}


def read_messages(run: Run, starts: Starts) -> dict[str, Any]:
    """Read the messages of a run.

    Returns:
        ``lines`` as ``[time, level, logger, step, message, fields, rank]``: the first 200 and the
        last 1800; ``total``, how many there are; ``levels``, how many of each level are among the
        lines; and ``marks``, where a checkpoint was saved, as ``[step, word]``.
    """
    found = _lines(run, "log", starts)
    first = list(islice(found, _FIRST))
    last: deque[tuple[Series, dict[str, Any]]] = deque(maxlen=_LAST)
    total = len(first)
    for one in found:
        last.append(one)
        total += 1
    levels: Counter[str] = Counter()
    lines, marks = [], []
    for series, line in (*first, *last):
        message, step = _text(line.get("message")), line.get("step")
        level = _text(line.get("level"))
        levels[level] += 1
        lines.append(
            [
                line["timestamp"],
                level,
                _text(line.get("logger")),
                step,
                message[:2000],
                _fields(line),
                series.writer.rank,
            ]
        )
        if type(step) is int and all(pattern.search(message) for pattern in _SAVED):
            marks.append([step, "checkpoint"])
    return {
        "lines": lines,
        "total": total,
        "levels": dict(levels.most_common()),
        "marks": marks[-_MOST_MARKS:],
    }


def _lines(run: Run, stream: str, starts: Starts) -> Iterator[tuple[Series, dict[str, Any]]]:
    for series, raw in run.raw_lines([stream], starts=starts):
        line = orjson.loads(raw)
        if not is_marker(line):
            yield series, line


def _fields(line: dict[str, Any]) -> list[list[str]]:
    """Return the first fields of a line's context as texts."""
    context = line.get("context")
    if not isinstance(context, dict):
        return []
    return [[key, _short(value)] for key, value in islice(context.items(), _MOST_FIELDS)]


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value[:500]
    try:
        return orjson.dumps(value).decode()[:500]
    except TypeError:  # nested more deeply than can be written
        return "..."


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
