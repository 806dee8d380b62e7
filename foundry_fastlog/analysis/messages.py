"""Find messages and errors of a run: by level, logger, text, fields, steps and time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from foundry_fastlog.analysis.where import ABSENT, Where
from foundry_fastlog.base.arguments import INT64_MAX, INT64_MIN
from foundry_fastlog.reading.counting import Starts, is_marker
from foundry_fastlog.reading.lines import Entry, Record, restore_nonfinite
from foundry_fastlog.reading.run import Run
from foundry_fastlog.run.files import Series

__all__ = ["FIELDS", "MessageFilter", "find_messages"]

#: The names of what each message has; all others are looked up in its context.
FIELDS = (
    *("time", "level", "logger", "message", "step", "stream", "rank", "start", "label"),
    *("event", "error_type", "error_message", "fingerprint", "traceback", "context"),
)
_MOST_KNOWN = 1000
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass
class MessageFilter:
    """Which messages are wanted: those that fit everything that is given.

    Attributes:
        level: The lowest level, ``DEBUG`` to ``CRITICAL``. Levels of other names always fit.
        loggers: Names of loggers, each with those below it (``train`` has ``train.data``), or
            patterns (``*.data``).
        grep: Says whether a text fits: of the message, or of the error's class and message.
        where: True of the message's fields; see ``FIELDS``.
        steps: The first and the last step. Messages without a step do not fit, unless there is no
            bound.
        since: The earliest timestamp, as lines have it.
        until: The latest one.
        known: Names of fields that were seen.
    """

    level: str | None = None
    loggers: Collection[str] = ()
    grep: Callable[[str], bool] | None = None
    where: Where | None = None
    steps: tuple[int, int] = (INT64_MIN, INT64_MAX)
    since: str = ""
    until: str = ""
    known: dict[str, None] = field(default_factory=dict)

    def fits(self, stamp: str, series: Series, record: Record, start: int) -> bool:
        """Say whether a message is wanted."""
        if stamp < self.since or (self.until and stamp > self.until):
            return False
        if self.level is not None and _number(record["level"]) < _number(self.level):
            return False
        if self.steps != (INT64_MIN, INT64_MAX):
            step = record.get("step")
            if step is None or not self.steps[0] <= step <= self.steps[1]:
                return False
        if self.loggers and not self._is_of(record.get("logger")):
            return False
        if self.grep is not None and not any(map(self.grep, _texts(record))):
            return False
        if self.where is None:
            return True
        restore_nonfinite(record)
        if len(self.known) < _MOST_KNOWN:
            self.known.update(dict.fromkeys(record.get("context") or ()))
        return self.where(lambda name: _look_up(name, stamp, series, record, start))

    def _is_of(self, logger: object) -> bool:
        name = str(logger or "")
        return any(
            name == one or name.startswith(f"{one}.") or fnmatchcase(name, one)
            for one in self.loggers
        )


def find_messages(
    run: Run,
    wanted: MessageFilter,
    *,
    streams: Collection[str] = ("log", "errors"),
    starts: Starts = "latest",
    rank: int | None = None,
) -> Iterator[Entry]:
    """Find messages of a run, in order.

    Args:
        run: The run, from ``read_run``.
        wanted: Which messages.
        streams: ``log``, ``errors`` or both.
        starts: As for ``Run.lines``.
        rank: Only the messages of this rank.

    Yields:
        Timestamp, series, parsed line, and the line's bytes without newline.

    Raises:
        ValueError: An unknown stream or start.
    """
    for entry in run.entries(streams, starts=starts, rank=rank):
        stamp, series, record, _ = entry
        if not is_marker(record) and wanted.fits(
            stamp, series, record, run.number_of(series.writer)
        ):
            yield entry


def _look_up(name: str, stamp: str, series: Series, record: Record, start: int) -> Any:  # noqa: ANN401 - any JSON
    if name in ("time", "timestamp"):
        return stamp
    if name == "stream":
        return series.stream
    if name in ("rank", "label"):
        return getattr(series.writer, name)
    if name == "start":
        return start
    value = record.get(name) if name in FIELDS else None
    return (record.get("context") or {}).get(name, ABSENT) if value is None else value


def _number(level: str) -> int:
    # Not what this process calls its levels: the run's may have called others so.
    return _LEVELS.index(level) if level in _LEVELS else len(_LEVELS)


def _texts(record: Record) -> Iterator[str]:
    yield record["message"]
    if kind := record.get("error_type"):
        yield f"{kind}: {record.get('error_message', '')}"
