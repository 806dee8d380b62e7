"""Fingerprints of exceptions: equal for the same error at another step or in another run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType
from typing import Any

from foundry_fastlog.base.json_text import safe_str

__all__ = ["chain_of", "class_of", "fingerprint", "member", "normalised"]

_MAX_TEXT = 1000
_MAX_FRAMES = 50
_MAX_CHAIN = 10

# What varies between two occurrences of one error, most specific first.
_VARYING = (
    (
        re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"),
        "<uuid>",
    ),
    (re.compile(r"(?:[A-Za-z]:)?[\w.~+-]*(?:[/\\][\w.~+-]+)+[/\\]?"), "<path>"),
    (re.compile(r"\b0[xX][0-9a-fA-F]+\b"), "<hex>"),
    (re.compile(r"\b(?=[0-9a-f]*[0-9])(?=[0-9a-f]*[a-f])[0-9a-f]{7,}\b"), "<hex>"),
    (re.compile(r"\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?"), "<n>"),
)


def normalised(message: str) -> str:
    """Mask what varies between two occurrences of one error: numbers, hex digits and paths.

    Args:
        message: The text of an exception.

    Returns:
        ``"no <n> in <path>"`` for ``"no 17 in ckpt/17.pt"``; only the first 1000 characters are
        used.
    """
    text = message[:_MAX_TEXT]
    for pattern, mask in _VARYING:
        text = pattern.sub(mask, text)
    return text


def fingerprint(error: BaseException) -> str:
    """Return 16 hex digits that group equal errors.

    Based on the class, the normalised message and the functions in the traceback (file name without
    directory, and function name; no line numbers) of the exception and those it was raised from.

    Args:
        error: The exception, raised or not.

    Returns:
        The digits; zeros if memory, or a descriptor for an import, ran out.
    """
    try:
        return _digest(error)
    except Exception:  # noqa: BLE001 - an error that cannot be grouped must still be recorded
        return "0" * 16


def _digest(error: BaseException) -> str:
    import hashlib  # only when something went wrong

    digest = hashlib.sha256()
    for one in chain_of(error):
        parts = [*class_of(one), normalised(safe_str(one))]
        parts += _frames(member(one, "__traceback__"))
        digest.update("\0".join([*parts, "\n"]).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]


def member(error: BaseException, name: str) -> Any:  # noqa: ANN401 - whatever is there
    """Read an attribute that every exception has, bypassing the class's ``__getattribute__``."""
    return BaseException.__dict__[name].__get__(error)


def class_of(error: BaseException) -> tuple[str, str]:
    """Return the module and qualified name of the class; the module may be anything."""
    kind = type(error)
    module = type.__dict__["__module__"].__get__(kind)
    return safe_str(module), safe_str(type.__dict__["__qualname__"].__get__(kind))


def chain_of(error: BaseException, most: int = _MAX_CHAIN) -> Iterator[BaseException]:
    """Yield an exception and those it was raised from or while handling, as tracebacks do.

    Args:
        error: The exception.
        most: The maximum number.
    """
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen and len(seen) < most:
        seen.add(id(one))
        yield one
        cause, context = member(one, "__cause__"), member(one, "__context__")
        one = cause if cause is not None or member(one, "__suppress_context__") else context


def _frames(trace: TracebackType | None) -> list[str]:
    """Name the functions of a traceback, innermost last; a recursion counts once."""
    names: dict[str, None] = {}
    while trace is not None:
        code = trace.tb_frame.f_code
        names[f"{PurePath(code.co_filename).name}:{code.co_name}"] = None
        trace = trace.tb_next
    return list(names)[-_MAX_FRAMES:]
