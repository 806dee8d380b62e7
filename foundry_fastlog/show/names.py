"""Names in tables, folded between their words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.measure import Measurement
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

__all__ = ["Name"]

_WORD = re.compile(r"[^/._:\-\s]*[/._:\-\s]*")


class Name:
    """A name of words such as ``train/layer_3.weight``: rich folds text between spaces only.

    Args:
        name: The name, printable.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._words = _WORD.findall(name)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Say how wide it may be, and must be to keep its words whole."""
        widest = max(map(cell_len, self._words), default=0)
        return Measurement(widest, cell_len(self._name)).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give its lines; a word that is wider than they are is folded anywhere."""
        width = max(1, options.max_width)
        line = ""
        for word in self._words:
            if line and cell_len(line + word.rstrip()) > width:
                yield Text(line.rstrip())
                line = ""
            line += word
            if cell_len(line.rstrip()) > width:
                *whole, rest = Text(line).wrap(console, width, overflow="fold")
                yield from whole
                line = rest.plain
        yield Text(line)
