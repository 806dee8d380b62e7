"""The arguments of ``foundry-fastlog migrate``. Works without LibCST and says how to get it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from foundry_fastlog.base.formatting import write_json
from foundry_fastlog.cli.arguments import AsJson
from foundry_fastlog.cli.terminal import Console, fail, graceful

__all__ = ["EPILOG", "migrate"]

EPILOG = (
    "**Example:** `foundry-fastlog migrate src`, then again with `--write`  \n"
    "**In CI:** `foundry-fastlog migrate --check src`  \n"
    "**Exit codes:** 0 listed, or nothing left to do, 1 prints remain (with --write or --check) "
    "or a file could not be migrated, 2 invalid argument or no such file."
)


@graceful
def migrate(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Python files, notebooks or folders.")
    ],
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Change the files; without it, only list the changes.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 while unmarked prints remain.")
    ] = False,
    logger: Annotated[
        str, typer.Option(metavar="NAME", help="The logger's name, in the module and in self.")
    ] = "logger",
    level: Annotated[
        str,
        typer.Option(
            help="debug, info, warning, error or critical for all; auto: chosen by the words."
        ),
    ] = "auto",
    line_length: Annotated[
        int, typer.Option(min=1, help="Longest call that stays on one line.")
    ] = 100,
    assume_structured: Annotated[
        bool,
        typer.Option(
            "--assume-structured",
            help="Treat a logger of unknown type as a StructuredLogger.",
        ),
    ] = False,
    drop_empty: Annotated[
        bool,
        typer.Option("--drop-empty", help="Remove prints of empty lines and decoration."),
    ] = False,
    set_up: Annotated[
        str,
        typer.Option(
            help="Insert setup_logging(): main, in a main block or a notebook; always, else after "
            "the logger; never."
        ),
    ] = "main",
    as_json: AsJson = False,
) -> None:
    """List print() and tqdm.write() calls as structured log calls, and convert them.

    Prints that are not understood stay unchanged, with the reason. A line with `# noqa: T201` is
    kept.
    """
    try:
        from foundry_fastlog.cli import migrate_listing
        from foundry_fastlog.migrate import Options
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "libcst":
            raise
        raise fail(
            "migrate needs libcst, which is not installed. "
            f"Run: {sys.executable} -m pip install 'foundry_fastlog[migrate]'"
        ) from None
    for path in paths:
        if not path.exists():
            raise fail(f"{path}: no such file or directory")
    if write and check:
        raise fail("--check changes nothing: omit --write or --check")
    try:
        options = Options(
            logger=logger,
            level=level.lower(),
            line_length=line_length,
            assume_structured=assume_structured,
            drop_empty=drop_empty,
            set_up=set_up.lower(),
        )
    except ValueError as error:
        raise fail(str(error)) from None
    console = Console(highlight=False)
    reports, totals = migrate_listing.survey(
        paths, options, write=write, console=None if as_json else console
    )
    if as_json:
        result = {"written": write, "files": [report.to_dict() for report in reports]}
        write_json(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")
    else:
        migrate_listing.show_totals(totals, console, write=write)
    raise typer.Exit(migrate_listing.exit_code(totals, write=write, check=check))
