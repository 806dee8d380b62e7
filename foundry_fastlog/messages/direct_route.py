"""Decide whether a message may go to the handlers directly, without a LogRecord.

It may if every handler that would receive it belongs to this package. Anything else that might want
records (another handler, pytest's caplog, a filter, a patched logger) makes messages take the
standard library's path.
"""

from __future__ import annotations

import logging

from foundry_fastlog.messages.own_handler import OwnHandler, Targets

__all__ = ["Route", "find_route"]

_STEPS = ("log", "_log", "makeRecord", "handle", "callHandlers")
_OWN_CODE = logging.Logger.hasHandlers.__code__.co_filename


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
        handlers: tuple[OwnHandler, ...],
        *,
        direct: bool,
    ) -> None:
        """Store what was found.

        Args:
            chain: For the logger and its ancestors, as far as messages propagate: a copy of the
                handler list, and whether the logger propagates.
            handlers: This package's handlers among them.
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
        found = [handler.fastlog_takes() for handler, least in self._handlers if level >= least]
        targets: Targets = (
            tuple(take for takers, _ in found for take in takers),
            tuple(output for _, outputs in found for output in outputs),
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
    handlers = [handler for found, _ in chain for handler in found]
    own = tuple(handler for handler in handlers if isinstance(handler, OwnHandler))
    direct = (
        bool(own)
        and len(own) == len(handlers)
        and not logger.filters
        and _is_plain(logger)
        and not any(handler.filters for handler in own)
    )
    return Route(tuple(chain), own, direct=direct)


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
