"""The console: colours through rich on a terminal, plain lines otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from foundry_fastlog.messages.text_lines import Message, details_of, head_of

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ConsoleOutput"]

_STYLES = {
    "DEBUG": "dim",
    "INFO": "green",
    "WARNING": "yellow",
    "ERROR": "bold red",
    "CRITICAL": "bold white on red",
}


class ConsoleOutput:
    """Writes to the current `sys.stdout` or `sys.stderr`, which programs and notebooks replace.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        errors: Messages that could not be written.
    """

    def __init__(self, stream: str = "stdout") -> None:
        """Store the stream's name."""
        self.stream = stream
        self.errors = 0
        self._coloured: tuple[TextIO, Console] | None = None

    def write(self, messages: Sequence[Message], texts: Sequence[str]) -> None:
        """Write messages; a console that is gone is not reported.

        Args:
            messages: The messages, for colours.
            texts: The same messages as text.
        """
        stream: TextIO | None = getattr(sys, self.stream, None)
        if stream is None:  # a program without a console, such as pythonw
            return
        try:
            console = self._console(stream)
            if console is None:
                _write_plain(stream, "".join(texts))
            else:
                _write_coloured(console, messages)
            stream.flush()
        except Exception:  # noqa: BLE001 - a closed pipe, a notebook's own stream: ignored
            self.errors += len(messages)

    def _console(self, stream: TextIO) -> Console | None:
        """Return rich's console for a stream, or None if lines should be plain."""
        known = self._coloured
        if known is not None and known[0] is stream:
            return known[1]
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
            return None
        try:
            from rich.console import Console
        except (ImportError, OSError):  # not installed, or no free descriptor to load it
            return None
        console = Console(file=stream, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self._coloured = (stream, console)
        return console


def _write_plain(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a console that is not UTF-8, or a lone surrogate
        encoding = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def _write_coloured(console: Console, messages: Sequence[Message]) -> None:
    from rich.text import Text  # installed, as its console exists

    text = Text()
    for message in messages:
        stamp, level, rest = head_of(message)
        text.append(stamp, "dim").append(" [").append(level, _STYLES.get(level, ""))
        text.append(f"] {_printable(rest)}\n").append(_printable(details_of(message)), "dim")
    console.print(text, end="")


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
