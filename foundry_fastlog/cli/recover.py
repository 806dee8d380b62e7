"""The command ``foundry-fastlog recover``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import printable, write_json
from foundry_fastlog.cli.arguments import AsJson
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful, read_or_fail, to_json

__all__ = ["EPILOG", "recover"]

EPILOG = (
    "**Example:** `foundry-fastlog recover runs/exp0`  \n"
    "**Preview:** `foundry-fastlog recover --dry-run runs`  \n"
    "**Exit codes:** 0 everything found is in the files (or would be, or its process is still "
    "running), 1 something could not be recovered or is in quarantine, 2 invalid argument or no "
    "run."
)


@graceful
def recover(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A run, or a directory with runs below it.")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be done; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write what killed processes left in their ring files to the files of their runs.

    A killed process leaves records in its ring file (in the run's .fastlog directory, or where a
    pointer there says). The next start in the run recovers them, and summary, export and tail show
    them before that; this command writes them now. Rings of running processes are left alone. A
    ring that cannot be trusted is moved to .fastlog/quarantine, with the reason next to it, and
    reported each time until you remove it. Nothing is deleted before its records are in the files.
    Then the text logs (``main_<time>.log``, ``debug_<time>.log``) of killed processes get the
    messages they lack. Safe to interrupt and repeat.
    """
    try:
        from foundry_fastlog.messages.text_recovery import complete_text_logs

        if dry_run:
            from foundry_fastlog.reading.preview import preview as act
        else:
            from foundry_fastlog.recording.recovery import recover as act
    except ImportError as error:
        raise fail(str(error)) from None
    reports = read_or_fail(path, act)
    texts = read_or_fail(path, lambda run: complete_text_logs(run, dry_run=dry_run))
    if as_json:
        added = [{"path": str(text.path), "added": text.added} for text in texts]
        rings = [report.to_dict() for report in reports]
        write_json(to_json({"dry_run": dry_run, "rings": rings, "text_logs": added}))
    else:
        from foundry_fastlog.show.terminal import render_rings

        console = Console(highlight=False)
        render_rings(reports, path, console)
        verb = "would be added" if dry_run else "added"
        for text in texts:
            what = "message" if text.added == 1 else "messages"
            console.print(
                Text(f"{printable(str(text.path))}: {text.added:,} {what} {verb}"), soft_wrap=True
            )
    if not all(report.sound for report in reports):
        raise typer.Exit(PROBLEM)
