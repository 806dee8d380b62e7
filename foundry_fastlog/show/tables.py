"""Tables on a terminal that fit into 80 columns, whatever their cells say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from foundry_fastlog.show.names import Name

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

__all__ = ["MOST", "show_rest", "show_row", "show_table", "table"]

MOST = 20
"""Rows of a list that can grow without bound."""


def table(title: str, *columns: str) -> Table:
    """Make a table; the first column holds names, the others are aligned to the right."""
    # No frame and narrow gaps: nine columns must fit into 80 characters.
    found = Table(
        title=Text(title) if title else None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    for position, column in enumerate(columns):
        # Fold instead of cutting: an ellipsis is not ASCII, and half a number is misleading.
        # As text: rich would parse a str as markup, and a metric may be called "[/red]".
        found.add_column(Text(column), justify="right" if position else "left", overflow="fold")
    return found


def show_table(found: Table, console: Console, heading: str = "") -> None:
    """Show a table, below an empty line and its title, which may be wider than the table."""
    if isinstance(found.title, Text):  # rich would fold it into the table's width
        heading, found.title = heading or found.title.plain, None
    unlimited = console.options.update(width=10_000)
    if console.measure(found, options=unlimited).maximum > console.width:
        found.padding = (0, 0)  # narrow the gaps before folding anything
    console.print()
    if heading:
        console.print(Text(heading, "bold"), soft_wrap=True)
    console.print(found)


def show_row(found: Table, *cells: str, style: str = "") -> None:
    """Add a row; its first cell is a name, folded between its words."""
    # Not as str: rich would parse it as markup, and a metric may be called "[red]".
    found.add_row(Name(cells[0]), *map(Text, cells[1:]), style=style)


def show_rest(count: int, console: Console, shown: int = MOST, hint: str = "") -> None:
    """Say how many rows there are beyond those that were shown."""
    if count > shown:
        console.print(Text(f"  ... and {count - shown:,} more{hint}", "dim"))
