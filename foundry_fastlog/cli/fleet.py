"""The command ``foundry-fastlog fleet``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.arguments import Stream
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json

if TYPE_CHECKING:
    from foundry_fastlog.fleet import Fleet
    from foundry_fastlog.fleet.crew import Progress

__all__ = ["EPILOG", "fleet"]

EPILOG = (
    "**Example:** `foundry-fastlog fleet runs --metric val_loss --by config.lr`  \n"
    "**A dataset of all that ended:** `foundry-fastlog fleet runs --compact dataset`  \n"
    "**On a cluster:** `foundry-fastlog fleet /shared/runs --scheduler tcp://head:8786`  \n"
    "**Exit codes:** 0 done, 1 a run cannot be read or is damaged, 2 no run, no cluster, or a "
    "wrong option."
)


@graceful
def fleet(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to look for runs, at any depth.")
    ],
    *,
    compact: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write runs that ended into a Parquet dataset here."),
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", "-m", metavar="NAME", help="Show the best runs by it.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(metavar="EXPRESSION", help="Add up runs by a value such as config.lr."),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", "-w", metavar="EXPRESSION", help="Only runs of which it is true."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many best runs.")] = 10,
    stream: Annotated[
        list[Stream] | None,
        typer.Option(
            "--stream", "-s", metavar="STREAM", help="With --compact: only this; may be repeated."
        ),
    ] = None,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown", help="With --compact: also runs that nobody knows to have ended."
        ),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler; without it, workers start here."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many workers start here; one per core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Look at thousands of runs at once: states, failures, best runs; or compact them.

    Runs that did not change are not read again. Names in expressions are those of `runs`.
    """
    from foundry_fastlog.analysis.where import WhereError
    from foundry_fastlog.fleet import Fleet, FleetError

    if compact is None and (stream or unknown):
        raise fail("--stream and --unknown are for --compact OUT")
    with _bar("reading" if compact is None else "compacting") as progress:
        opened = read_or_fail(
            directory,
            lambda path: Fleet(path, scheduler, workers=workers, where=where, progress=progress),
        )
        try:
            with opened:
                if compact is None:
                    show = _look(opened, metric, by, limit)
                else:
                    show = _compact(opened, compact, stream, unknown=unknown)
        except (FleetError, WhereError) as error:
            raise fail(str(error)) from None
    if not show(as_json=as_json):
        raise typer.Exit(PROBLEM)


class _Show(Protocol):
    """Prints a result; says whether all is well."""

    def __call__(self, *, as_json: bool) -> bool: ...


def _look(opened: Fleet, metric: str | None, by: str | None, limit: int) -> _Show:
    runs, failures = opened.runs(), opened.failures()
    if not opened.rows:
        raise fail(f"there is no run below {opened.path}")
    (totals,) = opened.totals(metric=metric)
    groups = [] if by is None else opened.totals(by, metric)
    best = None if metric is None else opened.best(metric, limit)
    for note in runs.notes:
        tell(note)
    if best is not None and not best and runs:
        near = get_close_matches(metric or "", runs.metric_names(), 8, 0) or ["none"]
        tell(f"no run has numbers of {metric}; there are: {', '.join(near)}")
    unreadable = [run for run in runs if run.state == "unreadable"]

    def show(*, as_json: bool) -> bool:
        from foundry_fastlog.show import fleet_tables

        if as_json:
            said: dict[str, Any] = {"totals": totals.to_dict()}
            said |= {} if by is None else {"by": [group.to_dict() for group in groups]}
            said["failures"] = [failure.to_dict() for failure in failures]
            said |= {} if best is None else {"best": [run.to_dict() for run in best]}
            said["unreadable"] = {run.run: run.error for run in unreadable}
            write_json(to_json(said))
            return not unreadable
        console = Console(highlight=False)
        fleet_tables.show_totals(totals, console)
        if by is not None:
            fleet_tables.show_groups(groups, by, metric, console)
        if failures:
            fleet_tables.show_failures(failures, console)
        if best and metric is not None:
            fleet_tables.show_best(best, metric, console)
        fleet_tables.show_unreadable(unreadable, console)
        return not unreadable

    return show


def _compact(opened: Fleet, out: Path, streams: list[Stream] | None, *, unknown: bool) -> _Show:
    from foundry_fastlog.fleet.compaction import CLOSED

    done = opened.compact(
        out,
        streams=[one.value for one in streams or Stream],
        states=(*CLOSED, *["unknown"] * unknown),
    )

    def show(*, as_json: bool) -> bool:
        from foundry_fastlog.show.fleet_tables import show_compacted

        if as_json:
            write_json(to_json(done.to_dict()))
        else:
            show_compacted(done, Console(highlight=False))
        return done.complete

    return show


@contextmanager
def _bar(title: str) -> Iterator[Progress]:
    """Show on a terminal how much is done; the bar goes when all is."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
