"""What this package's handlers have in common, and how a message reaches them directly.

A protocol, not a base class: after a module is reloaded, handlers made before have another class.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from foundry_fastlog.messages.text_lines import Output

__all__ = ["OwnHandler", "Targets", "place_of"]

Targets = tuple[
    tuple[Callable[[str, str, str, Mapping[str, Any]], object], ...], tuple[Output, ...]
]
"""Functions that take a message's parts, and outputs of the text writer."""


@runtime_checkable
class OwnHandler(Protocol):
    """A `logging.Handler` of this package.

    Attributes:
        level: The lowest level that it handles.
        filters: Its filters.
        fastlog_kind: What it is for, such as ``"main"``; a logger has one handler of each kind.
        fastlog_place: Where it writes to: a file, a run's directory, a stream's name.
    """

    level: int
    filters: list[Any]
    fastlog_kind: str
    fastlog_place: str

    def fastlog_takes(self) -> Targets:
        """Return what takes this handler's messages without a LogRecord."""
        ...


def place_of(handler: logging.Handler) -> str:
    """Return where a handler of this package writes to; for any other, an empty text."""
    return handler.fastlog_place if isinstance(handler, OwnHandler) else ""
