"""The command ``foundry-fastlog import``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson
from foundry_fastlog.cli.terminal import Console, fail, graceful, to_json

__all__ = ["EPILOG", "import_"]

EPILOG = (
    "**Offline runs of wandb:** `foundry-fastlog import wandb/ --to runs`  \n"
    "**TensorBoard:** `foundry-fastlog import tb_logs --to runs`  \n"
    "**A project of trackio:** `foundry-fastlog import my-project --to runs`  \n"
    "**Exit codes:** 0 written, 2 nothing or not all written."
)


class Source(str, Enum):
    """What a source is, as a choice."""

    wandb = "wandb"
    tensorboard = "tensorboard"
    trackio = "trackio"
    jsonl = "jsonl"


@graceful
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Files, directories, or projects of trackio."),
    ],
    *,
    to: Annotated[
        Path,
        typer.Option("--to", metavar="DIR", help="Where the runs are written, each in its own."),
    ] = Path("runs"),
    form: Annotated[
        Source | None, typer.Option("--format", help="By default what a source is.")
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of JSON lines: the member that is the step.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of JSON lines: the member that is the time.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take over runs of wandb, TensorBoard, trackio, or JSON lines, with their steps and times.

    They stand beside other runs then: in runs, compare, plot and ui. Sources are not changed.
    """
    from foundry_fastlog.importing.runs import SourceError, import_runs

    try:
        found = import_runs(sources, to, format=form.value if form else None, step=step, time=time)
    except SourceError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or to}: {error.strerror or error}") from None
    if as_json:
        write_json(to_json({"runs": [one.to_dict() for one in found]}))
        return
    console = Console(highlight=False)
    for one in found:
        lines = ", ".join(f"{count:,} of {stream}" for stream, count in one.lines.items())
        starts = f", {one.starts} starts" if one.starts > 1 else ""
        said = f"{printable(str(one.path))}: {lines or 'no lines'}{starts}"
        console.print(Text(said), soft_wrap=True)
        if one.left_out:
            left = ", ".join(
                f"{count:,} x {printable(kind)}" for kind, count in one.left_out.items()
            )
            console.print(Text(f"  not taken over: {left}", "yellow"), soft_wrap=True)
