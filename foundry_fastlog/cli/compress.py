"""The command ``foundry-fastlog compress``."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from rich.text import Text

from foundry_fastlog.base.formatting import format_bytes, printable
from foundry_fastlog.cli.arguments import RunPath
from foundry_fastlog.cli.exit_codes import PROBLEM
from foundry_fastlog.cli.terminal import Console, fail, graceful

__all__ = ["EPILOG", "compress"]

EPILOG = (
    "**Example:** `foundry-fastlog compress runs/exp0`  \n"
    "**Exit codes:** 0 done, or nothing to do, 1 a file or a ring was left as it is, 2 no run, or "
    "nothing to compress with."
)


class Format(str, Enum):
    """How files are compressed, as a choice."""

    zstd = "zstd"
    gzip = "gzip"


@graceful
def compress(
    path: RunPath,
    *,
    form: Annotated[
        Format, typer.Option("--format", help="zstd, which is faster, or gzip.")
    ] = Format.zstd,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the plain files, too.")] = False,
) -> None:
    """Compress the files of a run to which nothing is written any more.

    These are all files of processes that have ended, and of one that records now all but the newest
    of each stream. What killed processes left in their rings is written to the files first. All
    commands read compressed files as they do plain ones. Safe to interrupt and repeat.
    """
    from foundry_fastlog.recording.packing import compress_run

    try:
        result = compress_run(path, form.value, keep=keep)
    except FileNotFoundError as error:  # no run: it says what to do
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{path}: {error.strerror or error}") from None
    console = Console(highlight=False)
    said = f"{len(result.files):,} file{'' if len(result.files) == 1 else 's'} compressed"
    if result.files:
        said += f": {format_bytes(result.before)} before, {format_bytes(result.after)} after"
    console.print(Text(said), soft_wrap=True)
    for name, reason in result.left:
        console.print(Text(f"left: {printable(f'{name}: {reason}')}", "yellow"), soft_wrap=True)
    if result.left:
        raise typer.Exit(PROBLEM)
