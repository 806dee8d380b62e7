"""What a run said: its errors and its messages, as many as a page can hold."""

from __future__ import annotations

from collections import Counter, deque
from itertools import islice
from typing import Any

import orjson

from foundry_fastlog.analysis.error_groups import group_errors
from foundry_fastlog.base.formatting import text_of
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import Series

__all__ = ["read_errors", "read_messages"]

_MOST_GROUPS = 300
_FIRST, _LAST = 200, 1800  # of the messages
_MOST_MESSAGE = 2000
_MOST_TEXT = 20_000  # characters of a traceback
_MOST_FIELDS = 40
_MOST_MARKS = 50


def read_errors(run: Run, starts: Starts) -> dict[str, Any]:
    """Group the errors and events of a run.

    Returns:
        ``groups``, the most frequent first; ``omitted``, how many groups beyond 300 there are; and
        ``marks``, where to show the first of each in a chart, as ``[step, word]``.
    """
    groups = group_errors(run, starts=starts)
    shown = [
        {
            "type": group.error_type or group.event,
            "level": group.level,
            "logger": group.logger,
            "message": group.message[:_MOST_MESSAGE],
            "traceback": group.traceback[-_MOST_TEXT:],
            "first": {"time": group.first, "step": group.first_step},
            "last": {"time": group.last, "step": group.last_step},
            "count": group.count,
            "ranks": group.ranks,
        }
        for group in groups[:_MOST_GROUPS]
    ]
    marks = [
        [group.first_step, group.error_type or group.event or group.level.lower()]
        for group in groups
        if group.first_step is not None and group.event != "nonfinite"  # that has its own marks
    ]
    return {
        "groups": shown,
        "omitted": len(groups) - len(shown),
        "marks": marks[:_MOST_MARKS],
    }


def read_messages(run: Run, starts: Starts) -> dict[str, Any]:
    """Read the messages of a run.

    Returns:
        ``lines`` as ``[time, level, logger, step, message, fields, rank]``: the first 200 and the
        last 1800; ``total``, how many there are; and ``levels``, how many of each level are among
        the lines.
    """
    found = (
        (series, line)
        for series, raw in run.raw_lines(["log"], starts=starts)
        if not is_marker(line := orjson.loads(raw))
    )
    first = list(islice(found, _FIRST))
    last: deque[tuple[Series, dict[str, Any]]] = deque(maxlen=_LAST)
    total = len(first)
    for one in found:
        last.append(one)
        total += 1
    levels: Counter[str] = Counter()
    lines = []
    for series, line in (*first, *last):
        message, step = text_of(line.get("message")), line.get("step")
        level = text_of(line.get("level"))
        levels[level] += 1
        lines.append(
            [
                line["timestamp"],
                level,
                text_of(line.get("logger")),
                step,
                message[:_MOST_MESSAGE],
                _fields(line),
                series.writer.rank,
            ]
        )
    return {
        "lines": lines,
        "total": total,
        "levels": dict(levels.most_common()),
    }


def _fields(line: dict[str, Any]) -> list[list[str]]:
    """Return the first fields of a line's context as texts."""
    context = line.get("context", {}).items()
    return [[key, _short(value)] for key, value in islice(context, _MOST_FIELDS)]


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return value[:500]
    try:
        return orjson.dumps(value).decode()[:500]
    except TypeError:  # nested more deeply than can be written
        return "..."
