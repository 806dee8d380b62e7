"""Describe exceptions as completely as possible, whatever their classes do.

An exception's class is arbitrary code: its ``__str__``, ``__getattribute__`` or ``__module__`` may
raise or return anything. Errors also occur when memory or descriptors have run out, so nothing is
imported here except in `prepare()`.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from textwrap import indent
from typing import Any, NamedTuple

from foundry_fastlog.base.fingerprint import chain_of, class_of, fingerprint, member
from foundry_fastlog.base.json_text import safe_str
from foundry_fastlog.base.unread import class_name, shows_unread

__all__ = ["ErrorFacts", "error_facts", "exception_text", "formatted", "prepare"]


_ALL = 1000  # maximum number of exceptions in a chain
# Python's own wording.
_CAUSED = "The above exception was the direct cause of the following exception:"
_DURING = "During handling of the above exception, another exception occurred:"


class ErrorFacts(NamedTuple):
    """An exception as text: class, message, traceback, and a fingerprint shared by equal errors."""

    kind: str
    text: str
    traceback: str
    fingerprint: str


def prepare() -> None:
    """Import what describing an error needs, while descriptors are available."""
    with contextlib.suppress(ImportError, OSError):
        import hashlib  # noqa: F401 - see fingerprint()
        import tokenize  # noqa: F401 - newer tracebacks import this and the next on demand
        import unicodedata  # noqa: F401


def error_facts(error: BaseException) -> ErrorFacts:
    """Describe an exception. Never raises."""
    return ErrorFacts(
        class_name(type(error)), safe_str(error), formatted(error), fingerprint(error)
    )


def formatted(error: BaseException) -> str:
    """Return an exception's traceback as Python prints it, or as close to it as possible.

    If Python's own would read a tensor that must not be read, such as one on a device, the
    traceback is composed here and describes the tensor instead.
    """
    try:
        if _shows_unread(error):
            return _unread_traceback(error)
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - from the exception's class, or out of memory
        trace = member(error, "__traceback__")
    last = f"{class_name(type(error))}: {safe_str(error)}\n"
    try:
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(trace), last])
    except Exception:  # noqa: BLE001 - from a loader that provides the source, or out of memory
        return last


def _shows_unread(error: BaseException) -> bool:
    return any(
        shows_unread(one)
        or shows_unread(_notes_of(one))
        or any(map(_shows_unread, _members_of_group(one)))
        for one in chain_of(error, _ALL)
    )


def _notes_of(error: BaseException) -> list[Any]:
    """List an exception's notes (Python 3.11+), which may be of any type."""
    notes = getattr(error, "__notes__", None)
    if notes is None:
        return []
    return list(notes) if isinstance(notes, (list, tuple)) else [notes]


def _members_of_group(error: BaseException) -> tuple[BaseException, ...]:
    members = getattr(error, "exceptions", None)  # of an ExceptionGroup (Python 3.11+)
    members = members if isinstance(members, tuple) else ()
    return tuple(inner for inner in members if isinstance(inner, BaseException))


def _unread_traceback(error: BaseException) -> str:
    """Compose a traceback from parts that do not read such tensors."""
    text = ""
    later: BaseException | None = None
    for one in chain_of(error, _ALL):
        trace = member(one, "__traceback__")
        head = ["Traceback (most recent call last):\n"] if trace is not None else []
        module, name = class_of(one)
        kind = name if module in ("builtins", "__main__") else f"{module}.{name}"
        notes = [f"{safe_str(note)}\n" for note in _notes_of(one)]
        part = "".join([*head, *traceback.format_tb(trace), f"{kind}: {safe_str(one)}\n", *notes])
        for inner in _members_of_group(one):
            part += indent(_unread_traceback(inner), "  | ")
        if later is not None:
            part += f"\n{_CAUSED if member(later, '__cause__') is one else _DURING}\n\n"
        text, later = part + text, one
    return text


def exception_text(formatter: logging.Formatter, exc_info: Any) -> str:  # noqa: ANN401 - a record's
    """Return the traceback of a LogRecord's ``exc_info``.

    Args:
        formatter: Renders it, if the exception allows.
        exc_info: Class, exception and traceback; or None three times.
    """
    try:
        if _shows_unread(exc_info[1]):
            return _unread_traceback(exc_info[1]).rstrip("\n")
        return formatter.formatException(exc_info)
    except Exception:  # noqa: BLE001 - from the exception's class, or from a user's formatter
        return formatted(exc_info[1]).rstrip("\n")
