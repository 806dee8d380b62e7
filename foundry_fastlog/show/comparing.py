"""Show a comparison of runs on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from foundry_fastlog.analysis.where_values import ABSENT
from foundry_fastlog.base.formatting import format_number, format_seconds, printable
from foundry_fastlog.show.looks import enough
from foundry_fastlog.show.tables import show_rest, show_row, show_table, table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.compare import Comparison
    from foundry_fastlog.analysis.exact import Difference

__all__ = ["render_comparison"]

_MOST_RUNS = 5  # columns
_MOST_ROWS = 12
"""Rows of a table; metrics and blocks beyond are named."""


def render_comparison(found: Comparison, console: Console, most: int = _MOST_ROWS) -> None:
    """Show the runs, what they differ in, their metrics side by side, and their timings.

    Args:
        found: The comparison.
        console: Where it is shown.
        most: How many rows a table has at most.
    """
    names = [printable(run.name, 20) for run in found.runs]
    _runs(found, console)
    _config(found, names, console, most)
    _metrics(found, names, console, most)
    _differences(found, console, most)
    _timings(found, names, console, most)
    if len(found.runs) > _MOST_RUNS:
        rest = enough((run.name for run in found.runs[_MOST_RUNS:]), 6)
        console.print(Text(f"\ncolumns of {rest} are not shown; --json has them", "dim"))


def _runs(found: Comparison, console: Console) -> None:
    rows = table("", "run", "state", "starts", "ranks", "code", "complete")
    for run in found.runs:
        style = "" if run.complete else "yellow"
        complete = "yes" if run.complete else "NO"
        counts = f"{run.starts:,}", f"{len(run.ranks):,}"
        cells = (run.state, *counts, run.code[:7] or "-", complete)
        show_row(rows, printable(run.name), *cells, style=style)
    show_table(rows, console, "Runs")


def _config(found: Comparison, names: list[str], console: Console, most: int) -> None:
    if not found.config:
        console.print(Text("\nConfiguration: the same", "bold"))
        return
    rows = table("", "setting", *names[:_MOST_RUNS])
    for name, values in list(found.config.items())[:most]:
        show_row(rows, printable(name), *map(_setting, values[:_MOST_RUNS]))
    show_table(rows, console, "Configuration: what differs")
    show_rest(len(found.config), console, most, "; --json has them all")


def _setting(value: object) -> str:
    if value is ABSENT:
        return "-"
    return printable(value if isinstance(value, str) else repr(value), 24)


def _metrics(found: Comparison, names: list[str], console: Console, most: int) -> None:
    if not found.metrics:
        return
    rows = table("", "metric", "", *names[:_MOST_RUNS])
    for one in found.metrics[: max(1, most // 2)]:
        places = zip(one.best, one.best_step, strict=True)
        best = [_at(value, step) for value, step in places]
        name = printable(one.name) + (" (by epoch)" if one.unit == "epoch" else "")
        show_row(rows, name, "last", *map(format_number, one.final[:_MOST_RUNS]))
        show_row(rows, "", "max" if one.more_is_better else "min", *best[:_MOST_RUNS])
        if one.area_steps > 1:
            show_row(rows, "", "area", *map(format_number, one.area[:_MOST_RUNS]))
    show_table(rows, console, "Metrics")
    shown = max(1, most // 2)
    show_rest(len(found.metrics), console, shown, "; -m 'PATTERN' shows those that fit")
    text = "min or max: the best value, as the name says, or --max; area: over common steps"
    console.print(Text(text, "dim"))


def _at(value: float | None, step: float | None) -> str:
    return "-" if value is None else f"{format_number(value)} @{step}"


def _differences(found: Comparison, console: Console, most: int) -> None:
    ranked = len({one.rank for one in found.differences}) > 1
    for run in found.runs[1:]:
        mine = [one for one in found.differences if one.run == run.name]
        names = [printable(one.name, 40) for one in (found.runs[0], run)]
        common = sum(one.common for one in mine)
        if all(one.same for one in mine):
            console.print()
            text = f"{names[0]} and {names[1]}: bit for bit the same ({common:,} values)"
            console.print(Text(text, "green"), soft_wrap=True)
            continue
        first = found.first_difference(run.name)
        where = "common values agree" if first is None else f"first at {_place(first)}"
        columns = ["rank"] if ranked else []
        title = f"Where A = {names[0]} and B = {names[1]} differ: {where}"
        columns += ["first", "A", "B", "differ"]
        only = any(one.only_first or one.only_other for one in mine)
        rows = table("", "metric", *columns, *(["A only", "B only"] if only else []))
        for one in sorted(mine, key=_order)[:most]:
            rank = [str(one.rank)] if ranked else []
            style = "" if one.same else "yellow"
            show_row(rows, printable(one.metric), *rank, *_cells(one, only=only), style=style)
        show_table(rows, console, title)
        show_rest(len(mine), console, most, "; --json has them all")


def _order(one: Difference) -> tuple[bool, float]:
    return one.same, float("inf") if one.first_step is None else one.first_step


def _place(one: Difference) -> str:
    return f"{one.unit} {one.first_step:,}"


def _cells(one: Difference, *, only: bool) -> list[str]:
    """Return the step, both values, and how many values and steps are not in both."""
    values = ["-", "-"] if one.values is None else [_exact(value) for value in one.values]
    first = "-" if one.first_step is None else f"{one.first_step:,}"
    cells = [first, *values, f"{one.differing:,} of {one.common:,}"]
    if only:
        for count, step in (
            (one.only_first, one.only_first_step),
            (one.only_other, one.only_other_step),
        ):
            cells.append(f"{count:,} from {step:,}" if count else "-")
    return cells


def _exact(value: Any) -> str:  # noqa: ANN401 - any value
    """Write a value with all its digits: two that differ look different."""
    return printable(str(value), 26)


def _timings(found: Comparison, names: list[str], console: Console, most: int) -> None:
    if not found.timings:
        return
    title = "Timings: the median, and how many times that of the first run"
    rows = table("", "block", *names[:_MOST_RUNS])
    for one in found.timings[:most]:
        pairs = enumerate(zip(one.p50_s, one.p50_ratio, strict=True))
        cells = [_timing(*pair, first=not number) for number, pair in pairs]
        show_row(rows, printable(one.name), *cells[:_MOST_RUNS])
    show_table(rows, console, title)
    show_rest(len(found.timings), console, most, "; --json has them, and the means")


def _timing(seconds: float | None, ratio: float | None, *, first: bool) -> str:
    if seconds is None:
        return "-"
    return format_seconds(seconds) + ("" if first or ratio is None else f" ({ratio:.2f}x)")
