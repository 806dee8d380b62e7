"""Decide whether a message may go to the handlers directly, without a LogRecord.

It may if every handler that would receive it belongs to this package. Anything else that might want
records (another handler, pytest's caplog, a filter, a patched logger) makes messages take the
standard library's path.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from foundry_fastlog.messages.text_writer import Output

__all__ = ["Route", "find_route"]

_STEPS = ("log", "_log", "makeRecord", "handle", "callHandlers")
_OWN_CODE = logging.Logger.hasHandlers.__code__.co_filename


Targets = tuple[
    tuple[Callable[[str, str, str, Mapping[str, Any]], object], ...], tuple[Output, ...]
]
"""Functions that take a message's parts, and outputs of the text writer."""


class Route:
    """The handlers of a logger and its ancestors, as found at one time.

    Attributes:
        direct: Whether messages may go to them without a LogRecord.
        by_level: The results of find_targets() so far.
    """

    __slots__ = ("_chain", "_handlers", "by_level", "direct")

    def __init__(
        self,
        chain: tuple[tuple[list[logging.Handler], bool], ...],
        handlers: tuple[Any, ...],
        *,
        direct: bool,
    ) -> None:
        """Store what was found.

        Args:
            chain: For the logger and its ancestors, as far as messages propagate: a copy of the
                handler list, and whether the logger propagates.
            handlers: All of those handlers.
            direct: See the class.
        """
        self._chain = chain
        self._handlers = tuple((handler, handler.level) for handler in handlers)
        self.direct = direct
        self.by_level: dict[int, Targets] = {}

    def holds(self, logger: logging.Logger) -> bool:
        """Return whether messages may still go directly to these handlers."""
        if not self.direct or logger.filters or "log" in logger.__dict__:
            return False
        for handler, level in self._handlers:
            if handler.filters or handler.level != level:
                return False
        node: logging.Logger | None = logger
        propagates = True
        for handlers, propagates in self._chain:
            if node is None or node.handlers != handlers or node.propagate != propagates:
                return False
            node = node.parent
        return node is None or not propagates

    def find_targets(self, level: int) -> Targets:
        """Return the targets for messages of a level; cached in `by_level`."""
        handlers = [handler for handler, least in self._handlers if level >= least]
        targets: Targets = (
            tuple(h.take for h in handlers if h.fastlog_takes == "event"),
            tuple(h.output for h in handlers if h.fastlog_takes == "text"),
        )
        self.by_level[level] = targets
        return targets


def find_route(logger: logging.Logger) -> Route:
    """Find the handlers of a logger and its ancestors."""
    chain: list[tuple[list[logging.Handler], bool]] = []
    node: logging.Logger | None = logger
    while node is not None:
        chain.append((list(node.handlers), node.propagate))
        node = node.parent if node.propagate else None
    handlers = tuple(handler for found, _ in chain for handler in found)
    direct = (
        bool(handlers)
        and not logger.filters
        and _is_plain(logger)
        and all(getattr(h, "fastlog_takes", None) and not h.filters for h in handlers)
    )
    return Route(tuple(chain), handlers, direct=direct)


def _is_plain(logger: logging.Logger) -> bool:
    """Return whether a logger is the standard library's own: not patched, not a subclass.

    Error trackers patch the class to receive all records.
    """
    for name in _STEPS:
        step = getattr(logger, name)
        code = getattr(step, "__code__", None)
        if name in logger.__dict__ or getattr(code, "co_filename", None) != _OWN_CODE:
            return False
    return True
