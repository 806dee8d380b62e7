"""Show many runs on a terminal: what they come to, what went wrong, which are the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from foundry_fastlog.base.formatting import (
    format_bytes,
    format_moment,
    format_seconds,
    format_value,
    printable,
)
from foundry_fastlog.fleet.totals import best_value
from foundry_fastlog.show.tables import MOST, show_rest, show_row, show_table, table
from foundry_fastlog.show.terminal import plural

if TYPE_CHECKING:  # the caller passes in the objects
    from rich.console import Console

    from foundry_fastlog.analysis.runs import Runs
    from foundry_fastlog.fleet.compaction import Compacted
    from foundry_fastlog.fleet.failures import Failure
    from foundry_fastlog.fleet.totals import Totals

__all__ = [
    "format_key",
    "show_best",
    "show_compacted",
    "show_failures",
    "show_groups",
    "show_totals",
    "show_unreadable",
]


def show_totals(totals: Totals, console: Console) -> None:
    """Show what runs come to together."""
    said = ", ".join(f"{count:,} {state}" for state, count in totals.states.items())
    console.print(Text(f"{plural(totals.runs, 'run')}: {said}" if said else "no run"))
    console.print(
        Text(
            f"{format_seconds(totals.duration_s)} of training, {totals.steps:,} steps, "
            f"{format_bytes(totals.bytes)}"
        )
    )


def show_groups(groups: Sequence[Totals], by: str, metric: str | None, console: Console) -> None:
    """Show runs by what tells them apart."""
    values = ("mean", "std", "min", "max") if metric is not None else ()
    found = table("", by, "runs", "ended", "time", "steps", *values)
    for one in groups[:MOST]:
        key = format_key(one.key)
        figures = [format_value(one.metric[name]) for name in values]
        ended = f"{one.states.get('ended', 0):,}"
        time = format_seconds(one.duration_s)
        show_row(found, key, f"{one.runs:,}", ended, time, f"{one.steps:,}", *figures)
    heading = f"By {by}" if metric is None else f"By {by}, with the last {metric}"
    show_table(found, console, printable(heading))
    show_rest(len(groups), console)


def format_key(key: Any) -> str:  # noqa: ANN401 - any JSON
    """Return what runs have in common so that no two groups look alike."""
    if key is None:
        return "-"
    if isinstance(key, bool) or not isinstance(key, (int, float)):
        return printable(format_value(key) if isinstance(key, bool) else str(key), 40)
    return f"{key:,}" if isinstance(key, int) else f"{key:,.15g}"


def show_failures(failures: Sequence[Failure], console: Console) -> None:
    """Show what went wrong, equal errors together."""
    found = table("", "failure", "runs", "ended", "errors", "last (UTC)")
    for one in failures[:MOST]:
        kind = one.error_type or one.event
        name = f"{kind}: {one.message}" if kind and one.message else kind or one.message
        show_row(
            found,
            printable(name, 100),
            f"{len(one.runs):,}",
            f"{one.ended:,}",
            f"{one.count:,}",
            format_moment(one.last),
        )
    show_table(found, console, "Failures")
    show_rest(len(failures), console)


def show_best(runs: Runs, metric: str, console: Console) -> None:
    """Show the runs with the best values of a metric."""
    found = table("", "run", "state", "step", "best", "last")
    for run in runs:
        last = run.look_up("last").get(metric)
        show_row(
            found,
            printable(run.run),
            run.state,
            "-" if run.step is None else f"{run.step:,}",
            format_value(best_value(run, metric)),
            format_value(last),
        )
    show_table(found, console, f"Best {printable(metric)}")


def show_unreadable(unreadable: Mapping[str, str], console: Console) -> None:
    """Name runs that cannot be read, and say why."""
    for run, reason in list(unreadable.items())[:MOST]:
        console.print(Text(f"{printable(run)}: {printable(reason, 200)}", "red"))
    show_rest(len(unreadable), console)


def show_compacted(done: Compacted, console: Console) -> None:
    """Show what a compaction came to."""
    rows = ", ".join(f"{count:,} {stream}" for stream, count in done.rows.items()) or "none"
    console.print(
        Text(
            f"{done.path}: {plural(done.runs, 'run')} in {plural(done.files, 'file')}, "
            f"{format_bytes(done.bytes)}; rows: {rows}"
        ),
        soft_wrap=True,
    )
    said = [f"{done.written:,} written", f"{done.unchanged:,} unchanged"]
    said += [f"{count:,} left out: {state}" for state, count in done.left_out.items()]
    console.print(Text(", ".join(said)))
    bad = [f"{run}: {reason}" for run, reason in done.failed.items()]
    bad += [f"{run}: damaged, written as far as it can be read" for run in done.incomplete]
    for text in bad[:MOST]:
        console.print(Text(printable(text, 200), "red"))
    show_rest(len(bad), console)
    for note in done.notes[:MOST]:
        console.print(Text(f"note: {printable(note, 200)}", "yellow"))
    show_rest(len(done.notes), console)
