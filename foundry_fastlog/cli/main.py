"""Entry point of the ``foundry-fastlog`` command.

The commands are in ``commands``. This module works without typer and rich, and explains how to
install them if they are missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from foundry_fastlog.cli.exit_codes import INTERRUPTED, OK, PROBLEM, USAGE

__all__ = ["main"]

_EXTRA = {"typer", "rich", "click", "shellingham"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; default: those of the process.

    Returns:
        The exit code: 0 ok, 1 something is missing or wrong in the run, 2 an invalid
        argument or no run, 130 after Ctrl-C, 141 if the reader of a pipe closed it.
    """
    try:
        from foundry_fastlog.cli.commands import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise  # not a missing extra, but a broken installation
        print(
            f"error: the command line needs {error.name}, which is not installed. "
            f"Run: {sys.executable} -m pip install 'foundry_fastlog[cli]'",
            file=sys.stderr,
        )
        return USAGE
    except KeyboardInterrupt:  # its packages take a moment to load
        return INTERRUPTED
    if sys.stderr is None:  # closed, as daemons do it
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - to the program's end
    if sys.stdout is None:
        print("error: standard output is closed; redirect it: > /dev/null", file=sys.stderr)
        return USAGE
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not if a test or a notebook replaced it
            # If a terminal cannot show a character, show its escape instead of a traceback.
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    code: object = OK
    try:
        app(arguments or ["--help"], prog_name="foundry-fastlog")
    except SystemExit as stop:  # typer always exits this way
        code = stop.code
    if not arguments:
        return USAGE  # regardless of this typer version's exit code
    return code if isinstance(code, int) else OK if code is None else PROBLEM
