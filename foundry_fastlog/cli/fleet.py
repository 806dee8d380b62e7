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
    "**Where device time went, and slow hosts:** `foundry-fastlog fleet runs --goodput --hosts`  \n"
    "**On a cluster:** `foundry-fastlog fleet /shared/runs --scheduler tcp://head:8786`  \n"
    "**Exit codes:** 0 done, 1 a run cannot be read, or is damaged where all of it is needed "
    "(`--goodput`, `--hosts`, `--compact`), 2 no run, no cluster, or a wrong option."
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
    goodput: Annotated[
        bool,
        typer.Option("--goodput", help="Show where the time went, weighted by ranks; and by --by."),
    ] = False,
    hosts: Annotated[
        bool, typer.Option("--hosts", help="Show which hosts are slow in many runs.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="How many best, or worst, runs.")
    ] = 10,
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
    """Look at thousands of runs at once: failures, best runs, goodput, hosts; or compact them.

    Runs that did not change are not read again. Names in expressions are those of `runs`.
    """
    from foundry_fastlog.analysis.where import WhereError
    from foundry_fastlog.fleet import Fleet, FleetError

    if compact is None and (stream or unknown):
        raise fail("--stream and --unknown are for --compact OUT")
    if compact is not None and (goodput or hosts):
        raise fail("--goodput and --hosts show something, and --compact does not: run it by itself")
    with _bar("reading" if compact is None else "compacting") as progress:
        opened = read_or_fail(
            directory,
            lambda path: Fleet(path, scheduler, workers=workers, where=where, progress=progress),
        )
        try:
            with opened:
                if compact is None:
                    show = _look(opened, metric, by, limit, goodput=goodput, hosts=hosts)
                else:
                    show = _compact(opened, compact, stream, where, unknown=unknown)
        except (FleetError, WhereError) as error:
            raise fail(str(error)) from None
    if not show(as_json=as_json):
        raise typer.Exit(PROBLEM)


class _Show(Protocol):
    """Prints a result; says whether all is well."""

    def __call__(self, *, as_json: bool) -> bool: ...


def _look(
    opened: Fleet, metric: str | None, by: str | None, limit: int, *, goodput: bool, hosts: bool
) -> _Show:
    runs = opened.runs()
    if not opened.rows and not opened.unsearched:
        raise fail(f"there is no run below {opened.path}")
    (totals,) = opened.totals(metric=metric)
    groups = None if by is None else opened.totals(by, metric)
    times = opened.goodput(worst=limit)[0] if goodput else None
    times_by = None if times is None or by is None else opened.goodput(by, worst=limit)
    compared = opened.hosts() if hosts else None
    # Who asks for one of these has seen the failures, or does not care.
    failures = None if goodput or hosts else opened.failures()
    best = None if metric is None else opened.best(metric, limit)
    # Sorted, they have notes of names that none of them has.
    for note in (runs if by is None else runs.sort(by)).notes:
        tell(note)
    if best is not None and not best and runs:
        near = get_close_matches(metric or "", runs.metric_names(), 8, 0) or ["none"]
        tell(f"no run has numbers of {metric}; there are: {', '.join(near)}")
    bad = opened.unsearched | {run.run: run.error for run in runs if run.state == "unreadable"}
    damaged = False
    for one in (times, compared):
        if one is not None:
            bad |= one.unreadable
            damaged = damaged or bool(one.incomplete)

    def show(*, as_json: bool) -> bool:
        from foundry_fastlog.show import fleet_tables, fleet_times

        if as_json:
            said = {
                "totals": totals,
                "by": groups,
                "failures": failures,
                "goodput": times,
                "goodput_by": times_by,
                "hosts": compared,
                "best": best,
            }
            known = {key: _plain(value) for key, value in said.items() if value is not None}
            write_json(to_json({**known, "unreadable": bad}))
            return not bad and not damaged
        console = Console(highlight=False)
        fleet_tables.show_totals(totals, console)
        if groups is not None and by is not None:
            fleet_tables.show_groups(groups, by, metric, console)
        if failures:
            fleet_tables.show_failures(failures, console)
        if times is not None:
            fleet_times.show_goodput(times, console)
        if times_by is not None and by is not None:
            fleet_times.show_goodput_groups(times_by, by, console)
        if compared is not None:
            fleet_times.show_hosts(compared, console)
        if best and metric is not None:
            fleet_tables.show_best(best, metric, console)
        fleet_tables.show_unreadable(bad, console)
        return not bad and not damaged

    return show


def _plain(found: Any) -> Any:  # noqa: ANN401 - results, or sequences of them
    return found.to_dict() if hasattr(found, "to_dict") else [one.to_dict() for one in found]


def _compact(
    opened: Fleet, out: Path, streams: list[Stream] | None, where: str | None, *, unknown: bool
) -> _Show:
    from foundry_fastlog.fleet.compaction import CLOSED

    done = opened.compact(
        out,
        streams=[one.value for one in streams or Stream],
        states=(*CLOSED, *["unknown"] * unknown),
    )

    seen = done.written + done.unchanged + sum(done.left_out.values()) + len(done.failed)
    if not seen and where is None:
        raise fail(f"there is no run below {opened.path}")
    for note in () if where is None else opened.runs().notes:
        tell(note)

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
