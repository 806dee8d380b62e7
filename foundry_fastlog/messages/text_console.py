"""The console: a line for each message, in colours on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from foundry_fastlog.messages.progress_bars import bars_aside
from foundry_fastlog.messages.text_lines import (
    Message,
    details_of,
    head_of,
    line_tail_of,
    local_time,
)

__all__ = ["FORMATS", "ConsoleOutput", "check_console"]

FORMATS = ("line", "block")
_STREAMS = ("stderr", "stdout")

_DIM = "\x1b[2m"
_RESET = "\x1b[0m"
_COLOURS = {
    "DEBUG": _DIM,
    "INFO": "\x1b[32m",
    "WARNING": "\x1b[33m",
    "ERROR": "\x1b[1;31m",
    "CRITICAL": "\x1b[1;37;41m",
}


def check_console(stream: str, form: str) -> None:
    """Check a console's options.

    Raises:
        ValueError: There is no such stream or format.
    """
    if stream not in _STREAMS:
        raise ValueError(f"stream must be one of {', '.join(_STREAMS)}, got {stream!r}")
    if form not in FORMATS:
        raise ValueError(f"form must be one of {', '.join(FORMATS)}, got {form!r}")


class ConsoleOutput:
    """Writes to the current `sys.stderr` or `sys.stdout`, which programs and notebooks replace.

    Attributes:
        stream: ``"stderr"`` or ``"stdout"``.
        form: ``"line"`` or ``"block"``.
        errors: Messages that could not be written.
    """

    def __init__(self, stream: str = "stderr", form: str = "line") -> None:
        """Store the stream's name and the format; ValueError for others."""
        check_console(stream, form)
        self.stream = stream
        self.form = form
        self.errors = 0

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Write messages; a console that is gone is not reported.

        Args:
            messages: The messages.
            texts: The same messages as blocks.
        """
        stream: TextIO | None = getattr(sys, self.stream, None)
        if stream is None:  # a program without a console, such as pythonw
            return
        try:
            terminal = stream.isatty()
            if self.form == "line" or terminal:
                texts = [self._text_of(message, terminal=terminal) for message in messages]
            with bars_aside(stream):
                _write(stream, "".join(texts))
                stream.flush()
        except BaseException as error:  # a closed pipe, a notebook's own stream: ignored
            self.errors += len(messages)
            if not isinstance(error, Exception):
                raise

    def _text_of(self, message: Message, *, terminal: bool) -> str:
        stamp, level, rest = head_of(message)
        if self.form == "block":
            tail = f"\n{details_of(message)}"
        else:
            tail = line_tail_of(message)
            stamp = stamp[11:] if terminal else local_time(message[0])
        if not terminal or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            return f"{stamp} [{level}] {rest}{tail}"
        level = f"{_COLOURS.get(level, '')}{level}{_RESET}"
        return f"{_DIM}{stamp}{_RESET} [{level}] {rest}{_DIM}{tail[:-1]}{_RESET}\n"


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a console that is not UTF-8, or a lone surrogate
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
