"""Show on a terminal where the time of many runs went, and which hosts are slow in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from foundry_fastlog.base.formatting import format_moment, format_seconds, printable
from foundry_fastlog.fleet.hosts import format_chance
from foundry_fastlog.show.fleet_tables import format_key
from foundry_fastlog.show.goodput import LOOKS
from foundry_fastlog.show.tables import MOST, show_rest, show_row, show_table, table
from foundry_fastlog.show.terminal import plural

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.fleet.goodput import FleetGoodput
    from foundry_fastlog.fleet.hosts import FleetHosts

__all__ = ["show_goodput", "show_goodput_groups", "show_hosts"]


def show_goodput(found: FleetGoodput, console: Console) -> None:
    """Show where the time of runs went, and which lost the most of it.

    Args:
        found: What it is of all runs.
        console: Where it is shown.
    """
    console.print()
    said = f"goodput {_share(found.goodput)} of {format_seconds(found.device_s)} x ranks"
    said += f" in {plural(found.runs, 'run')}"
    said += f", {found.running:,} of which run: until now" if found.running else ""
    console.print(Text(said, "bold"), soft_wrap=True)
    console.print(
        Text(
            f"ETTR {_share(found.ettr)}, {_share(found.runtime_goodput)} without the time between "
            f"starts; {found.steps:,} steps and {found.steps_again:,} again"
        ),
        soft_wrap=True,
    )
    rows = table("", "kind", "time x ranks", "share", "time")
    for kind, seconds in found.device_parts.items():
        if seconds or kind == "step":
            share = _share(seconds / found.device_s if found.device_s else None)
            times = format_seconds(seconds), share, format_seconds(found.parts[kind])
            show_row(rows, LOOKS[kind][0], *times)
    show_table(rows, console)
    if found.worst:
        _show_worst(found, console)
    _show_left_out(found, console)


def _show_worst(found: FleetGoodput, console: Console) -> None:
    rows = table("", "run", "ranks", "lost x ranks", "of all", "goodput")
    losses = []
    for one in found.worst[:MOST]:
        show_row(
            rows,
            printable(one.run),
            f"{one.ranks:,}",
            format_seconds(one.lost_device_s),
            _share(one.lost_device_s / found.device_s),
            _share(one.ideal_device_s / one.device_s),
        )
        losses.append(f"{printable(one.run)}: {_lower(printable(one.largest_loss, 200))}")
    show_table(rows, console, "What ran longer than its steps at their ideal")
    show_rest(len(found.worst), console)
    console.print()
    for loss in losses:
        console.print(Text(loss), soft_wrap=True)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _show_left_out(found: FleetGoodput, console: Console) -> None:
    if found.empty:
        said = f"{plural(len(found.empty), 'run')} not counted: nothing says when they ran"
        console.print(Text(f"note: {said}", "yellow"))
    for name in found.incomplete[:MOST]:
        said = f"{printable(name)}: lines are missing or damaged, measured as far as it can be read"
        console.print(Text(said, "red"))
    show_rest(len(found.incomplete), console)


def show_goodput_groups(groups: Sequence[FleetGoodput], by: str, console: Console) -> None:
    """Show where the time of runs went by what tells them apart."""
    rows = table("", by, "runs", "time x ranks", "goodput", "ETTR", "lost most to")
    for one in groups[:MOST]:
        key = format_key(one.key)
        figures = _share(one.goodput), _share(one.ettr), _most(one.device_parts)
        show_row(rows, key, f"{one.runs:,}", format_seconds(one.device_s), *figures)
    show_table(rows, console, printable(f"Goodput by {by}"))
    show_rest(len(groups), console)


def _most(parts: Mapping[str, float]) -> str:
    """Name what took the most time that did not train."""
    losses = {kind: seconds for kind, seconds in parts.items() if kind != "step" and seconds > 0}
    return LOOKS[max(losses, key=lambda kind: losses[kind])][0] if losses else "-"


def show_hosts(found: FleetHosts, console: Console) -> None:
    """Show which hosts are slow, and how often each was the slowest.

    Args:
        found: What was found.
        console: Where it is shown.
    """
    console.print()
    for sentence in found.sentences[:MOST]:
        console.print(Text(printable(sentence), "bold"), soft_wrap=True)
    show_rest(len(found.suspects), console)
    rows = table(
        "", "host", "runs", "straggler", "slowest", "by chance", "p", "ratio", "lost", "last (UTC)"
    )
    for one in found.hosts[:MOST]:
        show_row(
            rows,
            printable(one.host),
            f"{one.runs:,}",
            f"{one.straggler:,}",
            f"{one.slowest:,}",
            f"{one.expected:.1f}",
            format_chance(one.p_value),
            "-" if one.ratio is None else f"{one.ratio:.2f}",
            format_seconds(one.lost_s),
            format_moment(one.last)[:10],
            style="bold" if one.suspect else "",
        )
    if found.hosts:
        show_table(rows, console, "Hosts over runs of several ranks")
        show_rest(len(found.hosts), console, hint="; --json has them all")
    told = {
        "with one rank": found.single,
        "with all ranks on one host": found.alone,
        "whose hosts have no names": found.unnamed,
        "too short, or whose ranks are all as slow": found.short,
    }
    said = [f"{count:,} {what}" for what, count in told.items() if count]
    compared = f"{plural(found.compared, 'run')} compared"
    console.print(Text(", ".join([compared, *said])), soft_wrap=True)
    for name in found.incomplete[:MOST]:
        said_of = f"{printable(name)}: lines are damaged, compared as far as it can be read"
        console.print(Text(said_of, "red"))
    show_rest(len(found.incomplete), console)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
