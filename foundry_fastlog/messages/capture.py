"""Pass on what other loggers log: libraries', the root's and Python's warnings, into a run.

And the other way round: what a run logs, to pytest's ``caplog``, which listens to the root alone.

Other code may take a run's handlers off their loggers: ``dictConfig()`` off those that it
configures, ``basicConfig(force=True)`` off the root. This is noticed when `logging` closes a
handler, which both do, with the next message of a StructuredLogger, and at the end; and is told
once.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence

from foundry_fastlog.messages.enabling import is_enabled
from foundry_fastlog.messages.text_handlers import ConsoleHandler
from foundry_fastlog.messages.text_lines import CAPTURED
from foundry_fastlog.messages.text_writer import is_echo

__all__ = ["CaptureHandler", "notice_removed", "pass_to_tests"]

_WARNINGS = "py.warnings"  # the logger of logging.captureWarnings()

_log = logging.getLogger("foundry_fastlog")
_listening: list[CaptureHandler] = []
_catching: set[int] = set()  # those for which warnings are turned into messages


class CaptureHandler(logging.Handler):
    """Passes each record of other loggers once to a run's handlers, at the levels of those.

    Attributes:
        fastlog_kind: That it is a handler of this package.
    """

    fastlog_kind = "capture"

    def __init__(
        self, names: Iterable[str], handlers: Sequence[logging.Handler], home: logging.Logger
    ) -> None:
        """Store what is captured; start() begins.

        Args:
            names: ``root``, ``warnings`` and names of loggers.
            handlers: The run's handlers; later ones included.
            home: The run's own logger, which has its handlers.
        """
        super().__init__()
        self._home = home
        self._told: set[str] = set()
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
        _listening.append(self)

    def stop(self) -> None:
        """Listen no longer."""
        if self in _listening:
            self.notice_removed()
            _listening.remove(self)
        for logger in self._loggers:
            logger.removeHandler(self)
        if id(self) in _catching:
            _catching.discard(id(self))
            if not _catching:
                logging.captureWarnings(False)  # noqa: FBT003 - the standard library's

    def close(self) -> None:
        """Look what is left, once the one who configures `logging` is done."""
        super().close()
        if self in _listening:
            with contextlib.suppress(RuntimeError):  # no thread, or too late for one
                threading.Thread(target=self._notice_later, daemon=True).start()

    def _notice_later(self) -> None:
        logging.getLogger(_log.name)  # waits for the lock of a configuration
        self.notice_removed()

    def notice_removed(self) -> None:
        """Tell once of each logger that has lost its handlers for the run."""
        if self not in _listening:
            return
        lost = [logger.name for logger in self._loggers if self not in logger.handlers]
        if self._handlers and not any(one in self._home.handlers for one in self._handlers):
            lost.append(self._home.name)
        lost = [name for name in lost if name not in self._told]
        if lost and is_enabled(_log, logging.WARNING):
            self._told.update(lost)
            _log.warning(
                "the run's handlers were taken off these loggers: %s. Their messages no longer get "
                "to the run. Configure logging before the run opens: dictConfig() takes handlers "
                "off the loggers that it names, basicConfig(force=True) off the root.",
                ", ".join(lost),
            )

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a record on, unless it came here before: from a logger below, or to the console."""
        if vars(record).get(CAPTURED) == id(self) or is_echo():
            return
        vars(record)[CAPTURED] = id(self)
        for handler in self._handlers:
            if record.levelno >= handler.level and not (
                isinstance(handler, ConsoleHandler) and _has_console(record.name)
            ):
                handler.handle(record)


def notice_removed() -> None:
    """Tell of each run whether its loggers have lost its handlers."""
    for capture in tuple(_listening):
        capture.notice_removed()


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
