"""Handlers of the standard library's `logging` that write through the background writer.

They accept messages in two ways: `emit()` gets a LogRecord, as in any handler; `take()` gets a
finished message from a StructuredLogger that has found no other handlers.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from foundry_fastlog.base import caller_time
from foundry_fastlog.messages.own_handler import OwnHandler, Targets
from foundry_fastlog.messages.text_console import ConsoleOutput
from foundry_fastlog.messages.text_files import TextFile
from foundry_fastlog.messages.text_lines import (
    Message,
    Output,
    head_of,
    line_tail_of,
    record_message,
)
from foundry_fastlog.messages.text_writer import ToConsole, writer

__all__ = ["ConsoleHandler", "TextFileHandler", "TextHandler", "find_handler"]

if TYPE_CHECKING:
    _StreamHandler = logging.StreamHandler[TextIO]
else:  # not to be subscripted before Python 3.11
    _StreamHandler = logging.StreamHandler

_PLAIN = logging.Formatter()


class TextHandler(logging.Handler):
    """Passes messages to the background writer.

    Attributes:
        fastlog_kind: What this handler is for, such as ``"main"``; a logger has one of each kind.
        fastlog_place: Where it writes to.
    """

    def __init__(self, output: Output, level: int, *, kind: str, place: str) -> None:
        """Create a handler for an output.

        Args:
            output: Where lines go.
            level: The lowest level to write.
            kind: See the class.
            place: See the class.
        """
        logging.Handler.__init__(self, level)
        self.fastlog_kind = kind
        self.fastlog_place = place
        self._outputs = (output,)

    def fastlog_takes(self) -> Targets:
        """Return what takes this handler's messages without a LogRecord."""
        return (), self._outputs

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; it is rendered here and written by the writer's thread."""
        begin = caller_time.begin()
        try:
            self.take(record_message(record, self.formatter or _PLAIN))
        except Exception:  # noqa: BLE001 - as in any handler: the program goes on
            self.handleError(record)
        finally:
            caller_time.end(begin)

    def take(self, message: Message) -> None:
        """Queue a message; at ERROR or above it is written on return, see `TextWriter`."""
        writer.put(self._outputs, message)

    def flush(self) -> None:
        """Wait until everything logged is written; if no output progresses, five seconds, once."""
        writer.flush()

    def close(self) -> None:
        """Write everything logged so far."""
        self.flush()
        super().close()


class TextFileHandler(TextHandler):
    """Appends whole lines to a text log, from any number of processes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        level: int = logging.DEBUG,
        *,
        kind: str = "file",
        max_bytes: int = 0,
        keep: int = 0,
    ) -> None:
        """Open the file.

        Args:
            path: The file. Missing parent directories are created.
            level: The lowest level to write.
            kind: What the handler is for; a logger has one handler of each kind.
            max_bytes: A file that would grow beyond this is rotated: ``x.log`` becomes
                ``x.log.1``. 0 for no limit.
            keep: How many text logs of the file's kind to keep in its directory; 0 for all.
        """
        self.file = TextFile(path, max_bytes=max_bytes, keep=keep)
        super().__init__(self.file, level, kind=kind, place=str(self.file.path))

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self.file.path

    def close(self) -> None:
        """Write everything logged so far and close the file."""
        super().close()
        self.file.close()


class ConsoleHandler(TextHandler, _StreamHandler):
    """Writes to the console, a line for each message.

    A StreamHandler, so that tqdm's ``logging_redirect_tqdm`` knows it for the console's.
    """

    def __init__(
        self,
        level: int = logging.INFO,
        *,
        stream: str = "stderr",
        form: str = "line",
        kind: str = "console",
    ) -> None:
        """Write to a standard stream.

        Args:
            level: The lowest level to write.
            stream: ``"stderr"`` or ``"stdout"``; looked up in `sys` at each write.
            form: ``"line"``: the message, and its fields as ``key=value``. ``"block"``: as in
                files, a field a line.
            kind: What the handler is for; a logger has one handler of each kind.

        Raises:
            ValueError: There is no such stream or form.
        """
        self.output = ConsoleOutput(stream, form)
        super().__init__(ToConsole(self.output), level, kind=kind, place=stream)
        self.formatter = _Lines()

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # StreamHandler has an attribute
        """The stream as it is now."""
        return getattr(sys, self.fastlog_place)  # type: ignore[no-any-return]  # of `sys`


class _Lines(logging.Formatter):
    """Formats a record as the console does, for a handler that replaces the console's."""

    def format(self, record: logging.LogRecord) -> str:
        message = record_message(record, self)
        stamp, level, rest = head_of(message)
        return f"{stamp[11:]} [{level}] {rest}{line_tail_of(message)}".rstrip("\n")


def find_handler(logger: logging.Logger, kind: str) -> logging.Handler | None:
    """Return a logger's own handler of a kind, even if made before this module was reloaded."""
    for handler in logger.handlers:
        if isinstance(handler, OwnHandler) and handler.fastlog_kind == kind:
            return handler
    return None
