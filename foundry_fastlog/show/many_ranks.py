"""A summary of a run with many ranks: a row for each start and stream, not for each process."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from foundry_fastlog.analysis.rank_results import numbers_said
from foundry_fastlog.base.formatting import format_bytes, format_moment, format_seconds
from foundry_fastlog.show.tables import show_row, show_table, table

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.summary import AttemptSummary, Summary
    from foundry_fastlog.run.checks import SeriesCheck

__all__ = ["FEW", "render_starts_of_ranks", "render_streams"]

FEW = 8
"""Processes that are shown one by one."""


def render_starts_of_ranks(summary: Summary, console: Console) -> None:
    """Show which ranks each start had, and how far they came."""
    found: dict[int, list[AttemptSummary]] = defaultdict(list)
    for attempt in summary.attempts:
        found[attempt.attempt].append(attempt)
    columns = ("ranks", "processes", "first step", "last step", "lines", "first line", "time")
    shown = table("Processes", "start", *columns)
    for start, ones in sorted(found.items()):
        began = min((one.first for one in ones if one.first), default="")
        show_row(
            shown,
            str(start),
            numbers_said(tuple(sorted({one.rank for one in ones}))),
            f"{len(ones):,}",
            _span([one.first_step for one in ones]),
            _span([one.last_step for one in ones]),
            f"{sum(sum(one.lines.values()) for one in ones):,}",
            format_moment(began) or "-",
            format_seconds(max(one.wall_s for one in ones)),
        )
    show_table(shown, console)


def _span(steps: list[int | None]) -> str:
    """Return the step at which all were, or from which to which they were."""
    known = [step for step in steps if step is not None]
    if not known:
        return "-"
    low, high = min(known), max(known)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def render_streams(summary: Summary, console: Console) -> None:
    """Show the files of each stream together, and how many of its series are not complete."""
    found: dict[str, list[SeriesCheck]] = defaultdict(list)
    for check in summary.checks:
        found[check.series.stream].append(check)
    shown = table("Files", "stream", "processes", "files", "lines", "size", "complete")
    for stream, checks in found.items():
        broken = sum(not check.complete for check in checks)
        show_row(
            shown,
            stream,
            f"{len(checks):,}",
            f"{sum(len(check.series.segments) for check in checks):,}",
            f"{sum(check.lines for check in checks):,}",
            format_bytes(sum(check.series.size for check in checks)),
            f"all but {broken:,}" if broken else "all",
            style="red" if broken else "",
        )
    show_table(shown, console)
