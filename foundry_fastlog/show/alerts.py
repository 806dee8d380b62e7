"""An alert of a watch as text: a line, and for a spike the records that led there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from foundry_fastlog.base.formatting import format_moment, format_value, printable

if TYPE_CHECKING:
    from rich.console import Console

    from foundry_fastlog.analysis.alerts import Alert

__all__ = ["render_alert"]


def render_alert(alert: Alert, console: Console) -> None:
    """Show an alert."""
    text = Text(f"{format_moment(alert.timestamp)} ", "dim").append(f"{alert.kind} ", "bold red")
    console.print(text.append(alert.message), soft_wrap=True)
    if not alert.led_there:
        return
    names = list(dict.fromkeys(name for record in alert.led_there for name in record))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in names:
        table.add_column(Text(printable(name, 24)), justify="right", overflow="fold")
    for record in alert.led_there:
        table.add_row(*(Text(format_value(record[n]) if n in record else "") for n in names))
    console.print(table)
