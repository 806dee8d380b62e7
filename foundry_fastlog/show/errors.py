"""Show the errors of a run on a terminal: equal ones together, with a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from foundry_fastlog.base.formatting import format_moment, printable
from foundry_fastlog.show.tables import MOST, show_rest

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.error_groups import ErrorGroup

__all__ = ["render_errors"]

_MOST_UNFOLDED, _MOST_LINES = 3, 12
_MOST_RANKS = 8


def render_errors(groups: list[ErrorGroup], console: Console, *, limit: int | None = None) -> None:
    """Show groups of errors: each with how often, when and where, the first with a traceback.

    Args:
        groups: The groups.
        console: Where to.
        limit: How many at most; 0 for all, with whole tracebacks; None for what fits on a screen.
    """
    most = MOST if limit is None else limit or len(groups)
    for place, group in enumerate(groups[:most]):
        _one(group, console)
        if group.traceback and (limit == 0 or place < _MOST_UNFOLDED):
            _traceback(group.traceback, console, 0 if limit == 0 else _MOST_LINES)
    total = sum(group.count for group in groups)
    kinds = f"{len(groups):,} {'kind' if len(groups) == 1 else 'kinds'}"
    console.print(Text(f"{total:,} {'error' if total == 1 else 'errors'} of {kinds}"))
    show_rest(len(groups), console, most, "; --limit 0 shows all, with whole tracebacks")


def _one(group: ErrorGroup, console: Console) -> None:
    kind = group.error_type or group.event or group.level
    text = Text(f"{group.count:,} x ", "bold").append(printable(kind), "red")
    message = group.message.removeprefix(f"{group.error_type}: ")
    text.append(f": {printable(message, 300)}")
    console.print(text)
    when = format_moment(group.first)
    if group.count > 1:
        when = f"{when} to {format_moment(group.last)}"
    steps = ""
    if group.first_step is not None:
        one = group.first_step == group.last_step
        steps = f", step {group.first_step:,}" if one else _steps(group)
    shown = ", ".join(map(str, group.ranks[:_MOST_RANKS]))
    more = f" and {len(group.ranks) - _MOST_RANKS:,} more" if len(group.ranks) > _MOST_RANKS else ""
    ranks = f", {'rank' if len(group.ranks) == 1 else 'ranks'} {shown}{more}"
    logger = f", {printable(group.logger, 40)}" if group.logger else ""
    console.print(Text(f"  {when}{steps}{ranks}{logger}", "dim"))


def _steps(group: ErrorGroup) -> str:
    return f", steps {group.first_step:,} to {group.last_step:,}"


def _traceback(text: str, console: Console, most: int) -> None:
    lines = text.rstrip().split("\n")
    if most and len(lines) > most:
        console.print(Text(f"    ... {len(lines) - most:,} lines above", "dim"))
        lines = lines[-most:]
    for line in lines:
        console.print(Text(f"    {printable(line)}"), soft_wrap=True)
