"""What is written of an exception: as much as can be had, whatever its class does.

An exception's class is anybody's code: its ``__str__``, ``__getattribute__`` or ``__module__`` may
raise or be nothing of the kind. And errors come when memory or descriptors have run out, so nothing
is imported here that `prepare()` has not.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from typing import Any, NamedTuple

from foundry_fastlog.base.fingerprint import fingerprint, member
from foundry_fastlog.base.json_text import class_name, safe_str

__all__ = ["ErrorFacts", "error_facts", "exception_text", "formatted", "prepare"]


class ErrorFacts(NamedTuple):
    """An exception as text: its class, what it says, the traceback, and what equal ones share."""

    kind: str
    text: str
    traceback: str
    fingerprint: str


def prepare() -> None:
    """Import what an error needs, while there are descriptors to do so."""
    with contextlib.suppress(ImportError, OSError):
        import hashlib  # noqa: F401 - see fingerprint()
        import tokenize  # noqa: F401 - newer tracebacks import it and the next when they need them
        import unicodedata  # noqa: F401


def error_facts(error: BaseException) -> ErrorFacts:
    """Describe an exception. Raises nothing."""
    return ErrorFacts(
        class_name(type(error)), safe_str(error), formatted(error), fingerprint(error)
    )


def formatted(error: BaseException) -> str:
    """Return an exception's traceback as Python prints it, or as near to that as can be."""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 - of the exception's class, or no memory
        trace = member(error, "__traceback__")
    last = f"{class_name(type(error))}: {safe_str(error)}\n"
    try:
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(trace), last])
    except Exception:  # noqa: BLE001 - of a loader that shows the source, or no memory
        return last


def exception_text(formatter: logging.Formatter, exc_info: Any) -> str:  # noqa: ANN401 - a record's
    """Return the traceback of a LogRecord's ``exc_info``.

    Args:
        formatter: Renders it, where the exception lets it.
        exc_info: Class, exception and traceback; or three times None.
    """
    try:
        return formatter.formatException(exc_info)
    except Exception:  # noqa: BLE001 - of the exception's class, or of a user's formatter
        return formatted(exc_info[1]).rstrip("\n")
