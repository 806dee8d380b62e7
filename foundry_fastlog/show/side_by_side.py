"""Show summaries side by side on a terminal: metrics as rows, runs or ranks as columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from foundry_fastlog.analysis.run_summary import state_of
from foundry_fastlog.base.formatting import format_seconds, format_value, printable
from foundry_fastlog.show.tables import MOST, show_rest, show_row, show_table, table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.summary import Summary

__all__ = ["render_side_by_side"]

_LEAST_HEADING = 12  # longer ones are folded
_MOST_NAMES = 20  # of columns that do not fit


def render_side_by_side(
    headings: Sequence[str],
    summaries: Sequence[Summary],
    console: Console,
    *,
    what: str = "runs",
    most: int = MOST,
) -> None:
    """Show summaries side by side, as many as fit; the others are named.

    Args:
        headings: What each is called.
        summaries: The summaries.
        console: Where to.
        what: What they are of: ``runs`` or ``ranks``.
        most: How many metrics at most.
    """
    names = list(dict.fromkeys(stats.name for one in summaries for stats in one.metrics))
    shown = names[:most]
    facts = _RUN_FACTS if what == "runs" else _RANK_FACTS
    columns = [
        [*(fact(one) for _, fact in facts), *(_last(one, name) for name in shown)]
        for one in summaries
    ]
    rows = [*(name for name, _ in facts), *map(printable, shown)]
    count = _fitting(headings, columns, max(map(cell_len, rows)), console.width)
    drawn = table("Last values", "", *map(printable, headings[:count]))
    for place, name in enumerate(rows):
        show_row(drawn, name, *(column[place] for column in columns[:count]))
    show_table(drawn, console)
    show_rest(len(names), console, len(shown), " metrics; -m 'PATTERN' shows those that fit")
    if left := headings[count:]:
        more = f" and {len(left) - _MOST_NAMES:,} more" if len(left) > _MOST_NAMES else ""
        listed = ", ".join(printable(name, 60) for name in left[:_MOST_NAMES])
        note = f"{what} that do not fit: {listed}{more}; --json has them all"
        console.print(Text(note, "dim"), soft_wrap=True)


def _fitting(headings: Sequence[str], columns: Sequence[list[str]], first: int, width: int) -> int:
    """Return how many columns fit, at least one."""
    used = min(first, width // 2)
    for place, (heading, column) in enumerate(zip(headings, columns, strict=True)):
        used += 2 + max(min(cell_len(heading), _LEAST_HEADING), *map(cell_len, column))
        if used > width and place:
            return place
    return len(columns)


def _last(summary: Summary, name: str) -> str:
    stats = summary.metric(name)
    return "-" if stats is None else format_value(stats.last)


def _steps(summary: Summary) -> str:
    if summary.first_step is None or summary.last_step is None:
        return "-"
    return f"{summary.first_step:,} to {summary.last_step:,}"


def _complete(summary: Summary) -> str:
    return "yes" if summary.complete else "NO"


_Fact = tuple[str, Callable[["Summary"], str]]
_RUN_FACTS: tuple[_Fact, ...] = (
    ("state", lambda one: state_of(one.starts)),
    ("steps", _steps),
    ("time", lambda one: format_seconds(one.wall_s)),
    ("starts", lambda one: f"{len(one.starts):,}"),
    ("ranks", lambda one: f"{len(one.ranks):,}"),
    ("errors", lambda one: f"{sum(one.errors_by_type.values()):,}"),
    ("complete", _complete),
)
_RANK_FACTS = tuple(fact for fact in _RUN_FACTS if fact[0] not in ("state", "starts", "ranks"))
