"""The command ``foundry-fastlog report``."""

from __future__ import annotations

import dataclasses
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import format_bytes, printable, write_json
from foundry_fastlog.cli.arguments import AsJson, StartsChoice, starts_of
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json
from foundry_fastlog.export.jsonl import ExportError
from foundry_fastlog.reading.run import read_run

__all__ = ["EPILOG", "report"]

EPILOG = (
    "**Example:** `foundry-fastlog report runs/exp0 -o exp0.html --open`  \n"
    "**Several runs:** `foundry-fastlog report runs/a runs/b -m loss -m 'val_*'`  \n"
    "**Exit codes:** 0 written, 1 written but lines are missing or damaged, 2 nothing written."
)


@graceful
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="The directories of one or more runs.")
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")
    ] = Path("report.html"),
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", metavar="PATTERN", help="Only metrics that fit: 'val_*'."),
    ] = None,
    starts: StartsChoice = "latest",
    title: Annotated[str | None, typer.Option(help="The page's title.")] = None,
    size: Annotated[
        float, typer.Option(min=0.1, metavar="MB", help="About how large the curves may be.")
    ] = 5.0,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file that is not a report.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write one page that shows runs: curves, timings, errors, messages, configuration.

    The page needs no network and no account: it can be sent by mail, kept, and opened years later.
    """
    from foundry_fastlog.pages.report import write_report

    opened = [read_or_fail(path, read_run) for path in runs]
    chosen = [starts_of(run, starts) for run in opened][-1]
    try:
        found = write_report(
            opened,
            out,
            metrics=metric,
            starts=chosen,
            title=title,
            size=int(size * 1e6),
            force=force,
        )
    except (ExportError, ValueError) as error:
        raise fail(str(error)) from None
    if as_json:
        write_json(to_json({**dataclasses.asdict(found), "path": str(found.path)}))
    else:
        runs_said = "1 run" if found.runs == 1 else f"{found.runs} runs"
        said = f"{printable(str(found.path))}: {runs_said}, {found.curves:,} curves"
        Console(highlight=False).print(Text(f"{said}, {format_bytes(found.bytes)}"), soft_wrap=True)
    if show:
        webbrowser.open(found.path.absolute().as_uri())
    if not found.complete:
        raise typer.Exit(PROBLEM)
