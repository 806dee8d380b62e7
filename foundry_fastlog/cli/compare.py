"""The command ``foundry-fastlog compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from foundry_fastlog.base.extras import extra
from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.arguments import AsJson, StartsChoice, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json
from foundry_fastlog.reading.run import read_run

__all__ = ["EPILOG", "compare"]

EPILOG = (
    "**Example:** `foundry-fastlog compare runs/before runs/after`  \n"
    "**In a script:** `foundry-fastlog compare --exit-code runs/a runs/b -m loss > /dev/null`  \n"
    "**Exit codes:** 0 compared; 1, only with --exit-code, some value or step differs; 2 invalid "
    "argument, no run, or no such metric."
)
_ALL = 1_000_000  # rows


@graceful
def compare(
    paths: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Two or more directories of runs.")
    ],
    *,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="PATTERN", help="Only metrics that fit: 'val_*'."),
    ] = None,
    maximise: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="PATTERN", help="Metrics of which more is better."),
    ] = None,
    starts: StartsChoice = "latest",
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 1 if a value or a step differs.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare runs: settings, code, metrics, timings, and the first step at which they differ.

    Values are compared bit for bit: 0.0 and -0.0 differ, NaN is NaN. A value is compared with that
    of the same rank, metric and step; steps that only one run has are counted apart.
    """
    if len(paths) < 2:
        raise fail("compare takes two or more runs: foundry-fastlog compare RUN RUN")
    runs = [read_or_fail(path, read_run) for path in paths]
    *_, which = (starts_of(run, starts) for run in runs)
    with extra("plot", "numpy"):
        from foundry_fastlog.analysis.compare import compare_runs
        from foundry_fastlog.analysis.points import Asked
        from foundry_fastlog.analysis.series import read_charts
        from foundry_fastlog.show.comparing import render_comparison
        from foundry_fastlog.show.plotting import render_charts
    try:
        found = compare_runs(*runs, metrics=metric, starts=which, maximise=maximise or ())
    except LookupError as error:
        raise fail(str(error.args[0])) from None
    if as_json:
        write_json(to_json(found.to_dict()))
    else:
        console = Console(highlight=False)
        render_comparison(found, console, **({"most": _ALL} if metric else {}))
        charts = read_charts(runs, metric, Asked(starts=which, points=1000))[:1]
        if charts:
            console.print()
            render_charts(charts, console, rows=15)
    if exit_code and not found.same:
        raise typer.Exit(PROBLEM)
