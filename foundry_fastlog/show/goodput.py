"""Show on a terminal where the wall time of a run went."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from foundry_fastlog.base.formatting import format_number, format_seconds, printable
from foundry_fastlog.show.palette import COLORS
from foundry_fastlog.show.tables import MOST, show_rest, show_row, show_table, table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.goodput import Goodput

__all__ = ["LOOKS", "render_goodput"]

#: By kind of time: what it is called, its letter in a bar without colours, and its colour; that of
#: steps is green, and what nothing explains is grey.
LOOKS = {
    "step": ("step", "s", COLORS[2]),
    "data": ("data", "d", COLORS[4]),
    "checkpoint": ("checkpoint", "c", COLORS[0]),
    "evaluation": ("evaluation", "e", COLORS[3]),
    "start_up": ("start-up", "u", COLORS[6]),
    "stalls": ("stalls", "X", COLORS[5]),
    "again": ("steps again", "a", COLORS[1]),
    "dead": ("between starts", ".", "#5b6570"),
    "other": ("other", "o", COLORS[7]),
}
_COLUMNS = 60
_UNITS = (("seconds", 1.0), ("ms", 1e-3), ("us", 1e-6))


def render_goodput(found: Goodput, console: Console) -> None:
    """Show a bar of the parts, a table of them, the starts, and what was lost most.

    Args:
        found: What was measured.
        console: Where it is shown.
    """
    head = f"{printable(found.path)}: rank {found.rank}, {format_seconds(found.wall_s)}"
    if len(found.starts) > 1:
        head += f" in {len(found.starts):,} starts"
    if found.running:
        head += ", until now: it is running"
    console.print(Text(head, "bold"), soft_wrap=True)
    console.print(_bar(found, colours=console.color_system is not None and not console.no_color))
    _parts(found, console)
    if len(found.starts) > 1:
        _starts(found, console)
    console.print()
    for line in _figures(found):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(found.largest_loss(), "bold"), soft_wrap=True)
    for note in found.notes[:MOST]:
        console.print(Text(f"note: {printable(note)}", "yellow"), soft_wrap=True)
    show_rest(len(found.notes), console)


def _bar(found: Goodput, *, colours: bool) -> Text:
    """Return a bar of 60 columns; each part has as many of them as it is large."""
    bar, seconds, drawn = Text(), 0.0, 0
    for kind, part in found.parts.items():
        _, letter, color = LOOKS[kind]
        seconds += part
        reached = round(_COLUMNS * seconds / found.wall_s) if found.wall_s else 0
        width, drawn = reached - drawn, reached
        bar.append((" " if colours else letter) * width, f"on {color}" if colours else "")
    return bar


def _parts(found: Goodput, console: Console) -> None:
    unit, each = next((name, s) for name, s in _UNITS if found.wall_s >= s or name == "us")
    rows = table("", "kind", "", unit, "share")
    for kind, seconds in found.parts.items():
        if seconds or kind == "step":
            name, letter, color = LOOKS[kind]
            share = f"{seconds / found.wall_s:.1%}" if found.wall_s else "-"
            coloured = console.color_system is not None and not console.no_color
            mark = Text("  ", f"on {color}") if coloured else Text(letter)
            rows.add_row(Text(name), mark, Text(f"{seconds / each:,.3f}"), Text(share))
    show_table(rows, console)


def _starts(found: Goodput, console: Console) -> None:
    rows = table("", "start", "state", "before", "time", "steps", "again", "start-up", "stalls")
    for one in found.starts[:MOST]:
        times = (one.wall_s, one.parts["start_up"], one.parts["stalls"])
        wall, begun, stalled = map(format_seconds, times)
        counts = f"{one.steps:,}", f"{one.steps_again:,}"
        show_row(
            *(rows, str(one.number), one.state, format_seconds(one.dead_s)),
            *(wall, *counts, begun, stalled),
        )
    show_table(rows, console)
    show_rest(len(found.starts), console, hint="; --json has them all")


def _figures(found: Goodput) -> list[str]:
    if found.goodput is None or found.ideal_step_s is None:
        return ["No step was recorded: there is no goodput."]
    again = f" and {found.steps_again:,} again" if found.steps_again else ""
    ideal = format_seconds(found.ideal_step_s)
    lines = [
        f"goodput {found.goodput:.1%}: {found.steps:,} steps{again}, each {ideal} at its ideal",
        f"ETTR    {found.ettr:.1%}: without start-up, stalls, steps again and time between starts",
    ]
    if (rate := found.throughput) is not None:
        numbers = [format_number(one) for one in (rate.tokens_per_s, rate.ideal_tokens_per_s)]
        lines.append(f"tokens  {numbers[0]}/s, {numbers[1]}/s in ideal steps ({rate.source})")
        if rate.mfu is not None and rate.ideal_mfu is not None:
            devices = "1 device" if rate.devices == 1 else f"{rate.devices:,} devices"
            lines.append(f"MFU     {rate.mfu:.1%}, {rate.ideal_mfu:.1%} in ideal steps ({devices})")
    return lines
