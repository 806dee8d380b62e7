"""The format of a message in text logs and on the console.

As a block, in files:

2025-09-30 14:30:15 [INFO] model_foundry.training.loop: Training step completed
  step: 100
  loss: 3.2449871234

As a line, on the console; a terminal shows the time alone, what is none also date and zone:

14:30:15 [INFO] model_foundry.training.loop: Training step completed  step=100 loss=3.245
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from foundry_fastlog.base.error_facts import exception_text
from foundry_fastlog.base.json_text import cut, safe_str, text_of_value
from foundry_fastlog.base.telemetry import RECORD_FIELDS
from foundry_fastlog.base.unread import is_a

__all__ = [
    "BASE_FIELDS",
    "CAPTURED",
    "PARTS",
    "ExcInfo",
    "Message",
    "Output",
    "Parts",
    "details_of",
    "exact",
    "exc_info_of",
    "fields_of",
    "head_of",
    "line_tail_of",
    "local_time",
    "message_of",
    "record_message",
    "settled",
    "sound",
    "text_of",
]

_Triple = tuple[type[BaseException], BaseException, TracebackType | None]
ExcInfo = bool | BaseException | _Triple | tuple[None, None, None] | None

BASE_FIELDS = ("experiment", "git_hash", "device")
"""Context that is the same in all messages: included in the JSON, omitted from the text."""

PARTS = "_foundry_fastlog_parts"
"""The attribute of a LogRecord that holds the parts of a structured message (`Parts`)."""

CAPTURED = "_foundry_fastlog_captured"
"""The attribute of a LogRecord that names the handler which has passed it to a run."""

_SCALARS = frozenset((int, float, str, bool, type(None)))
_MAX_VALUE = 10_000
_MAX_IN_LINE = 200
_OPENS = ("[", "(", "{", "<")  # a list's text and the like ends where its bracket does
_QUOTED = re.compile(r"[^\x21-\x7e\xa1-\U0010ffff]|[\"'=]")  # what would blur where a value ends
# A LogRecord's own attributes, and what instrumentation adds; all others came through `extra`.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    PARTS,
    CAPTURED,
    *RECORD_FIELDS,
}


Parts = tuple[str, Mapping[str, Any], Mapping[str, Any]]
"""Message, whole context, and fields for the text logs. A tuple, so reloads do not matter."""


Message = tuple[float, int, str, str, Mapping[str, Any], str]
"""A message for the text logs: seconds since the epoch, level, logger, text, `settled()` fields,
traceback or empty. A plain tuple, because one is created for each message."""


class Output(Protocol):
    """Where lines go: a file, the console."""

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Write messages, given as parts and as text; reports its own errors. Must not raise."""


def head_of(message: Message) -> tuple[str, str, str]:
    """Return the first line's parts: time, level, and logger with text."""
    created, level, logger, text, _, _ = message
    if "\n" in text or "\r" in text:
        text = _indented(text, "  ")
    return local_time(created)[:19], _level_name(level), f"{logger}: {text}"


def _level_name(level: int) -> str:
    return exact(logging.getLevelName(level))  # addLevelName() takes anything


def exact(text: object) -> str:
    """Return a text as a plain str, as the log stream has it: a user's class may do anything."""
    if type(text) is str:
        return text
    return str.__str__(text) if is_a(text, str) else safe_str(text)


def details_of(message: Message) -> str:
    """Return the lines after the first, each with its line end."""
    shown, exception = message[4], message[5]
    text = "".join([f"  {key}: {value}\n" for key, value in shown.items()])
    if text.count("\n") != len(shown) or "\r" in text:
        text = "".join([f"  {_indented(f'{k}: {v}', '    ')}\n" for k, v in shown.items()])
    if exception:
        text += "  " + _indented(exception.rstrip("\n"), "  ") + "\n"
    return text


def line_tail_of(message: Message) -> str:
    """Return what follows the first line's head in a line: fields, and below it a traceback."""
    shown, exception = message[4], message[5]
    text = "".join([f" {key}={_short(value)}" for key, value in shown.items()])
    text = f" {text}\n" if text else "\n"
    return f"{text}  {_indented(exception.rstrip(chr(10)), '  ')}\n" if exception else text


