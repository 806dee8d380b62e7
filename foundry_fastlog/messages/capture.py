"""Pass on what other loggers log: libraries', the root's and Python's warnings, into a run.

And the other way round: what a run logs, to pytest's ``caplog``, which listens to the root alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence

from foundry_fastlog.messages.text_handlers import ConsoleHandler
from foundry_fastlog.messages.text_lines import CAPTURED

__all__ = ["CaptureHandler", "pass_to_tests"]

_WARNINGS = "py.warnings"  # the logger of logging.captureWarnings()

_catching: set[int] = set()  # those for which warnings are turned into messages


class CaptureHandler(logging.Handler):
    """Passes each record of other loggers once to a run's handlers, at the levels of those.

    Attributes:
        fastlog_kind: That it is a handler of this package.
    """

    fastlog_kind = "capture"

    def __init__(self, names: Iterable[str], handlers: Sequence[logging.Handler]) -> None:
        """Store what is captured; start() begins.

        Args:
            names: ``root``, ``warnings`` and names of loggers.
            handlers: The run's handlers; later ones included.
        """
        super().__init__()
        names = {_WARNINGS if name == "warnings" else name for name in names}
        self._loggers = [logging.getLogger(name) for name in sorted(names)]
        self._catches = _WARNINGS in names
        self._handlers = handlers

    def start(self) -> None:
        """Listen to the loggers."""
        if self._catches:
            _catching.add(id(self))
            logging.captureWarnings(True)  # noqa: FBT003 - the standard library's
        for logger in self._loggers:
            logger.addHandler(self)

    def stop(self) -> None:
        """Listen no longer."""
        for logger in self._loggers:
            logger.removeHandler(self)
        if id(self) in _catching:
            _catching.discard(id(self))
            if not _catching:
                logging.captureWarnings(False)  # noqa: FBT003 - the standard library's

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, unless it came here before: from a logger below this one."""
        if vars(record).get(CAPTURED) == id(self):
            return
        vars(record)[CAPTURED] = id(self)
        for handler in self._handlers:
            if record.levelno >= handler.level and not (
                isinstance(handler, ConsoleHandler) and _has_console(record.name)
            ):
                handler.handle(record)


def _handlers_of(name: str) -> Iterator[logging.Handler]:
    """Yield the handlers that get a logger's messages."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _has_console(name: str) -> bool:
    """Whether a logger's messages get to the console by handlers of its own."""
    for handler in _handlers_of(name):
        stream = getattr(handler, "stream", None)
        if stream is not None and stream in (sys.stderr, sys.stdout):
            return True
        if hasattr(handler, "console"):  # rich's
            return True
    return False


class _TestsHandler(logging.Handler):
    """Passes records to the handlers that pytest has put on the root, if it has not itself."""

    def emit(self, record: logging.LogRecord) -> None:
        known = list(_handlers_of(record.name))
        for handler in logging.root.handlers:
            if (
                type(handler).__module__ == _PYTEST
                and handler not in known
                and record.levelno >= handler.level
            ):
                handler.handle(record)


_PYTEST = "_pytest.logging"
_tests_handler = _TestsHandler()


def pass_to_tests(logger: logging.Logger) -> None:
    """Let ``caplog`` see what a logger logs that does not propagate, if pytest is there."""
    if _PYTEST in sys.modules:
        logger.addHandler(_tests_handler)
