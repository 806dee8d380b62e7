"""The command ``foundry-fastlog runs``."""

from __future__ import annotations

import re
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foundry_fastlog.base.arguments import duration
from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json

if TYPE_CHECKING:
    from foundry_fastlog.analysis.runs import Runs
    from foundry_fastlog.show.runs_table import Column

__all__ = ["EPILOG", "runs"]

EPILOG = (
    "**Example:** `foundry-fastlog runs runs --where 'config.lr >= 1e-3 and last.loss < 2' "
    "--sort last.loss`  \n"
    "**Which failed, and how:** `foundry-fastlog runs runs --where 'state == \"failed\"' "
    "--columns run,error`  \n"
    "**Exit codes:** 0 shown, 2 no directory, no run below it, or a wrong option."
)

_STATISTICS = ("last", "first", "min", "max", "mean", "count", "nonfinite")
_COLUMN = re.compile(r"(?:`[^`]*`|\[[^\]]*\]|\([^)]*\)|[^,])+")


@graceful
def runs(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to look for runs, at any depth.")
    ] = Path(),
    *,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="EXPRESSION",
            help="Only runs of which this is true: 'last.loss < 2 and state == \"killed\"'.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(metavar="KEY", help="Sort by last.loss, config.lr, ...; -KEY: largest first."),
    ] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            metavar="PATTERN",
            help="Metrics to show: loss, 'val_*', min:loss (first, last, min, max, mean).",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Exactly these columns: run,config.lr,min.loss."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=0, help="At most so many runs; 0 for all."),
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Also read each run to see if it is complete.")
    ] = False,
    stalled_after: Annotated[
        str,
        typer.Option(metavar="TIME", help="A running run with nothing new for so long is stalled."),
    ] = "10m",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a run.")] = False,
) -> None:
    """List the runs below a directory: how each ended, its steps, metrics and configuration.

    Names in expressions: path, run, name, state (running, stalled, ended, failed, killed, unknown),
    error, starts, started, ended, duration (seconds), step, ranks, host, git, bytes, complete,
    tags, config.KEY, and of metrics last.NAME, first, min, max, mean, count, nonfinite.
    """
    from foundry_fastlog.analysis.where import WhereError

    try:
        idle_s = duration(stalled_after)
    except ValueError as error:
        raise fail(f"--stalled-after: {error}") from None
    asked = [one.strip() for text in columns or () for one in _COLUMN.findall(text) if one.strip()]
    if not complete:
        complete = any(re.search(r"\bcomplete\b", one) for one in [*asked, *(where or ()), sort])
    found = read_or_fail(directory, lambda path: _read(path, complete, idle_s))
    if not found:
        raise fail(f"there is no run below {directory}")
    try:
        for expression in where or ():
            found = found.where(expression)
        if sort:
            found = found.sort(sort)
        for one in asked:
            found.column(one)
    except WhereError as error:
        raise fail(str(error)) from None
    for note in found.notes:
        tell(note)
    if as_json:
        chosen = found[:limit] if limit else found
        write_json(b"".join(to_json(run.to_dict(), indent=False) for run in chosen))
        return
    from foundry_fastlog.show.runs_table import default_columns, render_runs

    if asked:
        wanted: list[Column] = [(one, one) for one in asked]
        if metric:
            wanted += _metrics(found, metric)
        more: list[Column] = []
    else:
        wanted, more = default_columns(found, _metrics(found, metric))
    render_runs(found, wanted, more, Console(highlight=False), limit=limit)


def _read(path: Path, complete: bool, idle_s: float) -> Runs:
    from foundry_fastlog.analysis.runs import read_runs

    return read_runs(path, complete=complete, stalled_after_s=idle_s)


def _metrics(found: Runs, asked: list[str] | None) -> list[Column]:
    """Return the columns of the metrics that fit what was asked for."""
    if asked is None:
        return [(_name("last", name), name) for name in found.main_metrics()]
    names = found.metric_names()
    columns: list[Column] = []
    for text in asked:
        statistic, colon, pattern = text.partition(":")
        if not colon or statistic not in _STATISTICS:
            statistic, pattern = "last", text
        fitting = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fitting and len(found):
            near = get_close_matches(pattern, names, 8, 0) or ["none"]
            tell(f"no metric fits {pattern}; there are: {', '.join(near)}")
        columns += [
            (_name(statistic, name), name if statistic == "last" else f"{statistic} {name}")
            for name in fitting
        ]
    return list(dict.fromkeys(columns))


def _name(statistic: str, name: str) -> str:
    return f"{statistic}[{name!r}]" if "`" in name else f"{statistic}.`{name}`"