def _short(value: object) -> str:
    """Return a settled value for a line: few digits, quotes only where they are needed."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    if len(text) > _MAX_IN_LINE:
        text = cut(text, _MAX_IN_LINE)
    if not isinstance(value, str) or (text[:1] in _OPENS and text.isprintable()):
        return text
    return json.dumps(text, ensure_ascii=False) if _QUOTED.search(text) else text or '""'


def text_of(message: Message) -> str:
    """Return the whole message as written to a file."""
    time_, level, rest = head_of(message)
    return f"{time_} [{level}] {rest}\n{details_of(message)}"


def sound(message: Message) -> Message:
    """Return a message that can be rendered, for one whose parts have raised something."""
    created, level, logger, text, shown, exception = message
    try:
        local_time(created)
    except Exception:  # noqa: BLE001 - no number, or none that a date has
        created = time.time()
    fields = {exact(key): value for key, value in shown.items()}
    return (created, level, exact(logger), exact(text), fields, exact(exception))


_last_second: tuple[int, str] = (-1, "")


def local_time(created: float) -> str:
    """Return the local time and its zone; cached, as the same second is asked for many times."""
    global _last_second  # noqa: PLW0603 - a cache of one, replaced as a whole
    known, second = _last_second, int(created)
    if known[0] != second:
        moment = time.localtime(second)
        zone = time.strftime("%z", moment)
        known = (second, f"{time.strftime('%Y-%m-%d %H:%M:%S', moment)}{zone[:3]}:{zone[3:5]}")
        _last_second = known
    return known[1]


def _indented(text: str, by: str) -> str:
    """Indent all lines but the first, so that no text can look like another message."""
    return ("\n" + by).join(text.splitlines())


def settled(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of the fields: numbers stay, what may change later is converted to text.

    Args:
        fields: Any fields; the mapping itself must not be changed afterwards.
    """
    if _SCALARS.issuperset(map(type, fields.values())):
        return fields
    return {
        key: value if type(value) in _SCALARS else _settled_value(value)
        for key, value in fields.items()
    }


def _settled_value(value: object) -> float | str:
    if is_a(value, float):  # numpy's: a number on the console, too
        return float.__float__(value)  # type: ignore[arg-type] # a class's own may raise
    return cut(text_of_value(value), _MAX_VALUE)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the `extra` fields of a plain logging call."""
    return {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}


def exc_info_of(exc_info: object) -> ExcInfo:
    """Return what the standard library takes, whatever an exception's class does, or a value is."""
    if is_a(exc_info, BaseException):
        trace = BaseException.__dict__["__traceback__"].__get__(exc_info)
        return type(exc_info), exc_info, trace  # type: ignore[return-value] # its class is one
    if type(exc_info) is tuple:
        return exc_info
    try:
        return bool(exc_info)
    except Exception:  # noqa: BLE001 - an array of several elements, for one
        return True


def message_of(record: logging.LogRecord) -> str:
    """Return a plain record's message; if its values do not fit it, or cannot be shown, say so."""
    try:
        return exact(record.getMessage())
    except Exception:  # noqa: BLE001 - a wrong placeholder, or a __str__ that raises
        args: object = record.args
        values = args if type(args) is tuple else (args,)
        return f"{exact(record.msg)} {', '.join(safe_str(value) for value in values)}"


def record_message(record: logging.LogRecord, formatter: logging.Formatter) -> Message:
    """Convert a LogRecord, structured or not, to a message.

    Args:
        record: The record.
        formatter: Renders the traceback.
    """
    parts: Parts | None = getattr(record, PARTS, None)
    if parts is not None:
        message, shown = parts[0], dict(parts[2])
    else:
        message, shown = message_of(record), fields_of(record)
    exception = record.exc_text or ""
    if record.exc_info and not exception:
        exception = exception_text(formatter, record.exc_info)
    if record.stack_info:
        exception = f"{exception}\n{record.stack_info}" if exception else record.stack_info
    return (record.created, record.levelno, record.name, message, settled(shown), exception)
