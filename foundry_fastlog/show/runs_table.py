"""Show runs on a terminal: one row each, as many columns as fit."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

from foundry_fastlog.analysis.runs import show_cell
from foundry_fastlog.base.formatting import printable
from foundry_fastlog.show.names import Name
from foundry_fastlog.show.tables import table
from foundry_fastlog.show.terminal import plural

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.run_summary import RunSummary
    from foundry_fastlog.analysis.runs import Runs

__all__ = ["Column", "default_columns", "render_runs"]

#: An expression, and its heading.
Column = tuple[str, str]

_STATE_STYLES = {
    "running": "cyan",
    "stalled": "yellow",
    "ended": "green",
    "failed": "red",
    "killed": "magenta",
    "unreadable": "bold red",
}
_NAMES = {"run", "path", "name", "error"}  # are folded
_LEAST_NAME = 32
_TEXTS = {"run", "path", "name", "state", "error", "started", "ended", "host", "git"}


def default_columns(runs: Runs, metrics: list[Column]) -> tuple[list[Column], list[Column]]:
    """Return the columns of a table that are always there, and those that are where they fit.

    Args:
        runs: The runs of the table.
        metrics: The columns of metrics, which always are.
    """
    fixed = [("run", "run"), ("state", "state")]
    if any(run.name != run.path.resolve().name for run in runs):
        fixed.insert(1, ("name", "name"))
    if any(run.complete is not None for run in runs):
        fixed.append(("complete", "complete"))
    fixed += [("duration", "time"), ("step", "step"), *metrics]
    more = [("started", "started (UTC)")]
    if any(run.starts > 1 for run in runs):
        more.append(("starts", "starts"))
    taken = {heading for _, heading in (*fixed, *more)}
    more += [
        (f"config.`{key}`", key if key not in taken else f"config.{key}")
        for key in runs.differing_keys()
        if "`" not in key
    ]
    return fixed, more


def render_runs(
    runs: Runs,
    columns: list[Column],
    more: list[Column],
    console: Console,
    *,
    limit: int | None = None,
) -> None:
    """Show a table of runs.

    Args:
        runs: The runs.
        columns: What is shown of each.
        more: What is shown, too, from the first on, as far as it fits.
        console: Where to.
        limit: How many runs at most; None for as many as a screen has, or 20 without one.
    """
    if limit is None:
        limit = max(5, console.height - 6) if console.is_terminal else 20
    shown = runs[: limit or len(runs)]
    cells = [_cells(shown, column) for column in columns]
    left_out: list[str] = []
    for column in more:
        added = _cells(shown, column)
        if left_out or _width([*cells, added]) > console.width:
            left_out.append(column[0].replace("`", ""))
        else:
            cells.append(added)
            columns = [*columns, column]
    drawn = table("", *(printable(heading) for _, heading in columns))
    for shape, (expression, _) in zip(drawn.columns, columns, strict=True):
        shape.justify = "left" if expression in _TEXTS else "right"
        shape.no_wrap = expression not in _NAMES
    for place, run in enumerate(shown):
        row: list[Text | Name] = []
        for (expression, _), texts in zip(columns, cells, strict=True):
            text = texts[place + 1]
            named = expression in _NAMES
            row.append(Name(text) if named else Text(text, _style(expression, run)))
        drawn.add_row(*row)
    drawn.columns[0].min_width = min(_LEAST_NAME // 2, max(map(cell_len, cells[0])))
    if _width(cells) > console.width:
        drawn.padding = (0, 0)
    console.print(drawn)
    _foot(runs, len(shown), left_out, console)


def _cells(runs: Runs, column: Column) -> list[str]:
    """Return the heading of a column and what is below it."""
    expression, heading = column
    values = runs.column(expression)
    if expression == "state":
        return [heading, *map(_state, runs)]
    return [heading, *(show_cell(expression, value) for value in values)]


def _state(run: RunSummary) -> str:
    """Say what a run is, and which error it failed with, in a word."""
    kind = printable(run.error.partition(":")[0], 24)
    return f"{run.state} {kind}" if kind and run.state == "failed" else run.state


def _style(expression: str, run: RunSummary) -> str:
    return _STATE_STYLES.get(run.state, "") if expression == "state" else ""


def _width(cells: list[list[str]]) -> int:
    """Return how wide a table is at least whose names are folded."""
    widths = [max(map(cell_len, column)) for column in cells]
    return sum(widths) - widths[0] + min(widths[0], _LEAST_NAME) + 2 * len(widths)


def _foot(runs: Runs, shown: int, left_out: list[str], console: Console) -> None:
    states = Counter(run.state for run in runs)
    said = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    console.print(Text(f"{plural(len(runs), 'run')}: {said}" if runs else "no run"))
    if len(runs) > shown:
        text = f"... and {len(runs) - shown:,} more; --limit 0 shows all"
        console.print(Text(text, "dim"), soft_wrap=True)
    if left_out:
        names = ", ".join(printable(name, 40) for name in left_out[:6])
        more = f" and {len(left_out) - 6:,} more" if len(left_out) > 6 else ""
        console.print(Text(f"not shown: {names}{more} (--columns)", "dim"), soft_wrap=True)
