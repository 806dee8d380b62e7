"""The console: a line for each message, in colours on a terminal."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
import time
from collections import deque
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
from foundry_fastlog.messages.text_writer import in_console_thread

__all__ = ["FORMATS", "ConsoleOutput", "check_console"]

FORMATS = ("line", "block")
_STREAMS = ("stderr", "stdout")

_WAIT_MS = 1000

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

    What a console has not taken is told by its number, once it takes something again.

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
        self._untold = 0  # of them
        self._torn = False  # the last line may have been cut
        self._hung = False  # it has been waited for in vain

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
            terminal = _is_terminal(stream)
            if self.form == "line" or terminal:
                texts = [self._text_of(message, terminal=terminal) for message in messages]
            if told := self._untold:
                texts = [self._notice(told, terminal=terminal), *texts]
            left = 0
            if _refuses(stream):
                left = self._write_patiently(stream, texts)
            else:
                with bars_aside(stream):
                    _write(stream, "".join(texts))
                    with contextlib.suppress(AttributeError):  # a program's own, with write() alone
                        stream.flush()
                self._torn = False
            if left < len(texts):  # the notice comes first
                self._untold -= told
            self._lose(min(left, len(messages)))
        except BaseException as error:  # a closed pipe, a notebook's own stream: ignored
            self._lose(len(messages))
            self._torn = isinstance(error, BlockingIOError)
            if not isinstance(error, Exception):
                raise

    def _lose(self, count: int) -> None:
        self.errors += count
        self._untold += count

    def _notice(self, count: int, *, terminal: bool) -> str:
        text = f"messages missing here: {count}. The console did not take them."
        parts: Message = (time.time(), logging.WARNING, "foundry_fastlog", text, {}, "")
        return "\n" * self._torn + self._text_of(parts, terminal=terminal)

    def _write_patiently(self, stream: TextIO, texts: Sequence[str]) -> int:
        """Write to a stream that refuses instead of making wait; return how many texts are left."""
        encoding = stream.encoding
        waiting = deque(text.encode(encoding, "backslashreplace") for text in texts)
        with bars_aside(stream):  # but never wait for the stream while threads wait for the bars
            self._send(stream, waiting)
        while waiting and self._wait(stream):
            self._send(stream, waiting)
        return len(waiting)

    def _send(self, stream: TextIO, waiting: deque[bytes]) -> None:
        """Write what a stream takes now, one by one: a short line goes as a whole or not at all."""
        with contextlib.suppress(BlockingIOError):
            while waiting:
                stream.flush()  # what the program has printed
                taken = os.write(stream.fileno(), waiting[0])
                self._hung = False
                self._torn = taken < len(waiting[0])
                if self._torn:
                    waiting[0] = waiting[0][taken:]
                else:
                    waiting.popleft()

    def _wait(self, stream: TextIO) -> bool:
        """Wait until a stream takes something: other threads than the console's briefly, once."""
        patient = in_console_thread()
        if self._hung and not patient:
            return False
        asked = select.poll()
        asked.register(stream.fileno(), select.POLLOUT)
        self._hung = not asked.poll(None if patient else _WAIT_MS)
        return not self._hung

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


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except Exception:  # noqa: BLE001 - of a program's own class, which may have no such method
        return False


def _refuses(stream: TextIO) -> bool:
    """Whether a stream's descriptor does not block: node, ssh and asyncio set a terminal so."""
    if getattr(type(stream), "write", None) is not io.TextIOWrapper.write:
        return False  # of the program's own class: what it does with a text is unknown
    try:
        return not os.get_blocking(stream.fileno())
    except (OSError, ValueError):  # without a descriptor, or closed
        return False
