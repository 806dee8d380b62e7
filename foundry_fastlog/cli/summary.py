"""The command ``foundry-fastlog summary``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson, StartsChoice, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, tell, to_json
from foundry_fastlog.reading.run import Run, read_run

if TYPE_CHECKING:
    from foundry_fastlog.analysis.summary import Summary

__all__ = ["EPILOG", "summary"]

EPILOG = (
    "**Example:** `foundry-fastlog summary runs/exp0`  \n"
    "**Side by side:** `foundry-fastlog summary runs/exp0 runs/exp1 -m '*loss'`  \n"
    "**For scripts:** `foundry-fastlog summary runs/exp0 --json | jq .metrics`  \n"
    "**Exit codes:** 0 complete, 1 lines are missing, damaged or dropped, or a file or ring "
    "cannot be read, 2 no run."
)


@graceful
def summary(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="The run's directory; several side by side."),
    ],
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="PATTERN", help="Only metrics that fit: 'val_*'."),
    ] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Only what this rank recorded.")] = None,
    ranks: Annotated[bool, typer.Option("--ranks", help="The ranks side by side.")] = False,
    as_json: AsJson = False,
    starts: StartsChoice = "latest",
) -> None:
    """Show a run: metrics with a loss curve, timings, errors, and whether it is complete.

    Several runs, or with --ranks the ranks of one, are shown side by side: metrics as rows.
    """
    if ranks and (rank is not None or len(paths) > 1):
        raise fail("--ranks takes one run, and no --rank")
    if ranks:
        run = read_or_fail(paths[0], read_run)
        found = _by_rank(run, starts, metric)
    else:
        opened = {os.fspath(path): read_or_fail(path, read_run) for path in paths}
        found = {path: _read(run, starts, rank, metric) for path, run in opened.items()}
    results = list(found.values())
    if as_json:
        _print_json(found, several="ranks" if ranks else "runs" if len(paths) > 1 else "")
    elif ranks or len(paths) > 1:
        from foundry_fastlog.show.side_by_side import render_side_by_side
        from foundry_fastlog.show.tables import MOST

        console = Console(highlight=False)
        most = max(len(one.metrics) for one in results) * len(results) if metric else MOST
        what = "ranks" if ranks else "runs"
        names = list(found) if ranks else _headings(paths)
        render_side_by_side(names, results, console, what=what, most=most)
        if metric and not any(one.metrics for one in results):
            _nothing_fits(metric, console)
    else:
        _show_one(results[0], metric)
        if rank is None and not metric and len(results[0].ranks) > 1 and results[0].timings:
            _show_ranks(opened[os.fspath(paths[0])], starts)
    if any(not one.complete or one.dropped or one.problems for one in results):
        raise typer.Exit(PROBLEM)


def _by_rank(run: Run, starts: str, metric: list[str] | None) -> dict[str, Summary]:
    """Summarise each rank of a run that is opened once for all of them: it may have many files."""
    found = {}
    of_run = run.problems
    for rank in run.ranks:
        before = len(run.problems)
        result = found[str(rank)] = _read(run, starts, rank, metric)
        result.problems = [*of_run, *result.problems[before:]]  # not those of other ranks
    return found


def _read(run: Run, starts: str, rank: int | None, metric: list[str] | None) -> Summary:
    from foundry_fastlog.analysis.summarize import summarize

    which = starts_of(run, starts)
    try:
        result = summarize(run, starts=which, rank=rank)
    except ValueError as error:  # no such rank
        raise fail(str(error)) from None
    if metric:
        result.keep_metrics(metric)
    return result


def _show_one(result: Summary, metric: list[str] | None) -> None:
    from foundry_fastlog.show.terminal import render_summary

    console = Console(highlight=False)
    if not metric:
        render_summary(result, console)
        return
    render_summary(result, console, len(result.metrics))  # those that were asked for, all
    if not result.metrics:
        _nothing_fits(metric, console)


def _show_ranks(run: Run, starts: str) -> None:
    """Show which ranks are slow, where numpy is there to find out."""
    try:
        from foundry_fastlog.analysis.ranks import compare_ranks
        from foundry_fastlog.show.ranks import render_ranks_shortly
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        tell("times by rank need numpy: pip install 'foundry_fastlog[plot]'")
        return
    console = Console(highlight=False)
    render_ranks_shortly(compare_ranks(run, starts=starts_of(run, starts)), console)


def _nothing_fits(metric: list[str], console: Console) -> None:
    asked = printable(", ".join(metric))
    console.print(Text(f"no metric fits {asked}", "yellow"), soft_wrap=True)


def _print_json(found: dict[str, Summary], several: str) -> None:
    if several:
        write_json(to_json({several: {name: one.to_dict() for name, one in found.items()}}))
    else:
        (one,) = found.values()
        write_json(to_json(one.to_dict()))


def _headings(paths: list[Path]) -> list[str]:
    """Return the shortest ends of paths by which they differ."""
    unique = list(dict.fromkeys(paths))
    for count in (1, 2, 3):
        names = ["/".join(path.parts[-count:]) or os.fspath(path) for path in unique]
        if len(set(names)) == len(names):
            return names
    return [os.fspath(path) for path in unique]
